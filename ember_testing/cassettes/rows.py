"""Rows of the table `calls`: digest, column types, response. No I/O.

A file may be damaged, edited or malicious: reading any row gives values of the declared types or
raises ValueError, and the digest detects a flipped bit anywhere in it.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from ember_testing.wires.body import Headers, as_bytes, decoded, headers_from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Pieces = list[tuple[float, bytes]]
"""Each piece of a response: seconds after the request was sent, and bytes."""

_OUTCOMES = ("complete", "closed", "cut", "failed", "cancelled")
_OF_THE_ENCODED_BODY = ("content-encoding", "content-length")
_TICKS = 10_000  # per second, in a layout
# JSON paths of the answer's text, in a whole body or in the events of a stream.
_TEXT_PATHS = (
    "$.choices[0].message.content",
    "$.choices[0].delta.content",
    "$.content[0].text",
    "$.delta.text",
    "$.output[0].content[0].text",
    "$.delta",
    "$.candidates[0].content.parts[0].text",
)
_SHORT = 64  # characters up to which an answer's text is stored although the body has it


def _is_count(value: int) -> bool:
    return value >= 0


def _is_seconds(value: float) -> bool:
    return math.isfinite(value) and value >= 0


@lru_cache(maxsize=256)  # a test calls few addresses
def _is_address(value: str) -> bool:
    parts = urlsplit(value)  # ValueError: http://[::1
    return parts.port is None or parts.port >= 0


def _is_date(value: str) -> bool:
    return bool(datetime.fromisoformat(value.replace("Z", "+00:00")))


@lru_cache(maxsize=128)  # a client sends nearly the same headers with each call
def _are_headers(value: str) -> bool:
    pairs: object = json.loads(value)
    if not isinstance(pairs, list):
        return False
    for pair in cast("list[object]", pairs):
        if not (isinstance(pair, list) and len(cast("list[object]", pair)) == 2):
            return False
        for text in cast("list[object]", pair):
            if not isinstance(text, str):
                return False
            text.encode("latin-1")  # ValueError if no header could hold it
    return True


@lru_cache(maxsize=16)  # reading a row looks at its layout several times
def _layout(text: str) -> tuple[Sequence[int], Sequence[int]]:
    """Return the ticks before each piece and the sizes of the pieces.

    Raises:
        ValueError: The text is no layout.
    """
    numbers: object = json.loads(text)
    if not isinstance(numbers, list):
        raise ValueError("no list")
    found = cast("list[object]", numbers)
    integers = [each for each in found if type(each) is int and each >= 0]
    if len(integers) < len(found) or len(integers) % 2:
        raise ValueError("no pairs of numbers")
    return integers[::2], integers[1::2]


_TEXT = (str,)
_TEXT_OR_NULL = (str, type(None))
_COUNT_OR_NULL = (int, type(None))
_REAL_OR_NULL = (float, type(None))
_BODY_OR_NULL = (str, bytes, type(None))

# The types of each column, and a check of a value that is not null; in the table's order, without
# `id` and `digest`.
_COLUMNS: dict[str, tuple[tuple[type, ...], Callable[[Any], object] | None]] = {
    "key": (_TEXT, None),
    "n": ((int,), _is_count),
    "rules": (_TEXT, None),
    "redacted": ((int,), (0, 1).__contains__),
    "method": (_TEXT, None),
    "url": (_TEXT, _is_address),
    "status": (_COUNT_OR_NULL, range(100, 1000).__contains__),
    "outcome": (_TEXT, _OUTCOMES.__contains__),
    "error_type": (_TEXT_OR_NULL, None),
    "error_message": (_TEXT_OR_NULL, None),
    "provider": (_TEXT_OR_NULL, None),
    "model": (_TEXT_OR_NULL, None),
    "prompt_tokens": (_COUNT_OR_NULL, _is_count),
    "completion_tokens": (_COUNT_OR_NULL, _is_count),
    "cost_usd": (_REAL_OR_NULL, math.isfinite),
    "headers_after": (_REAL_OR_NULL, _is_seconds),
    "elapsed": (_REAL_OR_NULL, _is_seconds),
    "recorded_at": (_TEXT, _is_date),
    "test": (_TEXT_OR_NULL, None),
    "layout": (_TEXT, _layout),
    "http_version": (_TEXT_OR_NULL, None),
    "reason": (_TEXT_OR_NULL, None),
    "text_at": (_TEXT_OR_NULL, _TEXT_PATHS.__contains__),
    "text": (_TEXT_OR_NULL, None),
    "response_headers": (_TEXT_OR_NULL, _are_headers),
    "response_body": (_BODY_OR_NULL, None),
    "response_raw": ((bytes, type(None)), None),
    "request_headers": (_TEXT, _are_headers),
    "request_body": (_BODY_OR_NULL, None),
}
COLUMNS = tuple(_COLUMNS)


_KEY, _N = (2 + COLUMNS.index(name) for name in ("key", "n"))  # after the id and the digest


def by_key(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]] | None:
    """Group rows of the table `calls` by key; None if there are no rows, or invalid ones."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        if not (isinstance(row[_KEY], str) and isinstance(row[_N], int)):
            return None
        found.setdefault(row[_KEY], []).append(row)
    return found or None


