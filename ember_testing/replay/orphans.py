"""Find the cassette of a renamed test, stored under its former name."""

from __future__ import annotations

import os
import shlex
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import cassette_file
from ember_testing.exceptions import CassetteError
from ember_testing.replay.request import Context, key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.replay.settings import Rules
    from ember_testing.wires.response import Request

_MOST_FILES = 200  # opened for one miss, at about 0.3 ms each


def orphan_lines(
    request: Request, path: Path, test: str, rules: Rules, is_orphan: Callable[[Path], bool]
) -> list[str]:
    """Return the lines of a miss about another test's cassette that holds the request.

    Args:
        request: The request, redacted.
        path: The test's own cassette, which lacks the request.
        test: The test's node id.
        rules: The rules of comparison.
        is_orphan: Returns whether the test of the cassette at a path no longer exists.
    """
    for other in islice(filter(is_orphan, _candidates(path, test)), _MOST_FILES):
        try:
            with CassetteFile(other) as file:
                found = file.recorded(key(request, rules, Context(salt=file.salt)))
                shared = file.metadata().get("run")
        except (CassetteError, OSError):  # unusable, but not this test's problem
            continue
        if found and not shared:
            instead = ["--replace"] if path.exists() else []
            command = shlex.join(["ember-cassettes", "mv", *instead, _short(other), _short(path)])
            return [
                f"the request is recorded in {other}, whose test is gone; if it was renamed to "
                f"this one{', to take that in the place of this cassette' if instead else ''}: "
                f"{command}"
            ]
    return []


def _candidates(path: Path, test: str) -> Iterator[Path]:
    """Yield the cassettes of the same module, then all others in the cassette directory."""
    own = cassette_file(test)
    if path.parts[-len(own.parts) :] != own.parts:
        return  # shared, or named by the caller
    near = sorted(path.parent.glob("*.sqlite"))
    yield from near
    root = path.parents[len(own.parts) - 1]
    for folder, folders, names in os.walk(root):
        folders.sort()
        if Path(folder) != path.parent:
            yield from (Path(folder, each) for each in sorted(names) if each.endswith(".sqlite"))


def _short(path: Path) -> str:
    """Return the path relative to the working directory, if it is inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
