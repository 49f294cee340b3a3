"""State shared by a test and the processes that it forks: positions of requests, and events.

Each test that forks has one small file; the cassette stays read-only.
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
from ember_testing.replay.side_file import SideFile

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

_SCHEMA = """
create table if not exists positions (key text primary key, n integer not null) without rowid;
create table if not exists events (id integer primary key, kind text not null, value text not null);
create table if not exists ended (at text);
"""
_OVER = (
    "the test that forked this process is over, and its cassette is closed; end the process before "
    "the test ends"
)


class SharedCounts:
    """Positions by key, shared by several processes; at first those before the fork.

    Raises:
        CassetteError: The file cannot be created.
    """

    def __init__(self, positions: Mapping[str, int]) -> None:
        self.owner = os.getpid()
        self._seen = 0
        try:
            handle, name = tempfile.mkstemp(prefix="ember-", suffix=".counts")
            os.close(handle)
            self._file = SideFile(Path(name), _SCHEMA)
            self._file.connection.executemany(
                "insert into positions values (?, ?)", [*positions.items()]
            )
        except (OSError, sqlite3.Error) as error:
            raise CassetteError(
                f"cannot count the calls of forked processes in {tempfile.gettempdir()}: {error}"
            ) from error

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from counting inside the block.

        Raises:
            CassetteError: The test is over, or the file cannot be used.
        """
        try:
            with self._file.transaction() as connection:
                if connection.execute("select 1 from ended").fetchone():
                    raise CassetteError(_OVER)
                yield
        except sqlite3.Error as error:
            if not self._file.path.exists():
                raise CassetteError(_OVER) from None
            raise CassetteError(f"cannot count the calls of forked processes: {error}") from error

    def add_event(self, kind: str, value: Any) -> None:
        """Report an event to the first process."""
        with suppress(sqlite3.Error):
            self._file.connection.execute(
                "insert into events (kind, value) values (?, ?)", (kind, json.dumps(value))
            )

    def new_events(self) -> list[tuple[str, Any]]:
        """Return the other processes' events since the last call."""
        with suppress(sqlite3.Error):
            rows = self._file.connection.execute(
                "select id, kind, value from events where id > ? order by id", (self._seen,)
            )
            found = rows.fetchall()
            self._seen = found[-1][0] if found else self._seen
            return [(kind, json.loads(value)) for _, kind, value in found]
        return []

    def end(self) -> None:
        """Refuse calls of processes that outlive the test, and delete the file."""
        with suppress(sqlite3.Error):
            self._file.connection.execute("insert into ended values (1)")
        self._file.close(delete=True)

    def __getitem__(self, key: str) -> int:
        query = "select n from positions where key = ?"
        row = self._file.connection.execute(query, (key,)).fetchone()
        return row[0] if row else 0

    def __setitem__(self, key: str, n: int) -> None:
        self._file.connection.execute("insert or replace into positions values (?, ?)", (key, n))
