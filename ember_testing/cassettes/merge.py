"""Merge two versions of a cassette: keep what each has added since their common ancestor."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ember_testing.cassettes import schema, swap
from ember_testing.cassettes.file import CassetteFile
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ANSWER = ("status", "outcome", "error_type", "response_body")

Calls = dict[tuple[str, int], dict[str, Any]]
"""The rows of a cassette by key and position among identical requests."""


def merge(ancestor: Path, ours: Path, theirs: Path) -> list[str]:
    """Apply the changes of `theirs` to `ours`; if both changed a call, nothing is written.

    Args:
        ancestor: The common ancestor; an empty file if there is none.
        ours: One version, which the result replaces.
        theirs: The other version.

    Returns:
        One line for each call that both sides have changed.

    Raises:
        CassetteError: A file cannot be read, or the two cannot be compared.
    """
    with CassetteFile(ours) as mine, CassetteFile(theirs) as other:
        if mine.salt != other.salt:
            raise CassetteError(
                "one side was recorded anew under another name, so that their requests cannot be "
                "compared: keep one of the two, and record what is missing with --ember-record"
            )
        left, right = _calls(mine), _calls(other)
        gone, added, conflicts = plan(_ancestor(ancestor, mine.salt), left, right)
        if conflicts or not (gone or added):
            return [_line(left.get(each), right.get(each)) for each in conflicts]
        runs = f"{mine.metadata()['run']} {other.metadata()['run']}".split()
        part = ours.with_name(f"{ours.name}.{uuid4().hex[:8]}.part")
        try:
            shutil.copyfile(ours, part)
            with CassetteFile(part, schema.new_metadata()) as merged:
                if gone:
                    merged.remove([left[each]["id"] for each in gone])
                for number in sorted(right[each]["id"] for each in added):
                    swap.copy(merged, other, number)
                # A new id: a report of recordings used on one side does not apply to the other's.
                changes = {"id": uuid4().hex, "run": " ".join(dict.fromkeys(runs))}
                with merged.transaction("immediate") as connection:
                    schema.write_metadata(connection, changes)
            part.replace(ours)
        except OSError as error:
            raise CassetteError(f"cannot write the merged cassette {ours}: {error}") from error
        finally:
            part.unlink(missing_ok=True)
    return []


def plan(
    base: Calls, left: Calls, right: Calls
) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[tuple[str, int]]]:
    """Return what to delete from the left side, what to add from the right, and the conflicts.

    `base` is the common ancestor.
    """
    gone: list[tuple[str, int]] = []
    added: list[tuple[str, int]] = []
    conflicts: list[tuple[str, int]] = []
    for each in {**left, **right}:
        before, mine, other = (_answer(calls.get(each)) for calls in (base, left, right))
        if mine == other or other == before:
            continue
        if mine != before:
            conflicts.append(each)
            continue
        if mine is not None:
            gone.append(each)
        if other is not None:
            added.append(each)
    return gone, added, conflicts


def _answer(row: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """Return the columns that a replay depends on; the time of recording is not compared."""
    return None if row is None else tuple(row[name] for name in _ANSWER)


def _ancestor(path: Path, salt: bytes) -> Calls:
    if not path.stat().st_size:
        return {}
    with CassetteFile(path) as file:
        return _calls(file) if file.salt == salt else {}


def _calls(file: CassetteFile) -> Calls:
    return {(row["key"], row["n"]): row for row in file.requests()}


def _line(mine: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    row = mine or other or {}
    what = "both have recorded" if mine and other else "one side has deleted, the other changed"
    return f"{what} {row['method']} {row['url']} ({row['n']}. identical request)"
