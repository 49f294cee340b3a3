"""Where cassettes lie: the path of a test's own, and what there is in a folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+@()\[\]{} -]")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)  # on Windows
_LEFT_OVER = (".part", "-journal")
_LONGEST = 120
"""Characters of one name; file systems end at 255 bytes, and a journal's suffix comes on top."""


def cassette_file(node_id: str) -> PurePosixPath:
    """The cassette of a test: `<module's path>/<Class.>test[param].sqlite`.

    Wherever the name had to be changed, and where upper-case letters outside a class's name would
    be lost on a file system that ignores case, a digest of the whole name follows it.

    Args:
        node_id: As pytest gives it, such as `tests/test_a.py::TestB::test_c[1-x]`.
    """
    path, _, rest = node_id.partition("::")
    test, bracket, parameters = rest.partition("[")
    names = test.split("::")
    name = ".".join(names) + bracket + parameters
    keeps_case = (names[-1] + parameters) == (names[-1] + parameters).lower()
    folders = [_safe(part) for part in path.removesuffix(".py").split("/")]
    return PurePosixPath(*folders, _safe(name, keeps_case) + ".sqlite")


def shared_file(name: str) -> PurePosixPath:
    """The cassette that the marker's `cassette=NAME` asks for.

    Raises:
        ValueError: The name leads out of the cassette directory or no file system would take it.
    """
    parts = name.removesuffix(".sqlite").split("/")
    if not all(part and _safe(part) == part for part in parts):
        raise ValueError(
            f"cassette={name!r}: use letters, digits and _ . - in a name relative to the cassette "
            "directory, with / between folders"
        )
    return PurePosixPath(*parts[:-1], parts[-1] + ".sqlite")


def fixture_file(source: str, name: str, scope: str, node: str, parameter: str) -> PurePosixPath:
    """The cassette of a fixture that is wider than a test: `<source>/<name>@<scope>.sqlite`.

    No test's name has an `@` outside of its parameters.

    Args:
        source: The file that defines the fixture, relative to rootdir.
        name: Of the fixture, after those of the classes that it is defined in.
        scope: `session`, `package`, `module` or `class`.
        node: Node id of the package, module or class; "" for the session.
        parameter: Of the fixture; "" where it has none.
    """
    path, _, classes = node.partition("::")
    module = "" if path == source else path.removesuffix(".py")
    parts = [*module.split("/"), *classes.split("::")]
    keeps_case = (own := name.rpartition(".")[2] + parameter) == own.lower()
    name = ".".join([f"{name}@{scope}", *filter(None, parts)]) + (parameter and f"[{parameter}]")
    folders = [_safe(part) for part in source.removesuffix(".py").split("/")]
    return PurePosixPath(*folders, _safe(name, keeps_case) + ".sqlite")


def _safe(name: str, keeps_case: bool = True) -> str:
    safe = _RESERVED.sub(r"\1_", _UNSAFE.sub("_", name))[:_LONGEST]
    if safe.strip(". ") != safe:
        safe = safe.strip(". ") + "_"
    if safe == name and keeps_case:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


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
