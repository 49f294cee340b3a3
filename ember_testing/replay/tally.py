"""Counts of the calls that a test or a run recorded and replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 recording`, `2 recordings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(slots=True)
class Tally:
    """Counts of one test or of a whole run; added with `+=`, sent between processes as a dict."""

    recorded: int = 0  # calls sent to a provider and written down
    replayed: int = 0  # calls answered from a cassette
    spent: float = 0.0  # US dollars of the recorded calls whose cost is known
    saved: float = 0.0  # US dollars that the replayed calls cost when they were recorded
    unpriced: int = 0  # calls whose cost is unknown
    avoided: float = 0.0  # seconds that the replayed calls took when they were recorded
    unused: int = 0  # recordings that their test did not replay
    stale: int = 0  # replayed recordings older than `ember_max_age`
    waits: float = 0.0  # seconds of sleep that `no_sleep` skipped
    missed: int = 0  # requests without a recording
    notes: list[str] = field(default_factory=list[str])  # sentences for the end of the run

    def __iadd__(self, other: Tally) -> Tally:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain types, for JSON and for transfer from a worker process."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> Tally:
        """Parse the result of `as_dict`."""
        return cls(**counts)
