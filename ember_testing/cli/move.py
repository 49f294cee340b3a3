"""Rename cassettes after a test, module or parameter was renamed."""

from __future__ import annotations

from pathlib import Path

from ember_testing.cassettes.paths import cassette_file, cassettes_in, leftovers_in
from ember_testing.exceptions import CassetteError


def path_of(name: str, folder: Path) -> Path:
    """Return the path of a cassette that is named by path, or by node id below the folder."""
    return folder / cassette_file(name) if "::" in name else Path(name)


def move(old: Path, new: Path, *, replace: bool = False) -> list[tuple[Path, Path]]:
    """Rename a cassette, or all cassettes of a folder, or nothing if a new name is taken.

    Args:
        old: A file or a folder.
        new: The new name.
        replace: Whether a cassette that has the new name may be replaced.

    Returns:
        Old and new name of each file.

    Raises:
        CassetteError: No cassette was found, one is being written, or a new name is taken.
    """
    if not old.exists():
        raise CassetteError(f"{old}: no such cassette or folder")
    pairs = [(each, new / each.relative_to(old)) for each in cassettes_in([old])]
    for each in leftovers_in([old]):
        raise CassetteError(f"{each} is being written, or left by a killed recording: end that")
    for each, target in pairs:
        if target.exists() and not replace:
            raise CassetteError(
                f"{target} is there already: {each} is left where it is; --replace lets {target} go"
            )
    for each, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        each.replace(target)
    for folder in (old, *old.parents):
        if folder.is_dir() and not any(folder.iterdir()) and folder.name:
            folder.rmdir()
        elif folder.is_dir():
            break
    return pairs
