"""One run of pytest, over all its tests and processes: the counts, what was used, the budget."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli.prune import FORMAT, VERSION, Used
from ember_testing.exceptions import CassetteError
from ember_testing.replay.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ember_testing.replay.session import Session


@dataclass(slots=True)
class Run:
    """What the tests of a run came to; of a worker process, or of all together.

    Attributes:
        tally: The counts.
        cassettes: What was used, by the file's path relative to rootdir.
    """

    tally: Tally = field(default_factory=Tally)
    cassettes: dict[str, Used] = field(default_factory=dict[str, Used])

    def expect(self, path: str, test: str, shared: bool) -> None:
        """A test was collected that uses this cassette."""
        self.cassettes.setdefault(path, Used()).add(Used(tests={test}, shared=shared))

    def finish(self, path: str, session: Session, passed: bool, shared: bool) -> None:
        """A test is over, and its session closed.

        Args:
            path: The cassette, relative to rootdir.
            session: What it did.
            passed: Whether it passed.
            shared: Whether the marker named the cassette.
        """
        tests = {session.test}
        numbers = set(session.played.numbers())
        identity = ""
        if session.path.exists():
            try:
                with closing(CassetteFile(session.path)) as file:
                    identity = file.about().get("id", "")
                    if session.tally.recorded:
                        rows = file.rows(file.numbers())
                        numbers |= {row["id"] for row in rows if row["test"] == session.test}
            except CassetteError:  # told already, by the session
                passed = False
        used = Used(identity, numbers, tests, tests if passed else set(), shared)
        self.cassettes.setdefault(path, Used()).add(used)

    def add(self, other: Run) -> None:
        """Join what a worker process counted."""
        self.tally += other.tally
        for path, used in other.cassettes.items():
            self.cassettes.setdefault(path, Used()).add(used)

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON and for a worker process to hand over."""
        cassettes = {path: used.as_dict() for path, used in sorted(self.cassettes.items())}
        return {"totals": self.tally.as_dict(), "cassettes": cassettes}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Run:
        """The opposite of `as_dict`."""
        cassettes = {path: Used.from_dict(used) for path, used in found["cassettes"].items()}
        return cls(Tally.from_dict(found["totals"]), cassettes)

    def unused_of_shared(self, root: Path) -> dict[str, int]:
        """How many recordings of each shared cassette no test asked for.

        Only of those all of whose tests have passed: another one may have used the rest.

        Args:
            root: Of the run.
        """
        found: dict[str, int] = {}
        for path, used in self.cassettes.items():
            if used.shared and not used.unfinished and (root / path).exists():
                with closing(CassetteFile(root / path)) as file:
                    if count := len(set(file.numbers()) - used.numbers):
                        found[path] = count
        return found

    def write(self, path: Path, root: Path, partial: Iterable[str], exit_status: int) -> None:
        """Write the report of `--ember-report`.

        Args:
            path: The file.
            root: Of the run.
            partial: Why it was no run of the whole suite.
            exit_status: Of pytest.
        """
        report = {
            "format": FORMAT,
            "version": VERSION,
            "rootdir": str(root),
            "exit_status": exit_status,
            "partial": list(partial),
            **self.as_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def narrowed(
    arguments: Iterable[str], started_in: Path, root: Path, testpaths: Iterable[str]
) -> list[str]:
    """Why a run with these arguments is not of the whole suite; nothing if it is.

    Args:
        arguments: Paths and node ids that were given.
        started_in: The folder that they are relative to.
        root: Of the run.
        testpaths: The ini option.
    """
    given = list(arguments)
    if not given:
        return []
    whole = [(root / path).resolve() for path in testpaths] or [root.resolve()]
    named = [(started_in / argument).resolve() for argument in given if "::" not in argument]
    covered = all(any(each == part or each in part.parents for each in named) for part in whole)
    return [] if covered else [f"arguments: {' '.join(given)}"]


def left_behind(folder: Path, before: float) -> list[str]:
    """Files of recordings that were killed before this run began.

    Args:
        folder: Of cassettes.
        before: When the run began, in seconds since the epoch.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.path
            for entry in entries
            if entry.name.endswith(".part") and entry.stat().st_mtime < before
        ]
