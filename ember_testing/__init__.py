"""Record, replay and fake calls to language models in tests.

With pytest, the marker `ember_replay` and the fixtures `fake_model`, `cassette` and `no_sleep` need
no import: `pytest --markers` and `pytest --fixtures` describe them. Without pytest:

    with ember_testing.cassette("paris.sqlite", record="new") as cassette:  # record what is missing
        models("gpt-5.6-sol", "What is the capital of France?")
    print(cassette.recorded[0].text)

    with ember_testing.fake_model("gpt-5.6-sol", "Paris") as fake:  # answered without a network
        assert models("gpt-5.6-sol", "What is the capital of France?").text == "Paris"
    print(fake.calls[0].prompt)

- `cassette`, `Cassette`, `Call`: record and replay; the calls that were replayed and recorded.
- `fake_model`, `FakeModel`, `FakeCall`, `Answer`: fakes, the calls that reached them, and answers;
  `Embeddings` answers calls for embeddings.
- `fault_server`, `FaultServer`: fakes as a server, for other processes and other libraries.
- `Verdict`: how the code under test handled the faults of `ember_testing.faults`.
- `cassette_server`, `CassetteServer`: record and replay as a server, for the same clients.
- `no_sleep`, `NoSleep`: retry waits that return at once.
- `CassetteMiss`, `NetworkBlocked`, `UnansweredCall`, all `ReplayFailure`: a test needed something
  that is not there. `CassetteError`, `BudgetExceeded`, `RecordingWarning`.

`ember_testing.strategies` generates traffic for property tests, and the command `ember-cassettes`
manages recordings.

Names are imported on first use: pytest imports this package wherever Ember is installed, and tests
that do not use it do not pay for it.
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
    from ember_testing.replay.server import CassetteServer, cassette_server
    from ember_testing.wires.answer import Answer
    from ember_testing.wires.embeddings import Embeddings

__all__ = [
    "Answer",
    "BudgetExceeded",
    "Call",
    "Cassette",
    "CassetteError",
    "CassetteMiss",
    "CassetteServer",
    "Embeddings",
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
    "cassette_server",
    "fake_model",
    "fault_server",
    "no_sleep",
]

_NAMES = {
    "wires.answer": ("Answer",),
    "wires.embeddings": ("Embeddings",),
    "fakes.model": ("FakeCall", "FakeModel", "UnansweredCall", "fake_model"),
    "fakes.server": ("FaultServer", "fault_server"),
    "fakes.verdict": ("Verdict",),
    "cassettes.calls": ("Call",),
    "replay.cassette": ("Cassette", "cassette"),
    "replay.server": ("CassetteServer", "cassette_server"),
    "patches.sleep": ("NoSleep", "no_sleep"),
    "exceptions": (
        "BudgetExceeded", "CassetteError", "CassetteMiss", "NetworkBlocked", "RecordingWarning",
        "ReplayFailure",
    ),
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    __tracebackhide__ = True  # the message about a missing package is enough
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        from ember_testing.exceptions import missing_extra

        raise missing_extra(name, error) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
