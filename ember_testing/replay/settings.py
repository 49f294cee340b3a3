"""How a cassette is used: what the marker and `ember_testing.cassette` take, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ember_testing.replay.request import DEFAULT_MATCH_ON, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ember_testing.faults import Fault

Record = Literal["new", "all"]
_NO_FAULTS: Mapping[int, Fault] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a cassette is used; what the marker and `ember_testing.cassette` take.

    Attributes:
        match_on: Parts of the request that are compared, see `Rules`.
        ignore: JSON paths of the body that are not compared.
        repeats: Past the last recording of a request: `error`, or `last` to repeat it.
        record_errors: Keep recorded answers of status 400 and above.
        timing: Replay the pauses too.
        allow_loopback: Calls to this machine go through, neither recorded nor replayed.
        prices: What a replayed call costs: `recorded`, by the prices in force when it was recorded,
            or `current`.
        faults: By the number of the call, from 1, what happens to it in a replay; see
            `ember_testing.faults`.

    Raises:
        ValueError: An argument has a value that is none of these.
    """

    match_on: Sequence[str] = DEFAULT_MATCH_ON
    ignore: Sequence[str] = ()
    repeats: str = "error"
    record_errors: bool = False
    timing: bool = False
    allow_loopback: bool = False
    prices: str = "recorded"
    faults: Mapping[int, Fault] = field(default_factory=lambda: _NO_FAULTS)

    def __post_init__(self) -> None:
        if self.repeats not in ("error", "last"):
            raise ValueError(f"repeats={self.repeats!r}: expected 'error' or 'last'")
        if self.prices not in ("recorded", "current"):
            raise ValueError(f"prices={self.prices!r}: expected 'recorded' or 'current'")
        for name in ("match_on", "ignore"):
            value: Sequence[str] = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name}={value!r}: expected a list, such as [{value!r}]")
        for number, fault in self.faults.items():
            if number < 1 or not hasattr(fault, "error_type"):
                raise ValueError(
                    f"faults={{{number!r}: {fault!r}}}: expected the number of a call, from 1, and "
                    "a fault of ember_testing.faults, such as {3: rate_limit()}"
                )
        self.rules()

    def unmet_faults(self, calls: int) -> list[str]:
        """What is to be said of faults that never happened, for a test that made fewer calls."""
        late = [number for number in self.faults if number > calls]
        return [
            f"faults={{{number}: ...}}: the test made {calls} calls only, so that nothing happened "
            "to that one; number the calls from 1"
            for number in late[:1]
        ]

    def rules(self) -> Rules:
        """The part of it that decides what is the same request."""
        return Rules(tuple(self.match_on), tuple(self.ignore))
