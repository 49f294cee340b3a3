"""Compare cassettes with a git revision, also as Markdown for a pull request."""

from __future__ import annotations

import html
import re
import tempfile
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
    """The changes of one cassette."""

    path: Path  # relative to the working directory
    found: list[Difference] = field(default_factory=list[Difference])
    cost: float = 0.0  # USD, of the calls that are new or were recorded again
    error: str = ""  # why it could not be compared

    def count(self, kind: str) -> int:
        """Return how many calls were `added`, `changed` or `removed`."""
        return sum(each.kind == kind for each in self.found)

    def as_dict(self) -> dict[str, Any]:
        """Return the changes in JSON types."""
        return {
            "path": self.path.as_posix(),
            "differences": [each._asdict() for each in self.found],
            "cost": self.cost,
            "error": self.error or None,
        }


def differences_since(revision: str, paths: Sequence[Path]) -> list[CassetteDifference]:
    """Return the cassettes in which a call differs or that cannot be read.

    Args:
        revision: A revision such as `origin/main`.
        paths: Files or folders to compare; all cassettes if empty.

    Raises:
        GitError: The revision or the repository does not exist.
    """
    found: list[CassetteDifference] = []
    with tempfile.TemporaryDirectory(prefix="ember-") as folder:
        old = Path(folder) / "old.sqlite"
        for each in changed_since(revision, paths):
            try:
                if each.before is not None:
                    old.write_bytes(each.before)
                before = _calls(old) if each.before is not None else []
                now = _calls(each.path) if each.path.exists() else []
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
    with CassetteFile(path) as file:
        return list(calls_of(file))


def as_markdown(found: Sequence[CassetteDifference], revision: str) -> str:
    """Return a comment for a pull request: a table, and each cassette's calls folded."""
    if not found:
        return f"No recorded call differs from {_code(revision)}."
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
    return "\n".join([*lines, "", changes, "", *blocks])


def _code(text: str) -> str:
    """Return a text as inline code, also inside a table, with its Markdown escaped."""
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
