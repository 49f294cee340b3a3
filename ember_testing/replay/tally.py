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
    """Counts of one test or of a whole run; added with `+=`, sent between processes as a dict.

    Attributes:
        recorded: Calls sent to a provider and written down.
        replayed: Calls answered from a cassette.
        spent: US dollars of the recorded calls whose cost is known.
        saved: US dollars that the replayed calls cost when they were recorded.
        unpriced: Calls whose cost is unknown.
        avoided: Seconds that the replayed calls took when they were recorded.
        unused: Recordings that their test did not replay.
        stale: Replayed recordings older than `ember_max_age`.
        waits: Seconds of sleep that `no_sleep` skipped.
        missed: Requests without a recording.
        notes: Sentences for the end of the run.
    """

    recorded: int = 0
    replayed: int = 0
    spent: float = 0.0
    saved: float = 0.0
    unpriced: int = 0
    avoided: float = 0.0
    unused: int = 0
    stale: int = 0
    waits: float = 0.0
    missed: int = 0
    notes: list[str] = field(default_factory=list[str])

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
