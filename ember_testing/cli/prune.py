"""What a test run used: written by `pytest --ember-report`, read by `ember-cassettes prune`. Pure.

Nobody can tell from a cassette alone whether a test still needs it. A run of the whole suite can:
it says which recordings its tests asked for. What a failed or skipped test did not come to is no
sign of anything, so a cassette whose tests did not all pass stays whole, and a run of a part of the
suite says nothing about the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMAT = "ember-report"
VERSION = 1


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
        if other.id != self.id and self.id:
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What of one cassette nothing uses.

    Attributes:
        path: The file.
        numbers: The recordings; empty where the whole file goes.
        whole: Whether nothing in it is used.
        kept: Why it stays although not all of it was used; "" if it does not.
    """

    path: Path
    numbers: list[int]
    whole: bool = False
    kept: str = ""


def read_report(path: Path) -> dict[str, Any]:
    """A report of `pytest --ember-report`.

    Raises:
        ValueError: The file is none.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no report of pytest --ember-report: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]  # any JSON
        raise ValueError(f"{path} is no report of pytest --ember-report")
    if report["version"] > VERSION:
        raise ValueError(f"{path} is a report of a newer ember-models: upgrade this one")
    return report  # pyright: ignore[reportUnknownVariableType]  # any JSON


def joined(reports: Iterable[Mapping[str, Any]]) -> dict[Path, Used]:
    """What several runs used together (several Python versions, several parts of a suite)."""
    found: dict[Path, Used] = {}
    for report in reports:
        root = Path(report["rootdir"])
        for name, used in report["cassettes"].items():
            found.setdefault((root / name).resolve(), Used()).add(Used.from_dict(used))
    return found


def plan(
    path: Path, identity: str, numbers: Sequence[int], used: Mapping[Path, Used]
) -> Plan | None:
    """What of one cassette can go; None where all of it is used.

    Args:
        path: The file.
        identity: Its id.
        numbers: Its recordings.
        used: What the runs used.
    """
    known = used.get(path.resolve())
    if known is None:
        return Plan(path, [], whole=True)
    if known.unfinished:
        test = min(known.unfinished)
        return Plan(path, [], kept=f"{test} did not pass, or was skipped")
    if known.id != identity:
        return Plan(path, [], kept="it was recorded anew after the run")
    unused = [number for number in numbers if number not in known.numbers]
    if not unused:
        return None
    return Plan(path, unused, whole=len(unused) == len(numbers))
