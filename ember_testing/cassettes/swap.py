"""A recording takes the place of the cassette that was there, or is taken back."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from ember_testing.cassettes import schema
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.rows import pieces_of
from ember_testing.exceptions import CassetteError
from ember_testing.wires.exchange import COLUMNS, Read

if TYPE_CHECKING:
    from pathlib import Path

_RUNS = 8  # that are remembered: as many may record a cassette anew at once

UNREADABLE = "unreadable"
"""Stands for the `id` of a cassette that is empty or damaged."""


class Found(NamedTuple):
    """The cassette that a recording anew will replace, as it was when it began.

    Args:
        id: From its table `cassette`, or `UNREADABLE`.
        horizon: The number of its last call.
        salt: Of its digests, which the new recording keeps.
    """

    id: str
    horizon: int
    salt: str = ""


def found_at(path: Path) -> tuple[Found | None, str]:
    """What a recording anew will replace, None where there is nothing, and the runs that made it.

    Raises:
        CassetteError: The file is damaged, and holds something that could be lost.
    """
    if not path.exists():
        return None, ""
    try:
        present = CassetteFile(path)
    except CassetteError:
        if path.stat().st_size:
            raise
        return Found(UNREADABLE, 0), ""
    with closing(present):
        about = present.about()
        found = Found(about.get("id", ""), present.horizon, about.get("salt", ""))
        return found, about.get("run", "")


def take_back(file: CassetteFile) -> None:
    """Undo what was added: the file is as it was, byte for byte unless others wrote as well.

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
        if alone and file.snapshot is not None and _put_back(file.path, file.snapshot):
            return
        for call_id, recorded_at in file.added:
            # With the time: should the file have been exchanged, the number is another call's.
            row = connection.execute(
                "delete from calls where id = ? and recorded_at = ?", (call_id, recorded_at)
            )
            if row.rowcount:
                connection.execute("delete from prices where since = ?", (call_id,))


def _put_back(path: Path, content: bytes) -> bool:
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError:  # a full disk, or a system that keeps open files: delete the rows instead
        part.unlink(missing_ok=True)
        return False
    return True


def replace(file: CassetteFile, path: Path, since: Found | None) -> None:
    """Give a new recording the name `path`, in one step, and close it.

    Args:
        file: The recording.
        path: The cassette to exchange.
        since: The file at `path` as it was when this recording began. Should it be another one
            by now, because another process has recorded anew meanwhile, the calls join that;
            and what another process has added to it since is kept.

    Raises:
        CassetteError: The file cannot be exchanged.
    """
    try:
        if not path.exists():
            file.close()
            if schema.place(file.path, path):
                return
            file = CassetteFile(file.path, file.written_by)  # another process was quicker
        if path.stat().st_size == 0 or (since is not None and since.id == UNREADABLE):
            file.close()
            file.path.replace(path)
            return
        with closing(CassetteFile(path, file.written_by)) as present:
            with present.transaction("exclusive"):
                runs = [*file.about()["run"].split(), *present.about()["run"].split()]
                if since is not None and present.about().get("id") == since.id:
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
    """Take over the calls of another cassette behind a number, and their prices."""
    present = {(at, key) for _, at, key in file.times()}
    missing = [
        call_id
        for call_id, at, key in other.times()
        if call_id > after and (at, key) not in present
    ]
    for call_id in missing:
        copy(file, other, call_id)


def name_runs(file: CassetteFile, runs: list[str]) -> None:
    """Let a test of one of these runs that comes later add to the file, not begin it anew."""
    with file.transaction("immediate") as connection:
        connection.execute(
            "update cassette set value = ? where name = 'run'",
            (" ".join([*dict.fromkeys(runs)][:_RUNS]),),
        )


def copy(file: CassetteFile, other: CassetteFile, call_id: int) -> int:
    """Add a call of another cassette, and the prices it was charged at.

    Args:
        file: Where to.
        other: The other cassette.
        call_id: Its number there.

    Returns:
        Its number.
    """
    row = other.rows([call_id])[0]
    number = file.add(row, pieces_of(row))
    in_force = {line[1:5]: line[5] for line in other.prices() if line[0] <= call_id}
    charges = [(charge, rates) for charge, rates in in_force.items() if row["model"] in charge[1:3]]
    read = Read({name: row[name] for name in COLUMNS}, charges)
    file.describe([(file.rows([number])[0], read)])
    return number
