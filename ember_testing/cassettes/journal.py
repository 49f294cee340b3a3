"""A cassette's file between transactions: whether it can be written, its journal, its bytes."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from ember_testing.cassettes import schema
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_SNAPSHOT = 32 * 2**20  # bytes kept in memory to give back a file exactly as it was


def probe(connection: sqlite3.Connection, path: Path) -> None:
    """Find out that nothing can be written before a call is paid for."""
    try:
        connection.execute("begin immediate")
        connection.execute(f"pragma user_version = {schema.VERSION}")
        connection.execute("rollback")
    except sqlite3.Error as error:
        raise CassetteError(
            f"cannot write the cassette {path}: {error}; make the file and its folder writable"
        ) from error


def recover(path: Path) -> None:
    """Roll back what a killed recording left half written; a read-only connection cannot."""
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
        ) as connection:
            connection.execute("select 1 from sqlite_master").fetchone()
            connection.execute("pragma journal_mode = truncate")  # what the next line ends
            delete_journal(connection)
    except sqlite3.Error as error:
        raise schema.damaged(path, error) from error


def delete_journal(connection: sqlite3.Connection) -> None:
    """Leave one file at rest. While another process records, the file is its to delete."""
    with suppress(sqlite3.Error):  # closed already, or locked by that other process
        connection.execute("pragma busy_timeout = 0")
        connection.execute("pragma journal_mode = delete")


def stable_bytes(path: Path) -> bytes | None:
    """The file's bytes, unless another process was writing meanwhile or they are too many."""
    before = path.stat()
    if before.st_size > _LARGEST_SNAPSHOT or _in_commit(path):
        return None
    content = path.read_bytes()
    after = path.stat()
    unchanged = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return content if unchanged and not _in_commit(path) else None


def _in_commit(path: Path) -> bool:
    """Whether some process is writing: its journal is empty at all other times."""
    journal = path.with_name(path.name + "-journal")
    try:
        return journal.stat().st_size > 0
    except FileNotFoundError:
        return False
