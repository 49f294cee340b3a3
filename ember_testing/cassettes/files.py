"""Where cassettes lie, and what killed recordings have left beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.calls import Call, from_row
from ember_testing.cassettes.file import CassetteFile
from ember_testing.wires.readings import read_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_LEFT_OVER = (".part", "-journal")


def cassettes_in(paths: Iterable[Path]) -> list[Path]:
    """All cassettes at or below these paths, sorted.

    Args:
        paths: Files, taken whatever they are called, and folders.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(path.rglob("*.sqlite"))
        elif path.exists():
            found.add(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return sorted(found)


def leftovers_in(paths: Iterable[Path], *, deep: bool = True) -> list[Path]:
    """Files of recordings that are not finished: being made now, or left by a killed process.

    Args:
        paths: Folders, or cassettes, whose own are meant then.
        deep: Whether to look below folders too.
    """
    found: set[Path] = set()
    for path in paths:
        folder = path if path.is_dir() else path.parent
        prefix = "" if path.is_dir() else path.name
        files = folder.rglob("*") if deep and path.is_dir() else folder.glob("*")
        found.update(
            each
            for each in files
            if each.name.endswith(_LEFT_OVER)
            and ".sqlite" in each.name
            and each.name.startswith(prefix)
        )
    return sorted(found)


def rows_of(file: CassetteFile) -> Iterator[dict[str, Any]]:
    """All columns of all calls; what a killed recording has not read yet is read now."""
    for number in file.numbers():
        row = file.rows([number])[0]
        if row["provider"] is None and row["status"] is not None:
            row.update(read_row(row).columns)
        yield row


def calls_of(file: CassetteFile) -> Iterator[Call]:
    """All calls, in the order in which they were recorded."""
    return map(from_row, rows_of(file))
