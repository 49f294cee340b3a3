"""Record, replay and fake calls to language models in tests.

The names load what they need when they are first used: pytest imports this package wherever Ember
is installed, and a test that uses none of it pays for none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_testing.cassettes.calls import Call
    from ember_testing.exceptions import (
        BudgetExceeded,
        CassetteError,
        CassetteMiss,
        NetworkBlocked,
        RecordingWarning,
        ReplayFailure,
    )
    from ember_testing.fakes.model import FakeCall, FakeModel, UnansweredCall, fake_model
    from ember_testing.fakes.server import FaultServer, fault_server
    from ember_testing.fakes.verdict import Verdict
    from ember_testing.patches.sleep import NoSleep, no_sleep
    from ember_testing.replay.cassette import Cassette, cassette
    from ember_testing.wires.answer import Answer

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
    "Answer": "wires.answer",
    "FakeCall": "fakes.model",
    "FakeModel": "fakes.model",
    "UnansweredCall": "fakes.model",
    "fake_model": "fakes.model",
    "FaultServer": "fakes.server",
    "fault_server": "fakes.server",
    "Verdict": "fakes.verdict",
    "Call": "cassettes.calls",
    "Cassette": "replay.cassette",
    "cassette": "replay.cassette",
    "NoSleep": "patches.sleep",
    "no_sleep": "patches.sleep",
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
