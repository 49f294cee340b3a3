"""What a test run used: written by `pytest --ember-report`, read by `ember-cassettes prune`. Pure.

Nobody can tell from a cassette alone whether a test still needs it. A run of the whole suite can:
it says which recordings its tests asked for. What a failed or skipped test did not come to is no
sign of anything, so a cassette whose tests did not all pass stays whole, and a run of a part of the
suite says nothing about the rest. Nor does it about a module that was not wholly collected.
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
    """What the tests of a run did with one cassette.

    Attributes:
        id: Of the cassette, so that one recorded anew since is not taken for it.
        numbers: The recordings that were played.
        tests: Node ids of the tests that use it.
        passed: Those of them that passed.
        shared: Whether the marker named it.
    """

    id: str = ""
    numbers: set[int] = field(default_factory=set[int])
    tests: set[str] = field(default_factory=set[str])
    passed: set[str] = field(default_factory=set[str])
    shared: bool = False

    def add(self, other: Used) -> None:
        """Join what another test or process did with the same cassette."""
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
        """In plain types, for JSON and for a worker process to hand over."""
        return {
            "id": self.id,
            "used": spans(self.numbers),
            "tests": sorted(self.tests),
            "passed": sorted(self.passed),
            "shared": self.shared,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Used:
        """The opposite of `as_dict`."""
        numbers = {n for first, last in found["used"] for n in range(first, last + 1)}
        tests, passed = set(found["tests"]), set(found["passed"])
        return cls(found["id"], numbers, tests, passed, found["shared"])


def spans(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as first and last of each unbroken row: 1, 2, 3, 7 is [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
