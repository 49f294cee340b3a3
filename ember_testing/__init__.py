"""Record, replay and fake calls to language models in tests.

The names load what they need when they are first used: pytest imports this package wherever Ember
is installed, and a test that uses none of it pays for none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_testing.answers import Answer
    from ember_testing.calls import Call
    from ember_testing.exceptions import (
        BudgetExceeded,
        CassetteError,
        CassetteMiss,
        NetworkBlocked,
        RecordingWarning,
        ReplayFailure,
    )
    from ember_testing.fake import FakeCall, FakeModel, UnansweredCall, fake_model
    from ember_testing.fault_serving import FaultServer, fault_server
    from ember_testing.sleep import NoSleep, no_sleep
    from ember_testing.standalone import Cassette, cassette
    from ember_testing.verdict import Verdict

__all__ = [
    "Answer",
    "BudgetExceeded",
    "Call",
    "Cassette",
    "CassetteError",
    "CassetteMiss",
    "FakeCall",
    "FakeModel",
    "FaultServer",
    "NetworkBlocked",
    "NoSleep",
    "RecordingWarning",
    "ReplayFailure",
    "UnansweredCall",
    "Verdict",
    "cassette",
    "fake_model",
    "fault_server",
    "no_sleep",
]

_HOMES = {
    "Answer": "answers",
    "FakeCall": "fake",
    "FakeModel": "fake",
    "UnansweredCall": "fake",
    "fake_model": "fake",
    "FaultServer": "fault_serving",
    "fault_server": "fault_serving",
    "Verdict": "verdict",
    "Call": "calls",
    "Cassette": "standalone",
    "cassette": "standalone",
    "NoSleep": "sleep",
    "no_sleep": "sleep",
    "BudgetExceeded": "exceptions",
    "CassetteError": "exceptions",
    "CassetteMiss": "exceptions",
    "NetworkBlocked": "exceptions",
    "RecordingWarning": "exceptions",
    "ReplayFailure": "exceptions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
