"""Bodies and headers as bytes on the wire and as text in a cassette's columns; pure."""

from __future__ import annotations

import json
from functools import lru_cache

Headers = tuple[tuple[str, str], ...]

_IDENTITY = ("", "identity")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def headers_to_json(headers: Headers) -> str:
    """Return name and value pairs as the JSON of a column."""
    return _to_json(headers)


@lru_cache(maxsize=128)  # a client's headers hardly change from call to call
def headers_from_json(text: str | None) -> Headers:
    """Return a column's headers, the inverse of `headers_to_json`; () for a null column."""
    return tuple([(name, value) for name, value in json.loads(text)]) if text else ()


def decoded(headers: Headers, body: bytes) -> bytes:
    """Return a body without its content encoding; unchanged if it has none or does not decode."""
    encoding = next((value for name, value in headers if name.lower() == "content-encoding"), "")
    if encoding.lower() in _IDENTITY or not body:
        return body
    import httpx  # imported late: a plain body does not need it

    try:
        response = httpx.Response(200, headers={"content-encoding": encoding}, content=body)
    except httpx.DecodingError:  # truncated, or not in the declared encoding
        return body
    return response.content


def as_text(content: bytes) -> str | bytes:
    """Return UTF-8 content as text, to be readable in the file, and other content as it is."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return content if "\0" in text else text  # SQLite's functions end a string at NUL


def as_bytes(value: str | bytes) -> bytes:
    """Return a column's content as the bytes on the wire."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
