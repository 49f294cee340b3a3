"""Find unused recordings from the reports of whole test runs. Pure except for `read_report`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.paths import cassette_file
from ember_testing.cassettes.used import FORMAT, VERSION, Used

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The unused recordings of one cassette."""

    path: Path
    recordings: list[int]  # numbers of those to delete; empty if the whole file is deleted
    whole: bool = False  # whether the whole file is unused
    kept: str = ""  # why unused recordings are kept; "" if they are deleted
    tests: list[str] = field(default_factory=list[str])  # node ids of those that recorded them
    runs: list[str] = field(default_factory=list[str])  # those that did not use them

    def as_dict(self, deleted: bool) -> dict[str, Any]:
        """Return the plan in JSON types."""
        kept = self.kept or None
        return {
            **asdict(self),
            "path": str(self.path),
            "kept": kept,
            "deleted": deleted and not kept,
        }


def read_report(path: Path) -> dict[str, Any]:
    """Read a report of `pytest --ember-report`.

    Raises:
        ValueError: The file is not a report, or does not say what was not collected.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no report of pytest --ember-report: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]  # any JSON
        raise ValueError(f"{path} is no report of pytest --ember-report")
    if report["version"] > VERSION:
        raise ValueError(f"{path} is a report of a newer ember-models: upgrade this one")
    if report["version"] < VERSION:
        raise ValueError(
            f"{path} is a report of an older ember-models and does not say which modules were not "
            f"collected: run pytest --ember-report {path} again"
        )
    return report  # pyright: ignore[reportUnknownVariableType]  # any JSON


class SuiteUsage:
    """The recordings that several runs used, as for several Python versions or parts of a suite.

    Args:
        reports: Results of `read_report`.
    """

    def __init__(self, reports: Iterable[Mapping[str, Any]]) -> None:
        self._used: dict[Path, Used] = {}
        self._untested: dict[str, str] = {}
        self._folders: dict[Path, str] = {}
        self._runs: list[str] = []
        self._is_partial = False
        for report in reports:
            self._is_partial |= bool(report["partial"])
            root = Path(report["rootdir"])
            self._runs.append(report["run"])
            for name, used in report["cassettes"].items():
                self._used.setdefault((root / name).resolve(), Used()).add(Used.from_dict(used))
            for module, why in report["untested"].items():
                self._add_untested(root / report["cassette_dir"], module, why)
        # A test that failed or was skipped might have used more recordings.
        for used in self._used.values():
            for test in used.unfinished:
                self._untested.setdefault(
                    test.partition("::")[0], f"{test} did not pass, or was skipped"
                )

    def _add_untested(self, folder: Path, module: str, why: str) -> None:
        module = module.removesuffix("__init__.py").rstrip("/")
        module = "" if module == "." else module
        self._untested[module] = f"{module or 'the whole suite'}: {why}"
        own = folder / cassette_file(f"{module}::test").parent if module else folder
        self._folders[own.resolve()] = self._untested[module]

    def plan(self, path: Path, cassette_id: str, tests: Mapping[int, str]) -> PrunePlan | None:
        """Return what can be deleted of one cassette; None if all of it is used.

        Args:
            path: The file.
            cassette_id: The id in its table `cassette`.
            tests: For each recording's number, the node id of the test that made it.
        """
        known = self._used.get(path.resolve())
        numbers = [number for number in tests if known is None or number not in known.numbers]
        if known is not None:
            if known.unfinished:
                test = min(known.unfinished)
                return PrunePlan(path, [], kept=f"{test} did not pass, or was skipped")
            if known.id != cassette_id:
                return PrunePlan(path, [], kept="it was recorded anew after the run")
            if not numbers:
                return None
        shared = known is not None and known.shared
        if kept := self._reason_to_keep(path.resolve(), set(tests.values()), shared):
            return PrunePlan(path, [], kept=kept)
        gone = sorted({tests[number] for number in numbers} - {""})
        whole = len(numbers) == len(tests)
        return PrunePlan(path, numbers if known else [], whole=whole, tests=gone, runs=self._runs)

    def _reason_to_keep(self, path: Path, tests: set[str], shared: bool) -> str:
        """Return why a test outside these runs may use the cassette; "" if no such test can."""
        for folder, why in self._folders.items():
            if folder in path.parents:
                return why
        modules = {test.partition("::")[0] for test in tests}
        for name, why in self._untested.items():
            if any(not name or each == name or each.startswith(f"{name}/") for each in modules):
                return why
        if self._is_partial and not shared:
            ran = {test.partition("::")[0] for used in self._used.values() for test in used.tests}
            if unknown := modules - ran:
                return f"no test of {min(unknown) or 'pytest'} was part of the run"
        own = {cassette_file(test).name for test in tests if test}
        if self._folders and (shared or own != {path.name}):
            return f"another module may share it ({min(self._folders.values())})"
        return ""
