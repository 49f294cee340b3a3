"""The code blocks of a Markdown file, to be run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: the line of its first statement, its code, and the output promised for it."""

    line: int
    code: str
    prints: str | None = None


def python_blocks(path: Path) -> list[Block]:
    """All Python blocks of a file."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, match.start(1)) + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
    ]


def run(block: Block, path: Path, names: dict[str, object]) -> dict[str, object]:
    """Run a block; errors name the file's own line. Returns its names."""
    code = compile("\n" * (block.line - 1) + block.code, str(path), "exec", dont_inherit=True)
    exec(code, names)
    return names
