"""Counts of what one test, or a whole run, recorded and replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def counted(number: int, noun: str) -> str:
    """A number of things in words: `1 recording`, `2 recordings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(slots=True)
class Tally:
    """Counts of one test or of a whole run; they add with `+=` and cross processes as a dict.

    Attributes:
        recorded: Calls sent to a provider and written down.
        replayed: Calls answered from a cassette.
        spent: US dollars of the recorded calls whose cost is known.
        saved: US dollars that the replayed calls cost when they were recorded.
        unpriced: Calls whose cost is not known.
        avoided: Seconds of provider time that the replayed calls took when they were recorded.
        unused: Recordings that the test they belong to did not ask for.
        stale: Replayed recordings older than `ember_max_age`.
        waits: Seconds of sleep that `no_sleep` left out.
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
        """The counts in plain types, for JSON and for a worker process to hand over."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> Tally:
        """The opposite of `as_dict`."""
        return cls(**counts)
