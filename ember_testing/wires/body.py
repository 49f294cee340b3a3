"""Bodies and headers as bytes on the wire and as text in a cassette's columns; pure."""

from __future__ import annotations

import json
from functools import lru_cache

Headers = tuple[tuple[str, str], ...]

_IDENTITY = ("", "identity")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def headers_to_json(headers: Headers) -> str:
    """Name and value pairs as a column holds them."""
    return _to_json(headers)


@lru_cache(maxsize=128)  # a client sends nearly the same ones with each call
def headers_from_json(text: str | None) -> Headers:
    """The opposite of `headers_to_json`; no headers for a null column."""
    return tuple([(name, value) for name, value in json.loads(text)]) if text else ()


def decoded(headers: Headers, body: bytes) -> bytes:
    """A body without its content encoding; as it is when there is none or it does not decode.

    Args:
        headers: Name and value pairs.
        body: The bytes on the wire.
    """
    encoding = next((value for name, value in headers if name.lower() == "content-encoding"), "")
    if encoding.lower() in _IDENTITY or not body:
        return body
    import httpx  # late: reading a plain body needs none

    try:
        response = httpx.Response(200, headers={"content-encoding": encoding}, content=body)
    except httpx.DecodingError:  # cut off in the middle, or not what the header says
        return body
    return response.content


def as_text(content: bytes) -> str | bytes:
    """Text where it is text, to be readable in the file."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return content if "\0" in text else text  # SQLite's own functions end a text at a NUL


def as_bytes(value: str | bytes) -> bytes:
    """A column's content as it was on the wire."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
