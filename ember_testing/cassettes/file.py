"""One cassette on disk: keep, take back, exchange.

With `cassette_rows.py`, `journal.py` and `schema.py` the only ones to know SQLite.

While recording, each finished call is one committed transaction, so a killed process loses only the
call in flight. `synchronous = off` leaves the order of writes to the operating system, which a
killed process does not disturb; the file is flushed once, when it is closed. The rollback journal
(and no write-ahead log) leaves one file at rest, and lets the file be exchanged under the lock.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ember_testing.cassettes import journal, schema
from ember_testing.cassettes.cassette_rows import LOCK, CassetteRows
from ember_testing.exceptions import CassetteError
from ember_testing.wires.readings import COLUMNS, Read

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

_EXCHANGES = 100  # of a file by other processes while it is being opened, before that is an error
_BUSY = 60.0  # seconds to wait for another process's commit, which takes a millisecond

UNREADABLE = "unreadable"
"""Stands for the `id` of a cassette that is empty or damaged."""


class Found(NamedTuple):
    """The cassette that a recording anew will replace, as it was when it began.

    Args:
        id: From its table `cassette`, or `UNREADABLE`.
        horizon: The number of its last call.
    """

    id: str
    horizon: int


class CassetteFile(CassetteRows):
    """An open cassette.

    Args:
        path: The file.
        about: For the table `cassette`, should the file have to be made; None to only read.

    Raises:
        CassetteError: The file is not a cassette, damaged, newer, or cannot be opened.
    """

    def __init__(self, path: Path, about: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._about = about
        self._created = False
        self._wrote = self._closed = False
        self._added: list[tuple[int, str]] = []
        self._identity: tuple[int, int] | None = None
        self._snapshot: bytes | None = None
        with LOCK:
            if about is not None and not path.exists():
                self._created = schema.create(path, about)
            self._connection = self._open()
            self.horizon: int = self._read("select coalesce(max(id), 0) from calls", ())[0][0]
            if about is not None and not self._created:
                self._snapshot = journal.stable_bytes(path)

    # Writing ---------------------------------------------------------------------------------

    def add(self, call: Mapping[str, Any], chunks: Sequence[tuple[float, bytes]]) -> int:
        """Commit one call with its pieces.

        Args:
            call: The columns of `schema.CALL_COLUMNS`. When another process took its `n` for the
                same key meanwhile, the next free one is used.
            chunks: Offset and bytes.

        Returns:
            The number of the call.

        Raises:
            CassetteError: A full disk, a damaged file, a lock that is never released.
        """
        with self._transaction("immediate") as connection:
            values = [call[name] for name in schema.CALL_COLUMNS]
            try:
                row = connection.execute(_INSERT, values)
            except sqlite3.IntegrityError:
                (last,) = connection.execute(
                    "select max(n) from calls where key = ?", (call["key"],)
                ).fetchone()
                values[schema.CALL_COLUMNS.index("n")] = last + 1
                row = connection.execute(_INSERT, values)
            call_id = row.lastrowid
            assert call_id is not None  # sqlite3 sets it after every insert
            if self.version < schema.VERSION:
                schema.upgrade(connection)
                self.version = schema.VERSION
            connection.executemany(
                "insert into chunks values (?, ?, ?, ?)",
                [(call_id, i, offset, data) for i, (offset, data) in enumerate(chunks)],
            )
        self._wrote = True
        self._added.append((call_id, call["recorded_at"]))
        return call_id

    def describe(self, found: Sequence[tuple[int, Read]]) -> None:
        """Write down what calls that were added before say, and what they were charged at.

        Args:
            found: The number of each, and what was read.

        Raises:
            CassetteError: The file cannot be written.
        """
        with self._transaction("immediate") as connection:
            connection.executemany(
                _DESCRIBE, [(*read.columns.values(), call_id) for call_id, read in found]
            )
            known = {row[1:5]: row[5] for row in self.prices()}
            for call_id, read in found:
                for charge, rates in read.charges:
                    if known.get(charge) != rates:
                        known[charge] = rates
                        connection.execute(_CHARGE, (call_id, *charge, rates))

    def remove(self, numbers: Sequence[int]) -> None:
        """Delete calls, and give their space back.

        Raises:
            CassetteError: The file cannot be written.
        """
        with self._transaction("exclusive") as connection:
            for table, column in (("chunks", "call_id"), ("calls", "id")):
                connection.executemany(
                    f"delete from {table} where {column} = ?", [(number,) for number in numbers]
                )
        self._wrote = True
        with LOCK:
            self._connection.execute("vacuum")

    def take_back(self) -> None:
        """Undo what was added: the file is as it was, byte for byte unless others wrote as well."""
        if not self._added and not self._created:
            return
        with self._transaction("exclusive") as connection:
            newer = connection.execute(
                "select count(*) from calls where id > ?", (self.horizon,)
            ).fetchone()[0]
            alone = newer == len(self._added)
            if alone and self._created:
                self.path.unlink()
                return
            if alone and self._snapshot is not None and self._put_back(self._snapshot):
                return
            for call_id, recorded_at in self._added:
                # With the time: should the file have been exchanged, the number is another call's.
                row = connection.execute(
                    "delete from calls where id = ? and recorded_at = ?", (call_id, recorded_at)
                )
                if row.rowcount:
                    connection.execute("delete from chunks where call_id = ?", (call_id,))
                    connection.execute("delete from prices where since = ?", (call_id,))

    def _put_back(self, content: bytes) -> bool:
        part = self.path.with_name(f"{self.path.name}.{uuid4().hex[:8]}.part")
        try:
            part.write_bytes(content)
            part.replace(self.path)
        except OSError:  # a full disk, or a system that keeps open files: delete the rows instead
            part.unlink(missing_ok=True)
            return False
        return True

    def replace(self, path: Path, since: Found | None) -> None:
        """Become the cassette at `path`, in one step, and close this one.

        Args:
            path: The cassette to exchange.
            since: The file at `path` as it was when this recording began. Should it be another one
                by now, because another process has recorded anew meanwhile, the calls join that;
                and what another process has added to it since is kept.

        Raises:
            CassetteError: The file cannot be exchanged.
        """
        try:
            if not path.exists():
                self.close()
                if schema.place(self.path, path):
                    return
            if path.stat().st_size == 0 or (since is not None and since.id == UNREADABLE):
                self.close()
                self.path.replace(path)
                return
            with closing(CassetteFile(path, self._about)) as present:
                with present._transaction("exclusive"):
                    if since is not None and present.about().get("id") == since.id:
                        self._join(present, since.horizon)
                        self.close()
                        self.path.replace(path)
                        return
                present._join(self, 0)
        except OSError as error:
            raise CassetteError(f"cannot put the new recording at {path}: {error}") from error
        finally:
            self.close()
            self.path.unlink(missing_ok=True)

    def _join(self, other: CassetteFile, after: int) -> None:
        """Take over the calls of another cassette behind a number, and their prices."""
        prices = other.prices()
        for call_id in other.numbers():
            if call_id > after:
                row = other.rows([call_id])[0]
                number = self.add(row, other.chunks(call_id))
                in_force = {line[1:5]: line[5] for line in prices if line[0] <= call_id}
                charges = [
                    (charge, rates)
                    for charge, rates in in_force.items()
                    if row["model"] in charge[1:3]
                ]
                self.describe([(number, Read({name: row[name] for name in COLUMNS}, charges))])

    def close(self) -> None:
        """Close the file; what was written is on the disk afterwards."""
        with LOCK:
            if self._closed:
                return
            self._closed = True
            if self._about is not None:
                journal.delete_journal(self._connection)
            self._connection.close()
            if self._wrote and self.path.exists():
                handle = os.open(self.path, os.O_RDWR)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            self._wrote = False

    # Underneath ------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """Open the file that has the name, again should it be exchanged at that moment."""
        for attempt in range(_EXCHANGES):
            try:
                # Before it is opened: the next transaction then notices an exchange in between.
                status = self.path.stat()
                self._identity = (status.st_dev, status.st_ino)
                return self._open_once()
            except (CassetteError, FileNotFoundError) as error:
                if attempt + 1 == _EXCHANGES or self._is_current():
                    if isinstance(error, CassetteError):
                        raise
                    raise CassetteError(f"cannot open the cassette {self.path}: {error}") from error
                if self._about is not None and not self.path.exists():
                    schema.create(self.path, self._about)
        raise AssertionError("the last attempt returns or raises")

    def _is_current(self) -> bool:
        """Whether the file that was opened still has the name."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return self._about is None
        return (status.st_dev, status.st_ino) == self._identity

    def _open_once(self) -> sqlite3.Connection:
        writing = self._about is not None
        if not writing and self.path.with_name(self.path.name + "-journal").exists():
            journal.recover(self.path)
        mode = "rw" if writing else "ro"
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY,
            )
        except sqlite3.Error as error:
            raise CassetteError(f"cannot open the cassette {self.path}: {error}") from error
        try:
            self.version = schema.check(connection, self.path)
            if writing:
                connection.execute("pragma synchronous = off")
                connection.execute("pragma secure_delete = on")
                connection.execute("pragma journal_mode = truncate")  # quicker; deleted by `close`
                journal.probe(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self, kind: str) -> Generator[sqlite3.Connection]:
        with LOCK:
            try:
                self._begin(kind)
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("rollback")
                    raise
                self._connection.execute("commit")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise CassetteError(f"cannot write the cassette {self.path}: {error}") from error

    def _begin(self, kind: str) -> None:
        """Lock the file that has the name now: another process may have exchanged it."""
        while True:
            self._connection.execute(f"begin {kind}")
            if self._is_current():
                return
            self._connection.execute("rollback")
            self._connection.close()
            if self._about is not None and not self.path.exists():
                schema.create(self.path, self._about)
            self._connection = self._open()
            self._snapshot = None
            self._created = False


def found_at(path: Path) -> tuple[Found | None, str]:
    """What a recording anew will replace, None where there is nothing, and the run that made it.

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
        return Found(about.get("id", ""), present.horizon), about.get("run", "")


_DESCRIBE = f"update calls set {', '.join(f'{name} = ?' for name in COLUMNS)} where id = ?"
_CHARGE = f"insert into prices values ({', '.join('?' * len(schema.PRICES))})"
_INSERT = (
    f"insert into calls ({', '.join(schema.CALL_COLUMNS)}) "
    f"values ({', '.join('?' * len(schema.CALL_COLUMNS))})"
)
