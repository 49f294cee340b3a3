"""The cassette's tables, declared once, and what a file must be to count as a cassette."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import uuid4

from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APPLICATION_ID = 0x454D4252  # "EMBR"; `file cassette.sqlite` shows it
VERSION = 2
PAGE_SIZE = 1024
"""Bytes. A cassette of one call then has some 15 KB instead of 50."""

_CALLS: dict[str, type] = {
    "id": int,
    "key": str,  # digest of the canonical request
    "n": int,  # the how-manieth recording of that request
    "rules": str,  # what the key compares; "" for the default
    "method": str,
    "url": str,
    "status": int,  # null: no response came
    # complete, closed (by the caller), cut (while reading), failed (no response), cancelled (by the
    # caller, before the response's head)
    "outcome": str,
    "error_type": str,  # the httpx exception's class, for cut and failed
    "error_message": str,
    "provider": str,
    "model": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cost_usd": float,
    "headers_after": float,  # seconds from sending the request to the response's head
    "elapsed": float,  # seconds from sending the request to the end of the response
    "recorded_at": str,  # ISO 8601, UTC
    "test": str,  # node id of the test that recorded it
    "pieces": int,  # rows in chunks
    "http_version": str,
    "reason": str,
    "response_headers": str,  # JSON: list of [name, value]
    # What is long comes last: a replay reads the columns above without walking through it.
    "text": str,  # the answer as a person reads it
    "request_headers": str,  # JSON: list of [name, value]
    "request_body": str,  # text where it is text, else bytes
    "response_body": str,  # decoded (gzip, br, ...) for reading; the bytes that came are in chunks
}
CALL_COLUMNS = tuple(_CALLS)[1:]
_CHUNKS: dict[str, type] = {
    "call_id": int,
    "i": int,
    "offset": float,  # seconds after the request was sent
    "data": bytes,  # as it came off the wire
}
# What the calls were charged at: a row for the first price of its kind and for each change.
PRICES: dict[str, type] = {
    "since": int,  # number of the first call charged so
    "provider": str,
    "model": str,  # as the answer reports it
    "requested_model": str,
    "tier": str,  # the service tier; null for the standard one
    "rates": str,  # JSON: US dollars per million tokens by kind, or the provider's own figure
}
# What a person wants to see first.
_TRANSCRIPT = """
select id, provider, model, coalesce(text, response_body) as answer, request_body as request,
       status, outcome,
       prompt_tokens, completion_tokens, cost_usd, round(elapsed, 3) as seconds,
       pieces, method || ' ' || url as endpoint, n, recorded_at, test
from calls order by id
"""


TABLES = {
    "cassette": ("name", "value"),
    "calls": ("id", *CALL_COLUMNS),
    "chunks": tuple(_CHUNKS),
    "prices": tuple(PRICES),
}


def about(run: str = "") -> dict[str, str]:
    """What a new file says of itself in the table `cassette`.

    Args:
        run: The name of the test run, where the file is shared by several tests.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        ember = version("ember-models")
    except PackageNotFoundError:  # run from a source tree
        ember = "unknown"
    return {
        "id": uuid4().hex,
        "run": run,
        "recorded_by": f"ember-models {ember}",
        "created_at": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    }


def create(path: Path, about: Mapping[str, str]) -> bool:
    """Put an empty cassette at `path`, in one step, unless a file is there already.

    Args:
        path: Where to; missing folders are made.
        about: What is written into the table `cassette`.

    Returns:
        Whether this call made the file; another process may have been faster.

    Raises:
        CassetteError: The folder cannot be written.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_empty(part, about)
        return place(part, path)
    except (OSError, sqlite3.Error) as error:
        raise CassetteError(
            f"cannot create the cassette {path}: {error}; make its folder writable, or set the ini "
            "option ember_cassette_dir to one that is"
        ) from error
    finally:
        with suppress(OSError):  # never made: the error above says why
            part.unlink()


def _write_empty(part: Path, about: Mapping[str, str]) -> None:
    from sqlite_utils import Database  # late: 60 ms that a replay does without

    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.execute(f"pragma page_size = {PAGE_SIZE}")
        connection.execute("pragma synchronous = off")  # not yet anybody's file
        connection.execute("begin")
        database = Database(connection, execute_plugins=False)
        database.table("cassette").create({"name": str, "value": str}, pk="name")
        database.table("calls").create(
            _CALLS, pk="id", not_null={"key", "n", "method", "url", "outcome", "recorded_at"}
        )
        database.table("calls").create_index(["key", "n"], unique=True)
        database.table("chunks").create(
            _CHUNKS,
            pk=("call_id", "i"),
            not_null={"offset", "data"},
            foreign_keys=[("call_id", "calls", "id")],
        )
        database.table("prices").create(PRICES)
        database.create_view("transcript", _TRANSCRIPT)
        connection.executemany("insert into cassette values (?, ?)", list(about.items()))
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")


def place(part: Path, path: Path) -> bool:
    """Give `part` its final name if nobody has it; a link fails when the name is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        part.rename(path)
    return True


# One query: this is done with every test that replays.
_IDENTITY = "select application_id, user_version from pragma_application_id, pragma_user_version"


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no cassette, or one this version cannot read.

    Raises:
        CassetteError: Empty, truncated, damaged, foreign, older or newer.
    """
    if path.stat().st_size == 0:
        raise CassetteError(
            f"{path} is empty (0 bytes) and no cassette; delete it, or record anew with "
            "--ember-record=all"
        )
    try:
        application, version = connection.execute(_IDENTITY).fetchone()
        if application == APPLICATION_ID:
            connection.execute("select id from calls limit 1").fetchone()
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    if application != APPLICATION_ID:
        raise CassetteError(
            f"{path} is an SQLite file of another program (application_id {application:#x}); "
            "it is left as it is: move it away or name another cassette"
        )
    if version > VERSION:
        raise CassetteError(
            f"{path} has schema {version}, this version reads up to {VERSION}; "
            "upgrade ember-models, the file is left as it is"
        )
    if version < VERSION:
        raise CassetteError(
            f"{path} has schema {version}, which no release wrote; record anew with "
            "--ember-record=all"
        )


def damaged(path: Path, error: Exception) -> CassetteError:
    """The error for a file that SQLite cannot read."""
    return CassetteError(
        f"{path} is damaged or no cassette ({error}); it is left as it is: restore it from version "
        "control, or delete it and record anew with --ember-record"
    )