def first_after(rows: Sequence[tuple[Any, ...]], n: int) -> tuple[Any, ...] | None:
    """Return the first of a key's rows after position `n`; the rows are sorted by position."""
    index = bisect_right(rows, n, key=itemgetter(_N))
    return rows[index] if index < len(rows) else None


def digest(values: Sequence[object]) -> int:
    """Return a 64-bit digest of these values."""
    parts: list[str] = []
    for value in values:
        if isinstance(value, str):
            parts.append(f"text {len(value)} {value}")
        elif isinstance(value, bytes):
            parts.append(f"bytes {len(value)} {value.decode('latin-1')}")
        else:
            parts.append(repr(value))
    content = "\n".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(sha256(content).digest()[:8], "big", signed=True)


def checked(values: Sequence[Any], stored: object) -> dict[str, Any]:
    """Return the columns of a row by name, checked; the values are in the order of `COLUMNS`.

    Raises:
        ValueError: The digest does not match, or a column's value is invalid.
    """
    if digest(values) != stored:
        raise ValueError("its content is not what was recorded")
    row = dict(zip(COLUMNS, values, strict=True))
    check_types(row)
    check_pieces(row)
    return row


def check_types(row: Mapping[str, Any]) -> None:
    """Check the value of each column of a row.

    Raises:
        ValueError: A column's value is invalid.
    """
    for name, (types, is_valid) in _COLUMNS.items():
        value = row[name]
        valid: object = type(value) in types
        if valid and is_valid is not None and value is not None:
            try:
                valid = is_valid(value)
            except (ValueError, RecursionError):
                valid = False
        if not valid:
            raise ValueError(f"{name} holds {ascii(value)[:60]}")


def check_pieces(row: Mapping[str, Any]) -> None:
    """Check that a row's pieces add up to its body; its types have been checked.

    Raises:
        ValueError: They do not.
    """
    size, stored = sum(_layout(row["layout"])[1]), len(_body_of(row))
    if size != stored:
        raise ValueError(f"its pieces have {size} bytes, and its body {stored}")
    if (row["status"] is None) != (row["outcome"] in ("failed", "cancelled")):
        raise ValueError(f"status {row['status']} with the outcome {row['outcome']}")


def _body_of(row: Mapping[str, Any]) -> bytes:
    """Return the body as received."""
    raw = row["response_raw"]
    return as_bytes(row["response_body"] or b"") if raw is None else raw


