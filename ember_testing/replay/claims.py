"""Claims on requests, so that processes recording the same cassette pay for each request once.

The workers of pytest-xdist, or several runs, may record one shared cassette. Before a request is
sent, its key and position are claimed in a per-user file; a session with the same request waits for
the answer and adopts it. A claim ends with the process that holds it, and the recordings of a
failed test pass to the sessions that adopted them.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.swap import copy
from ember_testing.exceptions import CassetteError
from ember_testing.replay.side_file import SideFile

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ember_testing.cassettes.rows import Answer

if os.name == "posix":
    import fcntl

_SCHEMA = """
create table if not exists sessions (id text primary key, cassette text, process text);
create table if not exists claims (
    cassette text, key text, n integer, owner text, file text, number integer, recorded_at text,
    kept integer default 0, primary key (cassette, key, n)
);
create table if not exists holders (cassette text, key text, n integer, session text);
create table if not exists runs (
    cassette text, run text, process text, primary key (cassette, run, process)
);
"""
_WHERE = "where cassette = ? and key = ? and n = ?"
_STALE = 60.0  # seconds after which an unlocked lock file belongs to a dead process


class Recorded(NamedTuple):
    """A recording made by another session."""

    file: str  # the cassette, or the new file that will replace it
    number: int  # the id of the call in that file
    recorded_at: str  # ISO 8601


class FailedRecordings(NamedTuple):
    """The recordings of a failed test, by id and time."""

    kept: Sequence[tuple[int, str]] = ()  # those that other sessions adopted
    dropped: Sequence[tuple[int, str]] = ()  # those that only this test had adopted


def adopt(
    file: CassetteFile, found: Recorded, cassette: Path, place: tuple[str, int]
) -> Answer | None:
    """Copy another session's recording into this session's file; None if it no longer exists.

    Args:
        file: This session's file.
        found: Where the other session made the recording.
        cassette: The cassette, where it is now if the other session's file has replaced it.
        place: The request's key, and its position among identical ones.
    """
    if found.file == str(file.path.resolve()):
        number = file.find_by_time(found.recorded_at, *place)
        return None if number is None else file.answer(number)
    for path in (Path(found.file), cassette):
        with suppress(CassetteError), CassetteFile(path) as other:
            number = other.find_by_time(found.recorded_at, *place)
            if number is not None:
                return file.answer(copy(file, other, number))
    return None


class Claims:
    """One session's claims on a cassette, in a run of this name.

    Raises:
        CassetteError: The file of claims cannot be used.
    """

    def __init__(self, cassette: Path, run: str) -> None:
        self._cassette = str(cassette.resolve())
        self._session = uuid4().hex
        try:
            self._file = SideFile(_folder() / "claims.sqlite", _SCHEMA)
            with self._file.transaction() as connection:
                self._sweep(connection)
                connection.execute(
                    "insert into sessions values (?, ?, ?)",
                    (self._session, self._cassette, _process_lock()),
                )
                connection.execute(
                    "insert or ignore into runs values (?, ?, ?)",
                    (self._cassette, run, _process_lock()),
                )
        except (OSError, sqlite3.Error) as error:
            raise CassetteError(f"cannot claim calls in {_folder()}: {error}") from error

    def others_record(self, runs: Collection[str]) -> bool:
        """Return whether another live process of these runs records or recorded this cassette."""
        query = "select run, process from runs where cassette = ?"
        found = self._file.connection.execute(query, (self._cassette,)).fetchall()
        mine = _process_lock()
        return any(run in runs and at != mine and _is_alive(at) for run, at in found)

    def claim(self, key: str, n: int) -> Recorded | bool:
        """Claim the `n`-th identical request.

        Returns:
            Its recording if there is one; True if this session must send it, False if another
            session is sending it.
        """
        with self._file.transaction() as connection:
            row = connection.execute(
                f"select owner, file, number, recorded_at from claims {_WHERE}",
                (self._cassette, key, n),
            ).fetchone()
            if row is not None and row[1] is not None:
                self._hold(connection, key, n)
                return Recorded(*row[1:])
            if row is not None and row[0] != self._session and self._is_alive(connection, row[0]):
                return False
            connection.execute(
                "insert or replace into claims (cassette, key, n, owner) values (?, ?, ?, ?)",
                (self._cassette, key, n, self._session),
            )
            return True

    def record(self, key: str, n: int, where: Recorded) -> None:
        """Tell the other sessions where a request's recording is."""
        with self._file.transaction() as connection:
            connection.execute(
                f"update claims set owner = ?, file = ?, number = ?, recorded_at = ? {_WHERE}",
                (self._session, *where, self._cassette, key, n),
            )
            self._hold(connection, key, n)

    def release(self, key: str, n: int) -> None:
        """Give up a claim because the answer was not kept, or no longer exists."""
        with self._file.transaction() as connection:
            for table in ("claims", "holders"):
                connection.execute(f"delete from {table} {_WHERE}", (self._cassette, key, n))

    def end_session(self, passed: bool) -> FailedRecordings:
        """End this session; a failed test's recordings pass to their adopters."""
        with self._file.transaction() as connection:
            held = connection.execute(
                "select key, n, owner, file, number, recorded_at, kept from holders "
                "join claims using (cassette, key, n) where session = ? and cassette = ?",
                (self._session, self._cassette),
            ).fetchall()
            connection.execute("delete from holders where session = ?", (self._session,))
            kept: list[tuple[int, str]] = []
            dropped: list[tuple[int, str]] = []
            for key, n, owner, file, number, recorded_at, is_kept in held:
                place = (self._cassette, key, n)
                if passed:
                    connection.execute(f"update claims set kept = 1 {_WHERE}", place)
                    continue
                heir = connection.execute(f"select session from holders {_WHERE}", place).fetchone()
                if is_kept or heir:
                    kept.append((number, recorded_at))
                    if heir and owner == self._session:
                        connection.execute(
                            f"update claims set owner = ? {_WHERE}", (heir[0], *place)
                        )
                else:
                    if file == self._cassette:
                        dropped.append((number, recorded_at))
                    connection.execute(f"delete from claims {_WHERE}", place)
            connection.execute(
                "delete from claims where owner = ? and file is null", (self._session,)
            )
            connection.execute("delete from sessions where id = ?", (self._session,))
            self._sweep(connection)
        self._file.close()
        return FailedRecordings(kept, dropped)

    def _hold(self, connection: sqlite3.Connection, key: str, n: int) -> None:
        connection.execute(
            "insert into holders values (?, ?, ?, ?)", (self._cassette, key, n, self._session)
        )

    def _is_alive(self, connection: sqlite3.Connection, session: str) -> bool:
        row = connection.execute("select process from sessions where id = ?", (session,)).fetchone()
        return row is not None and _is_alive(row[0])

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Delete the sessions of dead processes, and all claims once no session is left.

        The recordings of a killed process stay in the cassette.
        """
        mine = (self._cassette,)
        query = "select id, process from sessions where cassette = ?"
        for session, process in connection.execute(query, mine).fetchall():
            if not _is_alive(process):
                connection.execute("delete from sessions where id = ?", (session,))
                connection.execute(
                    "update claims set kept = 1 where owner = ? and file is not null", (session,)
                )
                connection.execute(
                    "delete from claims where owner = ? and file is null", (session,)
                )
                connection.execute("delete from holders where session = ?", (session,))
        processes = connection.execute(
            "select distinct process from runs where cassette = ?", mine
        ).fetchall()
        for (process,) in processes:
            if not _is_alive(process):
                connection.execute("delete from runs where process = ?", (process,))
        if connection.execute(query, mine).fetchone() is None:
            for table in ("claims", "holders"):
                connection.execute(f"delete from {table} where cassette = ?", mine)


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"ember-claims-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@lru_cache(maxsize=1)
def _process_lock() -> str:
    """Return the path of a file that stays locked while this process lives."""
    path = _folder() / f"{os.getpid()}-{uuid4().hex[:8]}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.name == "posix":
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pid = os.getpid()

    def remove() -> None:
        os.close(handle)
        if os.getpid() == pid:  # not in a forked child
            path.unlink(missing_ok=True)

    atexit.register(remove)
    _delete_stale_locks(path)
    return str(path)


def _delete_stale_locks(mine: Path) -> None:
    """Delete the lock files of killed processes."""
    for path in _folder().glob("*.lock"):
        with suppress(OSError):
            # A new file may not be locked yet; opening and closing our own would release its lock.
            if path != mine and path.stat().st_mtime < time.time() - _STALE:
                _is_alive_at(path)


def _is_alive(lock: str) -> bool:
    """Return whether the process that locked this file is alive."""
    if lock == _process_lock():
        return True  # opening and closing our own file would release its lock
    return _is_alive_at(Path(lock))


def _is_alive_at(path: Path) -> bool:
    """Return whether the process that locked this file is alive; delete a dead one's file."""
    try:
        if os.name == "posix":
            with path.open("r+") as handle:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # on Windows, deleting an open file fails
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
