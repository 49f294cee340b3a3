"""Read a cassette file and add calls to it.

With `schema.py`, `rows.py` and `swap.py` the only code that knows a cassette's tables.

While recording, each finished call is one committed transaction, so a killed process loses only the
call in flight. `synchronous = off` leaves the order of writes to the operating system, which a
killed process does not disturb; the file is flushed once, when it is closed. A rollback journal
instead of a write-ahead log leaves a single file, which can be replaced under the lock.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes import schema
from ember_testing.cassettes.rows import (
    COLUMNS,
    Answer,
    Pieces,
    answer_of,
    by_key,
    check_price,
    checked,
    digest,
    first_after,
    layout_columns,
    pieces_of,
    text_columns,
    values_of,
)
from ember_testing.exceptions import CassetteError
from ember_testing.wires.parsing import COLUMNS as READ_COLUMNS
from ember_testing.wires.parsing import ParsedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


_ATTEMPTS = 100  # attempts to open a file that other processes keep replacing
_LONGEST_SALT = 64  # bytes
_BUSY = 60.0  # seconds to wait for another process's commit, which takes a millisecond
_LARGEST_LOADED = 2**20  # bytes of a file whose recordings are kept in memory
_LARGEST_SNAPSHOT = 32 * 2**20  # bytes kept in memory to restore a file exactly

# One lock per process: SQLite's POSIX locks belong to the process and are released when any handle
# on the file is closed, so no thread may read the raw bytes while another is in a transaction.
LOCK = threading.RLock()

_READ = (
    f"select id, digest, {', '.join(COLUMNS)}, {schema.TEXT} as found_text from calls where id ="
)
_ALL = f"select id, digest, {', '.join(COLUMNS)} from calls"
_PLAIN = f"{_ALL} where id ="
_IS_SMALL = "(select page_count * page_size <= ? from pragma_page_count, pragma_page_size)"
_METADATA = "select name, value from cassette"
# Runs for every test that replays, hence a single query.
_FIRST = f"select '', (select coalesce(max(id), 0) from calls) union all {_METADATA}"
_FIND = "(select id from calls where key = ? and n > ? and id <= ? order by n limit 1)"
_INSERT = f"insert into calls (digest, {', '.join(COLUMNS)}) values (?{', ?' * len(COLUMNS)})"
_DESCRIBED = (*READ_COLUMNS, "text_at")
_DESCRIBE = f"update calls set digest = ?, {' = ?, '.join(_DESCRIBED)} = ? where id = ?"
_PRICES = """select cassette.value, since, provider, model, requested_model, tier, rates, digest
from cassette left join prices where name = 'prices' order by since, prices.rowid"""
_CHARGE = "insert into prices values (?, ?, ?, ?, ?, ?, ?)"
_FIND_TEXT = f"select {schema.TEXT} from (select ? as response_body, ? as text_at, null as text)"


class CassetteFile:
    """An open cassette.

    Args:
        path: The file.
        new_metadata: Rows of the table `cassette` if the file must be created; None to only read.

    Raises:
        CassetteError: The file is no cassette, too new, or cannot be opened; and in each method: a
            row that is read is damaged or missing, or the file cannot be written, because the disk
            is full or a lock is never released.
    """

    def __init__(self, path: Path, new_metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.new_metadata = new_metadata
        self.created = False  # by this object
        self.added: list[tuple[int, str]] = []  # id and time of each call that this object added
        self.snapshot: bytes | None = None  # the file before the first addition, if small enough
        # Called with new ids of the added calls by their old ids when another file replaced this.
        self.on_replaced: Callable[[Mapping[int, int]], None] = lambda _: None
        self._wrote = self._closed = self._verified = False
        self._identity: tuple[int, int] | None = None  # device and inode
        self.loaded: dict[str, list[tuple[Any, ...]]] | None = None  # rows by key
        self._is_loadable = True  # until `load` has tried
        with LOCK:
            if new_metadata is not None and not path.exists():
                self.created = schema.create(path, new_metadata)
            self._connection = self._open()
            try:
                (_, horizon), *rows = self._read(_FIRST, ())
                self.horizon: int = horizon  # the id of the last call at present
                metadata = schema.metadata_of(rows, path)
                self.salt = metadata.get("salt", "").encode()[:_LONGEST_SALT]
                self.match_on = self._match_on(metadata.get("match_on", "[]"))  # if imported
            except CassetteError:
                self.close()
                raise
            if new_metadata is not None and not self.created:
                self.snapshot = _stable_bytes(path)

    # Reading ---------------------------------------------------------------------------------

    def find(self, key: str, after: int) -> Answer | None:
        """Return the first recording of this request after the `after`-th; None past the end.

        Skips recordings added since this file was opened: a session replays what it found.
        """
        if self.loaded is not None:
            row = first_after(self.loaded.get(key, ()), after)
        else:
            rows = self._read(f"{_PLAIN} {_FIND}", (key, after, self.horizon))
            row = rows[0] if rows else None
        return None if row is None else answer_of(self._checked(row))

    def load(self) -> None:
        """Load the recordings into memory if they are few, for lookups that must not block on I/O.

        Rows are checked when they are used.
        """
        if self._is_loadable:
            self._is_loadable = False
            query = f"{_ALL} where id <= ? and {_IS_SMALL} order by n"
            with suppress(CassetteError):  # reported when the damaged row is used
                self.loaded = by_key(self._read(query, (self.horizon, _LARGEST_LOADED)))

    def answer(self, call_id: int) -> Answer:
        """Return the recording with this id."""
        return answer_of(self._checked(self._values(call_id)))

    def recorded(self, key: str) -> int:
        """Return the number of recordings of this request."""
        query = "select count(*) from calls where key = ? and id <= ?"
        return int(self._read(query, (key, self.horizon))[0][0])

    def size(self) -> int:
        """Return the number of calls."""
        return int(self._read("select count(*) from calls", ())[0][0])

    def has_other_rules(self, rules: str) -> bool:
        """Return whether any call's key was made with different rules."""
        query = "select 1 from calls where rules <> ? and id <= ? limit 1"
        return bool(self._read(query, (rules, self.horizon)))

    def chunks(self, call_id: int) -> Pieces:
        """Return the pieces of a response as they were received."""
        return pieces_of(self._checked(self._values(call_id)))

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield all columns of each call that was there when the file was opened."""
        for number in self.numbers():
            if number <= self.horizon:
                yield self.row(number)

    def rows(self, call_ids: Iterable[int]) -> list[dict[str, Any]]:
        """Return all columns of those of the given calls that are in the file, including `id`."""
        found: list[dict[str, Any]] = []
        for call_id in call_ids:
            for *columns, text in self._read(f"{_READ} ?", (call_id,)):
                row = self._checked(columns)
                row["text"] = text if isinstance(text, str) else None
                found.append(row)
        return found

    def row(self, call_id: int) -> dict[str, Any]:
        """Return all columns of a call, including `id`."""
        if rows := self.rows([call_id]):
            return rows[0]
        raise schema.damaged(self.path, f"call {call_id} is not found")

    def unchecked(self, call_id: int) -> tuple[dict[str, Any], object]:
        """Return a call's columns without checking them, and the row's digest."""
        _, stored, *columns = self._values(call_id)
        return {**dict(zip(COLUMNS, columns, strict=True)), "id": call_id}, stored

    def problems(self) -> list[str]:
        """Return the problems that SQLite's integrity check finds."""
        found = [sentence for (sentence,) in self._read("pragma integrity_check", ())]
        return [] if found == ["ok"] else found

    def damaged_views(self) -> list[str]:
        """Return the views that are missing or changed: a changed one may never terminate."""
        query = "select name, sql from sqlite_master where type = 'view'"
        there: dict[str, str] = dict(self._read(query, ()))
        return [name for name, statement in schema.VIEWS.items() if there.get(name) != statement]

    def _values(self, call_id: int) -> Sequence[Any]:
        """Return a call's id, digest and columns as stored."""
        rows: list[Sequence[Any]] = self._read(f"{_PLAIN} ?", (call_id,))
        if rows:
            return rows[0]
        raise schema.damaged(self.path, f"call {call_id} is not found")

    def _checked(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return a row's columns by name, including `id`; `text` is None if it is in the body."""
        call_id, stored, *columns = values
        try:
            row = checked(columns, stored)
        except ValueError as error:
            raise schema.damaged(self.path, f"call {call_id}: {error}") from None
        row["id"] = call_id
        return row

    def find_by_time(self, recorded_at: str, key: str | None = None, n: int = 1) -> int | None:
        """Return the id of the call that was recorded at this time.

        Args:
            recorded_at: The time. Calls of several processes may share it if tests freeze the
                clock; within a process it is unique.
            key: The key of its request, if known.
            n: Its position among identical requests, to decide between several.
        """
        rows = self._read(
            "select id from calls where recorded_at = ?1 and key = coalesce(?2, key) "
            "order by n = ?3 desc, id",
            (recorded_at, key, n),
        )
        return rows[0][0] if rows else None

    def times(self) -> list[tuple[int, str, str]]:
        """Return each call's id, recording time and request key."""
        return self._read("select id, recorded_at, key from calls order by id", ())

    def numbers(self) -> list[int]:
        """Return the ids of all calls, in the order in which they were recorded."""
        return [call_id for (call_id,) in self._read("select id from calls order by id", ())]

    def prices(self) -> list[tuple[Any, ...]]:
        """Return the rows of the table `prices` without digests, ordered by their first call."""
        rows = self._read(_PRICES, ())
        try:
            prices = [row for _, *row in rows if row[0] is not None]
            for *values, stored in prices:
                check_price(values, stored)
            if [row[0] for row in rows[:1]] != [schema.prices_digest(row[-1] for row in prices)]:
                raise ValueError("the table prices is not as it was written")
        except ValueError as error:
            raise schema.damaged(self.path, error) from None
        return [tuple(row[:-1]) for row in prices]

    def verify(self, key: str) -> None:
        """Raise CassetteError if the recording of this request is missing because of damage."""
        if self.created:
            return
        for (number,) in self._read("select id from calls where key = ?", (key,)):
            self.row(number)
        if not self._verified:
            self._verified = True
            for (sentence,) in self._read("pragma integrity_check(1)", ()):
                if sentence != "ok":
                    raise schema.damaged(self.path, sentence)

    def metadata(self) -> dict[str, str]:
        """Return the table `cassette`: which version made the file, when, in which run."""
        return schema.metadata_of(self._read(_METADATA, ()), self.path)

    def _match_on(self, text: str) -> tuple[str, ...]:
        try:
            return tuple(map(str, json.loads(text)))
        except (TypeError, ValueError, RecursionError) as error:
            raise schema.damaged(self.path, error) from None

    # Writing ---------------------------------------------------------------------------------

    def add(self, call: Mapping[str, Any], pieces: Sequence[tuple[float, bytes]]) -> int:
        """Commit one call with the pieces of its response.

        Args:
            call: All columns but `layout`, `response_raw` and `text_at`. If another process has
                used its `n` for the same key meanwhile, the next free one is used.
            pieces: Seconds after the request was sent, and bytes.

        Returns:
            The id of the call.
        """
        call = {"text_at": None, **call, **layout_columns(call, pieces)}
        with self.transaction("immediate") as connection:
            try:
                row = connection.execute(_INSERT, values_of(call))
            except sqlite3.IntegrityError:
                (last,) = connection.execute(
                    "select max(n) from calls where key = ?", (call["key"],)
                ).fetchone()
                row = connection.execute(_INSERT, values_of({**call, "n": last + 1}))
            call_id = row.lastrowid
            assert call_id is not None  # sqlite3 sets it after every insert
        self._wrote = True
        self.added.append((call_id, call["recorded_at"]))
        return call_id

    def describe(self, found: Sequence[tuple[Mapping[str, Any], ParsedRow]]) -> None:
        """Store what was read from calls added earlier, and the prices they were charged.

        Args:
            found: The row of each call, as returned by `rows`, and what was read from it.
        """
        connection = self._connection
        with self.transaction("immediate"):
            was_replaced = self._connection is not connection
            rates: dict[Any, list[tuple[int, str]]] = {}
            for since, *charge, text in self.prices():
                rates.setdefault(tuple(charge), []).append((since, text))
            for row, read in found:
                if was_replaced:  # by another file, whose ids differ
                    number = self.find_by_time(row["recorded_at"], row["key"], row["n"])
                    if number is None:
                        continue
                    row = self._checked(self._values(number))
                self._describe(row, read, rates)

    def _describe(
        self, row: Mapping[str, Any], read: ParsedRow, known: dict[Any, list[tuple[int, str]]]
    ) -> None:
        row = {**row, **read.columns}
        row |= text_columns(row["text"], partial(self._text, row["response_body"]))
        stored, *values = values_of(row)
        described = [values[COLUMNS.index(name)] for name in _DESCRIBED]
        self._connection.execute(_DESCRIBE, (stored, *described, row["id"]))
        for charge, rates in read.charges:
            # Another process may have described later calls already.
            earlier = [text for since, text in known.get(charge, ()) if since <= row["id"]]
            if earlier[-1:] != [rates]:
                known.setdefault(charge, []).append((row["id"], rates))
                known[charge].sort(key=lambda price: price[0])
                line = (row["id"], *charge, rates)
                self._connection.execute(_CHARGE, (*line, digest(line)))
                schema.seal_prices(self._connection)

    def _text(self, body: str | bytes, path: str) -> object:
        """Return what the views find at a path of a response's body."""
        if isinstance(body, bytes):
            return None
        try:
            return self._connection.execute(_FIND_TEXT, (body, path)).fetchone()[0]
        except sqlite3.Error:  # a lone surrogate, say: then the text is stored separately
            return None

    def remove(self, numbers: Sequence[int]) -> None:
        """Delete calls and free their space."""
        with self.transaction("exclusive") as connection:
            each = [(number,) for number in numbers]
            connection.executemany("delete from calls where id = ?", each)
        self._wrote = True
        with LOCK:
            self._connection.execute("vacuum")

    def __enter__(self) -> CassetteFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and flush what was written to the disk."""
        with LOCK:
            if self._closed:
                return
            self._closed = True
            if self.new_metadata is not None:
                _delete_journal(self._connection)
            self._connection.close()
            if self._wrote and self.path.exists():
                handle = os.open(self.path, os.O_RDWR)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            self._wrote = False

    def reopen(self) -> None:
        """Open a new connection in a process that was forked while this file was open."""
        with LOCK:
            self._inherited = self._connection  # the parent's: neither used nor closed here
            self._connection = self._open()
            self.created, self.snapshot, self.added = False, None, []

    # Underneath ------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """Open the file at `path`; try again if it is replaced meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                # Before opening, so that the next transaction notices a replacement in between.
                status = self.path.stat()
                self._identity = (status.st_dev, status.st_ino)
                return self._open_once(schema.check_bytes(self.path, status))
            except (CassetteError, OSError) as error:
                if attempt + 1 == _ATTEMPTS or self._is_current():
                    if isinstance(error, CassetteError):
                        raise
                    raise CassetteError(f"cannot open the cassette {self.path}: {error}") from error
                if self.new_metadata is not None and not self.path.exists():
                    schema.create(self.path, self.new_metadata)
        raise AssertionError("the last attempt returns or raises")

    def _is_current(self) -> bool:
        """Return whether the file at `path` is still the one that was opened."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return self.new_metadata is None
        return (status.st_dev, status.st_ino) == self._identity

    def _open_once(self, has_journal: bool) -> sqlite3.Connection:
        writing = self.new_metadata is not None
        if has_journal and not writing:
            _recover(self.path)
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
            schema.check(connection, self.path)
            if writing:
                connection.execute("pragma synchronous = off")
                connection.execute("pragma secure_delete = on")
                connection.execute("pragma journal_mode = truncate")  # faster; `close` deletes it
                _probe(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self, kind: str) -> Generator[sqlite3.Connection]:
        """Run a transaction (`immediate` or `exclusive`) on the file now at `path`."""
        with LOCK:
            try:
                self._begin(kind)
                try:
                    yield self._connection
                except BaseException:
                    self._roll_back()
                    raise
                self._connection.execute("commit")
            except sqlite3.Error as error:
                self._roll_back()
                raise CassetteError(f"cannot write the cassette {self.path}: {error}") from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # a full disk has ended it already
            self._connection.execute("rollback")

    def _begin(self, kind: str) -> None:
        """Lock the file now at `path`: another process may have replaced it."""
        while True:
            self._connection.execute(f"begin {kind}")
            if self._is_current():
                return
            self._connection.execute("rollback")
            self._connection.close()
            if self.new_metadata is not None and not self.path.exists():
                schema.create(self.path, self.new_metadata)
            self._connection = self._open()
            self.snapshot = None
            self.created = False
            self._renumber()

    def _renumber(self) -> None:
        """Find the calls that this object added in the file that replaced the old one."""
        found = {old: (self.find_by_time(at), at) for old, at in self.added}
        self.added = [(number, at) for number, at in found.values() if number is not None]
        self.horizon = self._read("select coalesce(max(id), 0) from calls", ())[0][0]
        self.on_replaced({old: number for old, (number, _) in found.items() if number is not None})

    def _read(self, query: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            with LOCK:
                return self._connection.execute(query, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise schema.damaged(self.path, error) from error


def _probe(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is writable before a call is paid for."""
    try:
        connection.execute("begin immediate")
        connection.execute(f"pragma user_version = {schema.VERSION}")
        connection.execute("rollback")
    except sqlite3.Error as error:
        raise CassetteError(
            f"cannot write the cassette {path}: {error}; make the file and its folder writable"
        ) from error


def _recover(path: Path) -> None:
    """Roll back a killed recording's partial write; a read-only connection cannot."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.execute("select 1 from sqlite_master").fetchone()
            connection.execute("pragma journal_mode = truncate")  # so that the next line deletes it
            _delete_journal(connection)
    except sqlite3.Error as error:
        raise schema.damaged(path, error) from error


def _delete_journal(connection: sqlite3.Connection) -> None:
    """Delete the journal, unless another process is recording, which then deletes it."""
    with suppress(sqlite3.Error):  # closed already, or locked by another process
        connection.execute("pragma busy_timeout = 0")
        connection.execute("pragma journal_mode = delete")


def _stable_bytes(path: Path) -> bytes | None:
    """Return the file's bytes, or None if it is too large or was written meanwhile."""
    before = path.stat()
    if before.st_size > _LARGEST_SNAPSHOT or _in_commit(path):
        return None
    content = path.read_bytes()
    after = path.stat()
    unchanged = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return content if unchanged and not _in_commit(path) else None


def _in_commit(path: Path) -> bool:
    """Return whether a process is writing: otherwise the journal is empty or absent."""
    journal = path.with_name(path.name + "-journal")
    try:
        return journal.stat().st_size > 0
    except FileNotFoundError:
        return False
