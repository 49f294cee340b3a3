"""The recordings that a test run used.

Written by `pytest --ember-report`, read by `ember-cassettes prune`. A cassette alone does not show
whether a test still needs it; a run of the whole suite does. A failed or skipped test may not have
reached all its requests, so a cassette is kept whole unless all its tests passed. A partial run
says nothing about the other tests, nor about a module that was not wholly collected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = "ember-report"
VERSION = 2


@dataclass(slots=True)
class Used:
    """The use of one cassette in a run."""

    id: str = ""  # the cassette's, which changes when it is recorded anew
    numbers: set[int] = field(default_factory=set[int])  # ids of the replayed recordings
    tests: set[str] = field(default_factory=set[str])  # node ids of the tests that use it
    passed: set[str] = field(default_factory=set[str])  # node ids of those that passed
    shared: bool = False  # the marker named it

    def add(self, other: Used) -> None:
        """Add another test's or process's use of the same cassette."""
        if self.id and other.id and other.id != self.id:
            self.numbers.clear()  # it was recorded anew in between
        self.id = other.id or self.id
        self.numbers |= other.numbers
        self.tests |= other.tests
        self.passed |= other.passed
        self.shared = self.shared or other.shared

    @property
    def unfinished(self) -> set[str]:
        """The tests that did not pass: they failed, were skipped, or did not run."""
        return self.tests - self.passed

    def as_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON and for transfer from a worker process."""
        return {
            "id": self.id,
            "used": spans(self.numbers),
            "tests": sorted(self.tests),
            "passed": sorted(self.passed),
            "shared": self.shared,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Used:
        """Parse the result of `as_dict`."""
        numbers = {n for first, last in found["used"] for n in range(first, last + 1)}
        tests, passed = set(found["tests"]), set(found["passed"])
        return cls(found["id"], numbers, tests, passed, found["shared"])


def spans(numbers: Iterable[int]) -> list[list[int]]:
    """Return the first and last of each consecutive run: 1, 2, 3, 7 gives [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
