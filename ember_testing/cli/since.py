"""What became of the cassettes since a revision of git, also as Markdown for a pull request."""

from __future__ import annotations

import html
import re
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli.diff import Difference, compare
from ember_testing.cli.git import changed_since
from ember_testing.exceptions import CassetteError
from ember_testing.replay.budget import dollars
from ember_testing.replay.tally import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_testing.cassettes.calls import Call

_KINDS = ("added", "changed", "removed")
_MOST_CHARACTERS = 60_000  # GitHub takes 65,536 characters in a comment


@dataclass(frozen=True, slots=True)
class CassetteDifference:
    """What became of one cassette.

    Attributes:
        path: The file, from the working directory.
        found: What differs, call by call.
        cost: US dollars that the calls which are new, or recorded anew, have cost.
        error: Why it could not be compared; "" if it was.
    """

    path: Path
    found: list[Difference] = field(default_factory=list[Difference])
    cost: float = 0.0
    error: str = ""

    def count(self, kind: str) -> int:
        """How many calls were `added`, `changed` or `removed`."""
        return sum(each.kind == kind for each in self.found)

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {
            "path": self.path.as_posix(),
            "differences": [each._asdict() for each in self.found],
            "cost": self.cost,
            "error": self.error or None,
        }


def differences_since(revision: str, paths: Sequence[Path]) -> list[CassetteDifference]:
    """The cassettes in which some call differs, or that cannot be read.

    Args:
        revision: Such as `origin/main`.
        paths: Files or folders to look at; all where there are none.

    Raises:
        GitError: There is no such revision, or no repository.
    """
    found: list[CassetteDifference] = []
    with tempfile.TemporaryDirectory(prefix="ember-") as folder:
        old = Path(folder) / "old.sqlite"
        for each in changed_since(revision, paths):
            try:
                if each.before is not None:
                    old.write_bytes(each.before)
                before = _calls(old) if each.before is not None else []
                now = _calls(each.path) if each.is_there else []
            except CassetteError as error:
                text = str(error).replace(str(old), f"{each.path} at {revision}")
                found.append(CassetteDifference(each.path, error=text))
                continue
            if differing := compare(before, now):
                recorded = {one.new for one in differing}
                cost = sum(call.cost or 0.0 for call in now if call.id in recorded)
                found.append(CassetteDifference(each.path, differing, cost))
    return found


def _calls(path: Path) -> list[Call]:
    with closing(CassetteFile(path)) as file:
        return list(calls_of(file))


def as_markdown(found: Sequence[CassetteDifference], revision: str) -> str:
    """A comment for a pull request: a table, and each cassette's calls to unfold.

    Args:
        found: What differs.
        revision: What it was compared with.
    """
    if not found:
        return f"No recorded call differs from {_code(revision)}.\n"
    total = dollars(sum(each.cost for each in found))
    lines = [
        f"### Recorded calls since {_code(revision)}",
        "",
        "| cassette | added | changed | removed | cost of what was recorded |",
        "|---|--:|--:|--:|--:|",
    ]
    size = sum(map(len, lines))
    blocks: list[str] = []
    for place, each in enumerate(found):
        counts = " | ".join(str(each.count(kind)) for kind in _KINDS)
        row = f"| {_code(each.path.as_posix())} | {counts} | {dollars(each.cost)} |"
        block = _block(each)
        if size + len(row) + len(block) > _MOST_CHARACTERS:
            lines.append(f"| and {counted(len(found) - place, 'more cassette')} | | | | |")
            break
        size += len(row) + len(block) + 3
        lines.append(row)
        blocks.append(block)
    changes = f"{counted(len(found), 'cassette')}, {total} to record."
    return "\n".join([*lines, "", changes, "", *blocks]) + "\n"


def _code(text: str) -> str:
    """Any text as code inside of a line or a table; what Markdown would read is none."""
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return f"<code>{html.escape(plain).replace('|', '&#124;')}</code>"


def _block(each: CassetteDifference) -> str:
    text = each.error or "\n".join(
        line
        for one in each.found
        for line in (f"{one.kind}: {one.call}", *(f"    {line}" for line in one.lines))
    )
    if len(text) > _MOST_CHARACTERS // 4:
        text = text[: _MOST_CHARACTERS // 4] + "\n..."
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    summary = f"<summary>{_code(each.path.as_posix())}</summary>"
    return f"<details>{summary}\n\n{fence}text\n{text}\n{fence}\n\n</details>\n"