def layout_columns(row: Mapping[str, Any], pieces: Sequence[tuple[float, bytes]]) -> dict[str, Any]:
    """Return the columns that hold a response's pieces as received, each byte stored once."""
    raw = b"".join(data for _, data in pieces)
    layout: list[int] = []
    before = 0
    for at, data in pieces:
        ticks = max(before, round(at * _TICKS))
        layout += [ticks - before, len(data)]
        before = ticks
    encoded = raw != as_bytes(row["response_body"] or b"")
    return {"layout": f"[{','.join(map(str, layout))}]", "response_raw": raw if encoded else None}


def pieces_of(row: Mapping[str, Any]) -> Pieces:
    """Return the pieces of a response as they were received."""
    content = _body_of(row)
    found: Pieces = []
    start = ticks = 0
    for after, size in zip(*_layout(row["layout"]), strict=True):
        ticks += after
        found.append((ticks / _TICKS, content[start : start + size]))
        start += size
    return found


class Answer(NamedTuple):
    """A recording, with the columns that a replay needs."""

    id: int
    n: int
    status: int | None
    http_version: str | None
    reason: str | None
    headers: Headers
    outcome: str
    error_type: str | None
    error_message: str | None
    elapsed: float | None
    headers_after: float | None
    cost_usd: float | None
    body: bytes
    pieces: Pieces


_readable: set[str] = set()


def _playable(row: Mapping[str, Any]) -> tuple[Headers, Pieces]:
    """Return the headers and pieces to answer with.

    As received; or the decoded body in one piece if this process lacks the decoder.
    """
    headers, pieces = headers_from_json(row["response_headers"]), pieces_of(row)
    if row["response_raw"] is None:
        return headers, pieces
    encoding = next((v.lower() for name, v in headers if name.lower() == "content-encoding"), "")
    body = as_bytes(row["response_body"] or b"")
    if encoding not in _readable:
        if decoded(headers, row["response_raw"]) != body:
            remaining = tuple(p for p in headers if p[0].lower() not in _OF_THE_ENCODED_BODY)
            length = (("content-length", str(len(body))),)
            return remaining + length, [(pieces[-1][0] if pieces else 0.0, body)]
        _readable.add(encoding)
    return headers, pieces


def answer_of(row: Mapping[str, Any]) -> Answer:
    """Return a recording from the columns of its row."""
    headers, pieces = _playable(row)
    return Answer(
        id=row["id"],
        n=row["n"],
        status=row["status"],
        http_version=row["http_version"],
        reason=row["reason"],
        headers=headers,
        outcome=row["outcome"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        elapsed=row["elapsed"],
        headers_after=row["headers_after"],
        cost_usd=row["cost_usd"],
        body=as_bytes(row["response_body"] or b""),
        pieces=pieces,
    )


def text_columns(text: str | None, finds: Callable[[str], object]) -> dict[str, Any]:
    """Return the columns for an answer's text: its path in the body if it has one, else the text.

    `finds` returns what the view finds at a path.
    """
    if text is None or len(text) <= _SHORT:
        return {"text": text, "text_at": None}
    path = next((path for path in _TEXT_PATHS if finds(path) == text), None)
    return {"text": None if path else text, "text_at": path}


def check_price(values: Sequence[Any], stored: object) -> None:
    """Check that a row of the table `prices` is unchanged.

    Raises:
        ValueError: It is changed or invalid.
    """
    if digest(values) != stored:
        raise ValueError("a row of prices is not what was recorded")
    types = ((int,), _TEXT, _TEXT, _TEXT, _TEXT_OR_NULL, _TEXT)
    for value, allowed in zip(values, types, strict=True):
        if type(value) not in allowed:
            raise ValueError(f"a row of prices holds {ascii(value)[:60]}")


def values_of(call: Mapping[str, Any]) -> list[Any]:
    """Return the row's digest and columns, as SQLite will return them."""
    values = [_storable(call[name]) for name in COLUMNS]
    return [digest(values), *values]


def _storable(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # a lone surrogate: valid in escaped JSON, not in SQLite
            return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None  # no plausible token count
    return value
