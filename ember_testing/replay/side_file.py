"""A small SQLite file shared by the processes of a run; each opens its own connection."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_BUSY = 60.0  # seconds to wait for another process's transaction, which takes a millisecond


class SideFile:
    """A shared SQLite file; created if missing, by a schema of `create table if not exists`.

    Raises:
        sqlite3.Error: The file cannot be created.
    """

    _connection: sqlite3.Connection

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._pid = 0
        self._inherited: list[sqlite3.Connection] = []  # kept open: closing would release locks
        path.touch()
        self.connection.executescript(schema)

    @property
    def connection(self) -> sqlite3.Connection:
        """This process's connection: an SQLite connection must not be used across a fork."""
        if self._pid != os.getpid():
            if self._pid:
                self._inherited.append(self._connection)
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",  # do not recreate a deleted file
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY,
            )
            self._connection.execute("pragma synchronous = off")
            self._connection.execute("pragma journal_mode = truncate")
            self._pid = os.getpid()
        return self._connection

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Run the block as one transaction, atomic for all processes."""
        connection = self.connection
        connection.execute("begin immediate")
        try:
            yield connection
        finally:
            connection.execute("commit")

    def close(self, *, delete: bool = False) -> None:
        """Close the file, and delete it if asked to."""
        self.connection.close()
        if delete:
            for suffix in ("", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
