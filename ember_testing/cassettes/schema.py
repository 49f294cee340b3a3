"""The cassette's tables, and the checks that a file is a cassette."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from datetime import datetime, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING
from uuid import uuid4

from ember_testing.cassettes.rows import digest
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

APPLICATION_ID = 0x454D4252  # "EMBR"; `file cassette.sqlite` shows it
VERSION = 4
PAGE_SIZE = 512
"""Bytes. A row's last page is half empty on average: small pages keep a cassette near the size of
its content, and one of a single call at about 9 KB."""

# SQLite keeps these statements verbatim, and `check` compares them: a view, a virtual table or a
# generated column in a table's place is found before it is queried.
_DECLARATIONS = {
    "cassette": """\
CREATE TABLE cassette (name text primary key, value text not null) without rowid""",
    "calls": """\
CREATE TABLE calls (
  id integer primary key,
  key text not null, -- digest of the canonical request
  n integer not null, -- position among identical requests, from 1
  digest integer not null, -- of all other columns
  rules text not null, -- what the key compares; '' for the default
  redacted integer not null, -- 1: the key is of a request of which less is written
  method text not null,
  url text not null,
  status integer, -- null: no response came
  outcome text not null, -- complete, closed (by the caller), cut (while reading), failed (no
                         -- response), cancelled (by the caller, before the response's head)
  error_type text, -- the httpx exception's class, for cut and failed
  error_message text,
  provider text,
  model text,
  prompt_tokens integer,
  completion_tokens integer,
  cost_usd real,
  headers_after real, -- seconds from sending the request to the response's head
  elapsed real, -- seconds from sending the request to the end of the response
  recorded_at text not null, -- ISO 8601, UTC
  test text, -- node id of the test that recorded it
  layout text not null, -- JSON: of each piece 0.1 ms after the one before, then its bytes
  http_version text, -- null: HTTP/1.1
  reason text, -- the words behind the status; null: the usual ones
  text_at text, -- JSON path of the answer's text in response_body, or in each of its events
  text text, -- the answer as a person reads it, where no path leads to it
  response_headers text, -- JSON: list of [name, value]
  response_body text, -- text where it is text, else bytes; without content encoding
  response_raw blob, -- the bytes that came, where they had a content encoding
  request_headers text not null, -- JSON: list of [name, value]
  request_body text
)""",
    # The prices of the calls: one row for the first price of its kind and one for each change.
    "prices": """\
CREATE TABLE prices (
  since integer not null, -- number of the first call charged so
  provider text not null,
  model text not null, -- as the answer reports it
  requested_model text not null,
  tier text, -- the service tier; null for the standard one
  rates text not null, -- JSON: US dollars per million tokens by kind, or the provider's own figure
  digest integer not null
)""",
    "calls_by_key": "CREATE UNIQUE INDEX calls_by_key on calls (key, n)",
}
TEXT = """coalesce(text, case
  when text_at is null then null
  when json_valid(response_body) then json_extract(response_body, text_at)
  else (
    select group_concat(json_extract(event, text_at), '') from (
      select substr(value, 1, instr(value || char(10), char(10)) - 1) as event
      from json_each('[' || replace(replace(json_quote(replace(
        char(10) || response_body, char(13), '')), '\\\\', '\\u005c'), '\\ndata:', '","') || ']')
      order by key
    ) where json_valid(event)
  ) end)"""
"""The answer's text in SQL: the column, or what the path finds in the body or in its events."""
# The calls in readable form, and the responses piece by piece.
VIEWS = {
    "transcript": f"""\
CREATE VIEW transcript as
select id, provider, model, coalesce({TEXT}, response_body) as answer, request_body as request,
       status, outcome, prompt_tokens, completion_tokens, cost_usd, round(elapsed, 3) as seconds,
       json_array_length(layout) / 2 as pieces, method || ' ' || url as endpoint, n,
       recorded_at, test
from calls order by id""",
    "chunks": """\
CREATE VIEW chunks as
select call_id, i, sum(after) over before / 1e4 as "offset",
       substr(body, 1 + sum(size) over before - size, size) as data
from (
  select calls.id as call_id, number.key / 2 as i, number.key % 2 as is_size, number.value as after,
         lead(number.value) over (partition by calls.id order by number.key) as size,
         cast(coalesce(response_raw, response_body) as blob) as body
  from calls, json_each(layout) as number
) where not is_size
window before as (partition by call_id order by i)""",
}
_HEADER = b"SQLite format 3\0"
_PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 1)  # 1 stands for 65536
_HEADER_SIZE = 100
_DIGEST = "digest"  # the row of the table `cassette` that protects the others
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def salt_of(path: Path) -> str:
    """Return the salt of a new cassette: the same in all processes that create it at once."""
    return blake2b(path.name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def new_metadata(run: str = "", salt: str = "") -> dict[str, str]:
    """Return the rows of the table `cassette` for a new file.

    Args:
        run: The name of the test run, if several tests share the file.
        salt: The salt of the digests: that of the file to replace, or from `salt_of`.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        ember = version("ember-models")
    except PackageNotFoundError:  # run from a source tree
        ember = "unknown"
    return {
        "id": uuid4().hex,
        "salt": salt,
        "run": run,
        "prices": prices_digest(()),
        "recorded_by": f"ember-models {ember}",
        "created_at": datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    }


def create(path: Path, metadata: Mapping[str, str]) -> bool:
    """Create an empty cassette at `path` atomically, unless a file is there already.

    Missing folders are created. Returns whether this call created the file.

    Raises:
        CassetteError: The folder cannot be written.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_empty(part, metadata)
        return place(part, path)
    except (OSError, sqlite3.Error) as error:
        raise CassetteError(
            f"cannot create the cassette {path}: {error}; make its folder writable, or set the ini "
            "option ember_cassette_dir to one that is"
        ) from error
    finally:
        with suppress(OSError):  # never created: the error above says why
            part.unlink()


def add_metadata(path: Path, name: str, value: str) -> None:
    """Add a row to the table `cassette` of an existing file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        write_metadata(connection, {name: value})


def write_metadata(connection: sqlite3.Connection, changes: Mapping[str, str]) -> None:
    """Change rows of the table `cassette`, and its digest with them."""
    statement = "insert or replace into cassette values (?, ?)"
    connection.executemany(statement, list(changes.items()))
    metadata = dict(connection.execute("select name, value from cassette").fetchall())
    connection.execute(statement, (_DIGEST, _metadata_digest(metadata)))


def prices_digest(digests: Iterable[object]) -> str:
    """Return the digest of all rows of the table `prices` from their own."""
    return str(digest(list(digests)))


def seal_prices(connection: sqlite3.Connection) -> None:
    """Store the digest of all rows of the table `prices`, so that a missing one is noticed."""
    rows = connection.execute("select digest from prices order by since, rowid").fetchall()
    write_metadata(connection, {"prices": prices_digest(each for (each,) in rows)})


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    """Return the digest of the other rows of the table `cassette`."""
    rows = [pair for pair in sorted(metadata.items()) if pair[0] != _DIGEST]
    return str(digest([each for pair in rows for each in pair]))


def metadata_of(rows: Sequence[tuple[object, object]], path: Path) -> dict[str, str]:
    """Return the rows of the table `cassette` by name, without their digest.

    Raises:
        CassetteError: They are not as they were written.
    """
    metadata = {str(name): value for name, value in rows if isinstance(value, str)}
    if len(metadata) < len(rows) or metadata.get(_DIGEST) != _metadata_digest(metadata):
        raise damaged(path, "the table cassette is not as it was written")
    del metadata[_DIGEST]
    return metadata


def _write_empty(part: Path, metadata: Mapping[str, str]) -> None:
    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.execute(f"pragma page_size = {PAGE_SIZE}")
        connection.execute("pragma synchronous = off")  # no other process has the file yet
        connection.execute("begin")
        for statement in (*_DECLARATIONS.values(), *VIEWS.values()):
            connection.execute(statement)
        write_metadata(connection, metadata)
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")


def place(part: Path, path: Path) -> bool:
    """Give `part` its final name unless it is taken: linking then fails."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        part.rename(path)
    return True


def check_bytes(path: Path, status: os.stat_result) -> bool:
    """Refuse a file that SQLite should not open; the caller holds `file.LOCK`.

    Returns:
        Whether a journal lies beside the file.

    Raises:
        CassetteError: The file is not a regular file, is empty, a Git LFS pointer, not SQLite, in
            write-ahead mode, or of another program or version.
    """
    modes, journal = {path: status.st_mode}, path.with_name(f"{path.name}-journal")
    with suppress(FileNotFoundError):
        modes[journal] = journal.stat().st_mode
    for each, mode in modes.items():
        if not stat.S_ISREG(mode):
            raise CassetteError(f"{each} is no regular file and no cassette; it is left as it is")
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEADER_SIZE)
    if not head:
        raise CassetteError(
            f"{path} is empty (0 bytes) and no cassette; delete it, or record anew with "
            "--ember-record=all"
        )
    if head.startswith(_LFS_POINTER):
        raise CassetteError(
            f"{path} is a Git LFS pointer, the cassette itself is not here: git lfs pull"
        )
    page_size = int.from_bytes(head[16:18], "big")
    if not head.startswith(_HEADER) or len(head) < _HEADER_SIZE or page_size not in _PAGE_SIZES:
        raise damaged(path, "it does not begin as an SQLite file does")
    if 2 in (head[18], head[19]):
        raise CassetteError(
            f"{path} is in write-ahead mode, in which a cassette is more than one file; run: "
            f'sqlite3 {path} "pragma journal_mode = delete"'
        )
    application, version = (int.from_bytes(head[at : at + 4], "big") for at in (68, 60))
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
            f"{path} has schema {version}, which no release wrote; delete it and record anew with "
            "--ember-record"
        )
    return len(modes) == 2


_DECLARED = "select name, sql from sqlite_master where type in ('table', 'index', 'trigger')"


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that does not have a cassette's tables; `check_bytes` has checked the rest.

    Raises:
        CassetteError: The file is damaged or has other tables.
    """
    try:
        connection.execute("pragma trusted_schema = off")
        declared = dict(connection.execute(_DECLARED).fetchall())
    except (sqlite3.Error, TypeError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    for name, statement in _DECLARATIONS.items():
        if declared.get(name) != statement:
            raise damaged(path, f"{name} is missing, or not as it was made")
    for name, statement in declared.items():
        if statement and statement.lower().startswith("create trigger"):
            raise damaged(path, f"it has a trigger, {name}")


def damaged(path: Path, reason: object) -> CassetteError:
    """Return the error for a file that cannot be read."""
    return CassetteError(
        f"{path} is damaged or no cassette ({reason}); it is left as it is: restore it from "
        "version control, or delete it and record anew with --ember-record"
    )
