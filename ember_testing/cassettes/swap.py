"""Replace a cassette with a new recording, or undo a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from ember_testing.cassettes import schema
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.rows import pieces_of
from ember_testing.exceptions import CassetteError
from ember_testing.wires.parsing import COLUMNS, ParsedRow

if TYPE_CHECKING:
    from pathlib import Path

_RUNS = 8  # runs remembered: the most that may record a cassette anew at once

UNREADABLE = "unreadable"
"""The `id` that stands for an empty or damaged cassette."""


class Replaced(NamedTuple):
    """The cassette that a new recording will replace, as it was when the recording began."""

    id: str  # in the table `cassette`, or `UNREADABLE`
    horizon: int  # the id of its last call
    salt: str = ""  # of its digests; the new recording keeps it


def found_at(path: Path) -> tuple[Replaced | None, str]:
    """Return the cassette that a new recording will replace, if any, and the runs that made it.

    Raises:
        CassetteError: The file is damaged and not empty.
    """
    if not path.exists():
        return None, ""
    try:
        present = CassetteFile(path)
    except CassetteError:
        if path.stat().st_size:
            raise
        return Replaced(UNREADABLE, 0), ""
    with present:
        metadata = present.metadata()
    found = Replaced(metadata.get("id", ""), present.horizon, metadata.get("salt", ""))
    return found, metadata.get("run", "")


def undo(file: CassetteFile) -> None:
    """Undo what was added: the file is restored byte for byte, unless others wrote to it too.

    Raises:
        CassetteError: The file cannot be written.
    """
    if not file.added and not file.created:
        return
    with file.transaction("exclusive") as connection:
        newer = connection.execute(
            "select count(*) from calls where id > ?", (file.horizon,)
        ).fetchone()[0]
        alone = newer == len(file.added)
        if alone and file.created:
            file.path.unlink()
            return
        if alone and file.snapshot is not None and _restore(file.path, file.snapshot):
            return
        for call_id, recorded_at in file.added:
            # Compare the time too: if the file was replaced, the id belongs to another call.
            # Its price stays: it may be that of others' later calls.
            connection.execute(
                "delete from calls where id = ? and recorded_at = ?", (call_id, recorded_at)
            )


def _restore(path: Path, content: bytes) -> bool:
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError:  # a full disk, or a system that locks open files: delete the rows instead
        part.unlink(missing_ok=True)
        return False
    return True


def replace(file: CassetteFile, path: Path, since: Replaced | None) -> None:
    """Move a new recording to `path` atomically, and close it.

    Args:
        file: The recording.
        path: The cassette to replace.
        since: The file at `path` when this recording began. If another process has replaced it
            meanwhile, the calls are added to its recording; calls added to the file since are
            kept.

    Raises:
        CassetteError: The file cannot be replaced.
    """
    try:
        if not path.exists():
            file.close()
            if schema.place(file.path, path):
                return
            file = CassetteFile(file.path, file.new_metadata)  # another process was faster
        if path.stat().st_size == 0 or (since is not None and since.id == UNREADABLE):
            file.close()
            file.path.replace(path)
            return
        with CassetteFile(path, file.new_metadata) as present:
            with present.transaction("exclusive"):
                runs = [*file.metadata()["run"].split(), *present.metadata()["run"].split()]
                if since is not None and present.metadata().get("id") == since.id:
                    _join(file, present, since.horizon)
                    name_runs(file, runs)
                    file.close()
                    file.path.replace(path)
                    return
            _join(present, file, 0)
            name_runs(present, runs)
    except OSError as error:
        raise CassetteError(f"cannot put the new recording at {path}: {error}") from error
    finally:
        file.close()
        file.path.unlink(missing_ok=True)


def _join(file: CassetteFile, other: CassetteFile, after: int) -> None:
    """Copy another cassette's calls after an id, with their prices."""
    present = {(at, key) for _, at, key in file.times()}
    for call_id, at, key in other.times():
        if call_id > after and (at, key) not in present:
            copy(file, other, call_id)


def name_runs(file: CassetteFile, runs: list[str]) -> None:
    """Store the runs whose later tests add to the file instead of starting it anew."""
    with file.transaction("immediate") as connection:
        schema.write_metadata(connection, {"run": " ".join([*dict.fromkeys(runs)][:_RUNS])})


def copy(file: CassetteFile, other: CassetteFile, call_id: int) -> int:
    """Add a call of another cassette to `file`, with its prices; return its id there."""
    row = other.row(call_id)
    number = file.add(row, pieces_of(row))
    in_force = {line[1:5]: line[5] for line in other.prices() if line[0] <= call_id}
    charges = [(charge, rates) for charge, rates in in_force.items() if row["model"] in charge[1:3]]
    read = ParsedRow({name: row[name] for name in COLUMNS}, charges)
    file.describe([(file.row(number), read)])
    return number
