"""What a test and the processes that it forks share: positions of requests, and what each did.

One small SQLite file of its own for each test that forks; the cassette stays read-only. Each
process has its own connection: SQLite's must not be used on both sides of a fork.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

_SCHEMA = """
create table positions (key text primary key, n integer not null) without rowid;
create table events (id integer primary key, kind text not null, value text not null);
create table ended (at text);
"""
_OVER = (
    "the test that forked this process is over, and its cassette is closed; end the process before "
    "the test ends"
)
_BUSY = 60.0  # seconds to wait for another process's look-up, which takes a millisecond


class SharedCounts:
    """Positions by key, which several processes count together.

    Args:
        positions: How far the first process has come before it forks.

    Raises:
        CassetteError: The file cannot be made.
    """

    _connection: sqlite3.Connection

    def __init__(self, positions: Mapping[str, int]) -> None:
        self.owner = os.getpid()
        self._pid = 0
        self._inherited: list[sqlite3.Connection] = []  # kept open: closing would release locks
        self._seen = 0
        try:
            handle, name = tempfile.mkstemp(prefix="ember-", suffix=".counts")
            os.close(handle)
            self._path = Path(name)
            connection = self._connected()
            connection.executescript(_SCHEMA)
            connection.executemany("insert into positions values (?, ?)", [*positions.items()])
        except (OSError, sqlite3.Error) as error:
            raise CassetteError(
                f"cannot count the calls of forked processes in {tempfile.gettempdir()}: {error}"
            ) from error

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked by the test's own, or by one of those."""
        return os.getpid() != self.owner

    @contextmanager
    def locked(self) -> Generator[None]:
        """Let no other process count meanwhile.

        Raises:
            CassetteError: The test is over, or the file cannot be used.
        """
        try:
            connection = self._connected()
            connection.execute("begin immediate")
            try:
                if connection.execute("select 1 from ended").fetchone():
                    raise CassetteError(_OVER)
                yield
            finally:
                connection.execute("commit")
        except sqlite3.Error as error:
            if not self._path.exists():
                raise CassetteError(_OVER) from None
            raise CassetteError(f"cannot count the calls of forked processes: {error}") from error

    def tell(self, kind: str, value: Any) -> None:
        """Let the first process know what this one did."""
        with suppress(sqlite3.Error):
            self._connected().execute(
                "insert into events (kind, value) values (?, ?)", (kind, json.dumps(value))
            )

    def news(self) -> list[tuple[str, Any]]:
        """What the other processes did since the last time."""
        with suppress(sqlite3.Error):
            rows = self._connected().execute(
                "select id, kind, value from events where id > ? order by id", (self._seen,)
            )
            found = rows.fetchall()
            self._seen = found[-1][0] if found else self._seen
            return [(kind, json.loads(value)) for _, kind, value in found]
        return []

    def end(self) -> None:
        """Refuse what a process that outlives the test asks from now on, and delete the file."""
        with suppress(sqlite3.Error):
            self._connected().execute("insert into ended values (1)")
            self._connected().close()
        for suffix in ("", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def __getitem__(self, key: str) -> int:
        row = self._connected().execute("select n from positions where key = ?", (key,)).fetchone()
        return row[0] if row else 0

    def __setitem__(self, key: str, n: int) -> None:
        self._connected().execute("insert or replace into positions values (?, ?)", (key, n))

    def _connected(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            if self._pid:
                self._inherited.append(self._connection)
            self._connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw",  # not to be made again by who outlives the test
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY,
            )
            self._connection.execute("pragma synchronous = off")
            self._connection.execute("pragma journal_mode = truncate")
            self._pid = os.getpid()
        return self._connection
