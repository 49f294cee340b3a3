"""One paid call for one question: who sends which request of a cassette that several record.

The workers of pytest-xdist, or several runs, record one shared cassette. Before a request is sent,
its key and position are claimed in a file of the user's; a session that asks the same meanwhile
waits for the answer and takes it over. A claim ends with the process that holds it, and what a
failed test has recorded goes to those who took it over.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
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

    from ember_testing.cassettes.file import Answer

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


class Recorded(NamedTuple):
    """The answer that somebody else has recorded.

    Args:
        file: The cassette, or the new one that will take its place.
        number: Of the call in it.
        recorded_at: ISO 8601.
    """

    file: str
    number: int
    recorded_at: str


class Left(NamedTuple):
    """What becomes of the recordings of a test that has failed.

    Args:
        kept: Those that others took over, by number and time.
        dropped: Those that this test took over and nobody else wants.
    """

    kept: Sequence[tuple[int, str]] = ()
    dropped: Sequence[tuple[int, str]] = ()


def adopt(
    file: CassetteFile, found: Recorded, cassette: Path, place: tuple[str, int]
) -> Answer | None:
    """Take over what somebody else has recorded.

    Args:
        file: Where this session records.
        found: Where the other one's recording was.
        cassette: Where it is now, if the other one's new file has taken the cassette's place.
        place: The request's key, and its position among identical ones.

    Returns:
        The recording; None if it is gone.
    """
    if found.file == str(file.path.resolve()):
        number = file.number_of(found.recorded_at, *place)
        return None if number is None else file.answer(number)
    for path in (Path(found.file), cassette):
        with suppress(CassetteError, FileNotFoundError), closing(_existing(path)) as other:
            number = other.number_of(found.recorded_at, *place)
            if number is not None:
                return file.answer(copy(file, other, number))
    return None


def _existing(path: Path) -> CassetteFile:
    path.stat()
    return CassetteFile(path)


class Claims:
    """The claims on one cassette, as one session sees them.

    Args:
        cassette: The file.
        run: The name of the run that the session is part of.

    Raises:
        CassetteError: The file of claims cannot be used.
    """

    def __init__(self, cassette: Path, run: str) -> None:
        self._cassette = str(cassette.resolve())
        self._me = uuid4().hex
        try:
            self._file = SideFile(_folder() / "claims.sqlite", _SCHEMA)
            with self._file.transaction() as connection:
                self._sweep(connection)
                connection.execute(
                    "insert into sessions values (?, ?, ?)",
                    (self._me, self._cassette, str(_process_lock()[0])),
                )
                connection.execute(
                    "insert or ignore into runs values (?, ?, ?)",
                    (self._cassette, run, str(_process_lock()[0])),
                )
        except (OSError, sqlite3.Error) as error:
            raise CassetteError(f"cannot claim calls in {_folder()}: {error}") from error

    def others_go_on(self, runs: Collection[str]) -> bool:
        """Whether another process still records this cassette, or has and goes on, in these runs.

        Args:
            runs: Names of runs.
        """
        query = "select run, process from runs where cassette = ?"
        found = self._file.connection.execute(query, (self._cassette,)).fetchall()
        mine = str(_process_lock()[0])
        return any(run in runs and at != mine and _is_alive(at) for run, at in found)

    def claim(self, key: str, n: int) -> Recorded | bool:
        """Claim a request.

        Args:
            key: Of the request.
            n: Its position among identical ones.

        Returns:
            What was recorded for it; True if it is this session's to send, False if another one is
            sending it.
        """
        with self._file.transaction() as connection:
            row = connection.execute(
                "select owner, file, number, recorded_at from claims "
                "where cassette = ? and key = ? and n = ?",
                (self._cassette, key, n),
            ).fetchone()
            if row is not None and row[1] is not None:
                self._hold(connection, key, n)
                return Recorded(*row[1:])
            if row is not None and row[0] != self._me and self._is_alive(connection, row[0]):
                return False
            connection.execute(
                "insert or replace into claims (cassette, key, n, owner) values (?, ?, ?, ?)",
                (self._cassette, key, n, self._me),
            )
            return True

    def record(self, key: str, n: int, where: Recorded) -> None:
        """Let the others know that a request has its recording here."""
        with self._file.transaction() as connection:
            connection.execute(
                "update claims set owner = ?, file = ?, number = ?, recorded_at = ? "
                "where cassette = ? and key = ? and n = ?",
                (self._me, *where, self._cassette, key, n),
            )
            self._hold(connection, key, n)

    def release(self, key: str, n: int) -> None:
        """Leave a request to the next one that asks: what came for it is not kept, or is gone."""
        with self._file.transaction() as connection:
            for table in ("claims", "holders"):
                connection.execute(
                    f"delete from {table} where cassette = ? and key = ? and n = ?",
                    (self._cassette, key, n),
                )

    def leave(self, passed: bool) -> Left:
        """End this session's part.

        Args:
            passed: Whether the test has passed; what a failed one has recorded passes on.
        """
        with self._file.transaction() as connection:
            held = connection.execute(
                "select key, n, owner, file, number, recorded_at, kept from holders "
                "join claims using (cassette, key, n) where session = ? and cassette = ?",
                (self._me, self._cassette),
            ).fetchall()
            connection.execute("delete from holders where session = ?", (self._me,))
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
                    if heir and owner == self._me:
                        connection.execute(
                            f"update claims set owner = ? {_WHERE}", (heir[0], *place)
                        )
                else:
                    if file == self._cassette:
                        dropped.append((number, recorded_at))
                    connection.execute(f"delete from claims {_WHERE}", place)
            connection.execute("delete from claims where owner = ? and file is null", (self._me,))
            connection.execute("delete from sessions where id = ?", (self._me,))
            self._sweep(connection)
        self._file.close()
        return Left(kept, dropped)

    def _hold(self, connection: sqlite3.Connection, key: str, n: int) -> None:
        connection.execute(
            "insert into holders values (?, ?, ?, ?)", (self._cassette, key, n, self._me)
        )

    def _is_alive(self, connection: sqlite3.Connection, session: str) -> bool:
        row = connection.execute("select process from sessions where id = ?", (session,)).fetchone()
        return row is not None and _is_alive(row[0])

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Forget the sessions of dead processes, and all claims once nobody records any more.

        What a killed process has recorded is in the cassette and stays there.
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


_STALE = 60.0  # seconds after which a lock file that nobody holds was left by a dead process
_WHERE = "where cassette = ? and key = ? and n = ?"


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"ember-claims-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@lru_cache(maxsize=1)
def _process_lock() -> tuple[Path, int]:
    """A file, and its descriptor, that is locked for as long as this process lives."""
    path = _folder() / f"{os.getpid()}-{uuid4().hex[:8]}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.name == "posix":
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pid = os.getpid()

    def remove() -> None:
        os.close(handle)
        if os.getpid() == pid:  # and no process that this one has forked
            path.unlink(missing_ok=True)

    atexit.register(remove)
    _delete_stale_locks(path)
    return path, handle


def _delete_stale_locks(mine: Path) -> None:
    """Delete what processes have left that were killed."""
    for path in _folder().glob("*.lock"):
        with suppress(OSError):
            # A new one may not be locked yet; to open and close this process's would release it.
            if path != mine and path.stat().st_mtime < time.time() - _STALE:
                _is_alive_at(path)


def _is_alive(lock: str) -> bool:
    """Whether the process that locked this file still lives."""
    if lock == str(_process_lock()[0]):
        return True  # to open and close it would release the lock
    return _is_alive_at(Path(lock))


def _is_alive_at(path: Path) -> bool:
    """Whether the process that locked this file still lives; the file of a dead one goes."""
    try:
        if os.name == "posix":
            with path.open("r+") as handle:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # elsewhere a file that is open cannot be deleted
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
