"""Rows of the table `calls`: digest, column types, response. No I/O.

A file may be damaged, edited or malicious: reading any row gives values of the declared types or
raises ValueError, and the digest detects a flipped bit anywhere in it.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ember_testing.wires.body import Headers, as_bytes, decoded, headers_from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Pieces = list[tuple[float, bytes]]
"""Each piece of a response: seconds after the request was sent, and bytes."""

_OUTCOMES = ("complete", "closed", "cut", "failed", "cancelled")
_OF_THE_ENCODED_BODY = ("content-encoding", "content-length")
_TICKS = 10_000  # per second, in a layout
_STATUS = range(100, 1000)
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


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_body(value: object) -> bool:
    return isinstance(value, (str, bytes))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _is_seconds(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value >= 0


def _is_amount(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    parts = urlsplit(value)  # ValueError: http://[::1
    return parts.port is None or parts.port >= 0


def _is_date(value: object) -> bool:
    return isinstance(value, str) and bool(datetime.fromisoformat(value.replace("Z", "+00:00")))


def _is_headers(value: object) -> bool:
    return isinstance(value, str) and _are_headers(value)


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


def _is_layout(value: object) -> bool:
    if not isinstance(value, str):
        return False
    numbers: object = json.loads(value)
    return (
        isinstance(numbers, list)
        and len(cast("list[object]", numbers)) % 2 == 0
        and all(isinstance(each, int) and each >= 0 for each in cast("list[object]", numbers))
    )


# A check of each column's value and whether it may be null, in the table's order, without `id` and
# `digest`.
_COLUMNS: dict[str, tuple[Callable[[object], bool], bool]] = {
    "key": (_is_text, False),
    "n": (_is_count, False),
    "rules": (_is_text, False),
    "redacted": (lambda value: value in (0, 1), False),
    "method": (_is_text, False),
    "url": (_is_address, False),
    "status": (lambda value: value in _STATUS, True),
    "outcome": (lambda value: value in _OUTCOMES, False),
    "error_type": (_is_text, True),
    "error_message": (_is_text, True),
    "provider": (_is_text, True),
    "model": (_is_text, True),
    "prompt_tokens": (_is_count, True),
    "completion_tokens": (_is_count, True),
    "cost_usd": (_is_amount, True),
    "headers_after": (_is_seconds, True),
    "elapsed": (_is_seconds, True),
    "recorded_at": (_is_date, False),
    "test": (_is_text, True),
    "layout": (_is_layout, False),
    "http_version": (_is_text, True),
    "reason": (_is_text, True),
    "text_at": (lambda value: value in _TEXT_PATHS, True),
    "text": (_is_text, True),
    "response_headers": (_is_headers, True),
    "response_body": (_is_body, True),
    "response_raw": (lambda value: isinstance(value, bytes), True),
    "request_headers": (_is_headers, False),
    "request_body": (_is_body, True),
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


def rows_after(
    rows: Mapping[str, Sequence[tuple[Any, ...]]], key: str, n: int
) -> list[tuple[Any, ...]]:
    """Return the rows of a key after position `n`."""
    return [row for row in rows.get(key, ()) if row[_N] > n]


def digest(values: Sequence[object]) -> int:
    """Return a 64-bit digest of these values."""
    # `ascii` tells the types apart and is the same in every version of Python.
    content = ascii(tuple(values)).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True)


def checked(values: Sequence[Any], stored: object) -> dict[str, Any]:
    """Return the columns of a row by name, checked.

    Args:
        values: The columns in the order of `COLUMNS`, as read.
        stored: The row's digest.

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
    for name, (is_right, nullable) in _COLUMNS.items():
        value = row[name]
        if value is None and nullable:
            continue
        try:
            right = is_right(value)
        except (ValueError, RecursionError, OverflowError):
            right = False
        if not right:
            raise ValueError(f"{name} holds {ascii(value)[:60]}")


def check_pieces(row: Mapping[str, Any]) -> None:
    """Check that a row's pieces add up to its body; its types have been checked.

    Raises:
        ValueError: They do not.
    """
    size = sum(json.loads(row["layout"])[1::2])
    body = row["response_raw"] if row["response_raw"] is not None else row["response_body"]
    if size != len(as_bytes(body or b"")):
        raise ValueError(f"its pieces have {size} bytes, and its body {len(as_bytes(body or b''))}")
    if (row["status"] is None) != (row["outcome"] in ("failed", "cancelled")):
        raise ValueError(f"status {row['status']} with the outcome {row['outcome']}")


def layout_columns(row: Mapping[str, Any], pieces: Sequence[tuple[float, bytes]]) -> dict[str, Any]:
    """Return the columns that hold a response's pieces, each byte stored once.

    Args:
        row: Its `response_body` is the body without content encoding.
        pieces: The pieces as received.
    """
    raw = b"".join(data for _, data in pieces)
    layout: list[int] = []
    before = 0
    for at, data in pieces:
        ticks = max(before, round(at * _TICKS))
        layout += [ticks - before, len(data)]
        before = ticks
    encoded = raw != as_bytes(row["response_body"] or b"")
    text = json.dumps(layout, separators=(",", ":"))
    return {"layout": text, "response_raw": raw if encoded else None}


def pieces_of(row: Mapping[str, Any]) -> Pieces:
    """Return the pieces of a response as they were received."""
    raw = row["response_raw"]
    content = as_bytes(row["response_body"] or b"") if raw is None else raw
    found: Pieces = []
    numbers = json.loads(row["layout"])
    start = ticks = 0
    for after, size in zip(numbers[::2], numbers[1::2], strict=True):
        ticks += after
        found.append((ticks / _TICKS, content[start : start + size]))
        start += size
    return found


_readable: set[str] = set()


def playable(row: Mapping[str, Any]) -> tuple[Headers, Pieces]:
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


def text_columns(text: str | None, finds: Callable[[str], object]) -> dict[str, Any]:
    """Return the columns for an answer's text: its path in the body if it has one, else the text.

    Args:
        text: The text.
        finds: Returns what the view finds at a path.
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
    since, *texts, rates = values
    if digest(values) != stored:
        raise ValueError("a row of prices is not what was recorded")
    kinds = [isinstance(text, str) for text in texts[:3]]
    if not (_is_count(since) and all(kinds) and isinstance(texts[3], (str, type(None)))):
        raise ValueError(f"a row of prices holds {ascii(values)[:60]}")
    if not isinstance(rates, str):
        raise ValueError(f"a row of prices holds {ascii(rates)[:60]}")


def values_of(call: Mapping[str, Any]) -> list[Any]:
    """Return the row's digest and columns, as SQLite will return them."""
    values = [_storable(call[name]) for name in COLUMNS]
    return [digest(values), *values]


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # a lone surrogate: valid in escaped JSON, not in SQLite
            return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None  # no plausible token count
    return value
