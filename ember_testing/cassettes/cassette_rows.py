"""What stands in an open cassette: every question that is asked of the file."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_testing.cassettes import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# One for the process: SQLite's locks on POSIX belong to the process and end when any handle on
# the file is closed, so nobody may read the raw bytes while another thread is in a transaction.
LOCK = threading.RLock()

# One query for a call and its first piece, which is the only one unless it was streamed.
_ANSWER = """
select calls.id, n, status, http_version, reason, response_headers, outcome, error_type,
       error_message, elapsed, headers_after, cost_usd, pieces, "offset", data
from calls left join chunks on call_id = calls.id and i = 0 where calls.id =
"""
_NEXT = f"{_ANSWER} (select id from calls where key = ? and n > ? and id <= ? order by n limit 1)"


class Answer(NamedTuple):
    """What the replay of one call needs."""

    id: int
    n: int
    status: int | None
    http_version: str | None
    reason: str | None
    response_headers: str | None
    outcome: str
    error_type: str | None
    error_message: str | None
    elapsed: float | None
    headers_after: float | None
    cost_usd: float | None
    pieces: int
    offset: float | None
    data: bytes | None


class CassetteRows:
    """An open cassette, to be read; `CassetteFile` opens it.

    Attributes:
        path: The file.
        horizon: The number of the last call when it was opened.
        version: Of its schema.
    """

    path: Path
    horizon: int
    version: int
    _connection: sqlite3.Connection

    def find(self, key: str, after: int) -> Answer | None:
        """The first recording of this request behind the `after`-th; None past the end.

        Recordings made since this file was opened are left out: a session plays what it found.
        """
        rows = self._read(_NEXT, (key, after, self.horizon))
        return Answer(*rows[0]) if rows else None

    def answer(self, call_id: int) -> Answer:
        """The recording with this number."""
        return Answer(*self._read(f"{_ANSWER} ?", (call_id,))[0])

    def chunks(self, call_id: int) -> list[tuple[float, bytes]]:
        """Offset in seconds and bytes of each piece of a response."""
        return self._read(
            'select "offset", data from chunks where call_id = ? order by i', (call_id,)
        )

    def recorded(self, key: str) -> int:
        """How many recordings of this request there are."""
        count = self._read(
            "select count(*) from calls where key = ? and id <= ?", (key, self.horizon)
        )[0][0]
        return int(count)

    def size(self) -> int:
        """How many calls there are."""
        return int(self._read("select count(*) from calls", ())[0][0])

    def has_other_rules(self, rules: str) -> bool:
        """Whether some call's key was made by other rules than these."""
        query = "select 1 from calls where rules <> ? and id <= ? limit 1"
        return bool(self._read(query, (rules, self.horizon)))

    def requests(self) -> Iterator[tuple[int, str, str, str, str | bytes]]:
        """Number, method, URL, headers (JSON) and body of every call, a few at a time."""
        last = 0
        while rows := self._read(
            "select id, method, url, request_headers, request_body from calls "
            "where id > ? and id <= ? order by id limit 100",
            (last, self.horizon),
        ):
            yield from rows
            last = rows[-1][0]

    def rows(self, call_ids: Sequence[int]) -> list[dict[str, Any]]:
        """All columns of some calls."""
        columns = ("id", *schema.CALL_COLUMNS)
        query = f"select {', '.join(columns)} from calls where id = ?"
        return [
            dict(zip(columns, row, strict=True))
            for call_id in call_ids
            for row in self._read(query, (call_id,))
        ]

    def numbers(self) -> list[int]:
        """The numbers of all calls, in the order in which they were recorded."""
        return [call_id for (call_id,) in self._read("select id from calls order by id", ())]

    def prices(self) -> list[tuple[Any, ...]]:
        """The columns of `schema.PRICES`, in their order; none in a file of version 1."""
        if self.version < 2:
            return []
        names = ", ".join(schema.PRICES)
        return self._read(f"select {names} from prices order by since, rowid", ())

    def about(self) -> dict[str, str]:
        """The table `cassette`: who made the file, when, in which run."""
        return dict(self._read("select name, value from cassette", ()))

    def _read(self, query: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            with LOCK:
                return self._connection.execute(query, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise schema.damaged(self.path, error) from error
