"""Paths of cassettes: of a test, of a fixture, and all in a folder."""

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
"""Characters of a file name; file systems allow 255 bytes, and a journal's suffix is added."""


def cassette_file(node_id: str) -> PurePosixPath:
    """Return the cassette of a test: `<module's path>/<Class.>test[param].sqlite`.

    A digest of the name is appended if the name had to be changed, or if it has upper-case letters
    outside a class's name, which a case-insensitive file system would not distinguish.

    Args:
        node_id: pytest's node id, such as `tests/test_a.py::TestB::test_c[1-x]`.
    """
    path, _, rest = node_id.partition("::")
    test, bracket, parameters = rest.partition("[")
    names = test.split("::")
    name = ".".join(names) + bracket + parameters
    keeps_case = (names[-1] + parameters) == (names[-1] + parameters).lower()
    folders = [_safe(part) for part in path.removesuffix(".py").split("/")]
    return PurePosixPath(*folders, _safe(name, keeps_case) + ".sqlite")


def shared_file(name: str) -> PurePosixPath:
    """Return the cassette for the marker's `cassette=NAME`.

    Raises:
        ValueError: The name leaves the cassette directory or is not a portable file name.
    """
    parts = name.removesuffix(".sqlite").split("/")
    if not all(part and _safe(part) == part for part in parts):
        raise ValueError(
            f"cassette={name!r}: use letters, digits and _ . - in a name relative to the cassette "
            "directory, with / between folders"
        )
    return PurePosixPath(*parts[:-1], parts[-1] + ".sqlite")


def fixture_file(source: str, name: str, scope: str, node: str, parameter: str) -> PurePosixPath:
    """Return the cassette of a fixture of a wider scope: `<source>/<name>@<scope>.sqlite`.

    A test's name has no `@` outside its parameters.

    Args:
        source: The file that defines the fixture, relative to rootdir.
        name: The fixture's name, prefixed by the classes that define it.
        scope: `session`, `package`, `module` or `class`.
        node: Node id of the package, module or class; "" for the session.
        parameter: The fixture's parameter; "" if it has none.
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
    """Return all cassettes at or below these paths, which are folders or files of any name, sorted.

    Raises:
        FileNotFoundError: A path does not exist.
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


def leftovers_in(paths: Iterable[Path]) -> list[Path]:
    """Return files of unfinished recordings: in progress, or left by a killed process.

    Args:
        paths: Folders with all below them, or cassettes, for which only their own are returned.
    """
    found: set[Path] = set()
    cassettes: dict[Path, set[str]] = {}  # names by folder, so that each folder is listed once
    for path in paths:
        if path.is_dir():
            found.update(filter(_cassette_of, path.rglob("*")))
        else:
            cassettes.setdefault(path.parent, set()).add(path.name)
    for folder, names in cassettes.items():
        found.update(each for each in folder.glob("*") if _cassette_of(each) in names)
    return sorted(found)


def _cassette_of(path: Path) -> str:
    """Return the name of the cassette that a file of an unfinished recording is for; else ""."""
    name, extension, rest = path.name.rpartition(".sqlite")
    return name + extension if rest.endswith(_LEFT_OVER) else ""
