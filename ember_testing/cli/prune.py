"""What of a cassette no test uses, by the reports of whole runs. Pure but for reading those."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.used import FORMAT, VERSION, Used

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
