"""Parse a body into JSON values: a single one, or one for each event of a stream; pure.

Streams are server-sent events, JSON lines (Ollama), or the frames of `application/
vnd.amazon.eventstream` (Bedrock, SageMaker): 32-bit lengths and checksums around headers and a
payload, as botocore's `eventstream.py` reads them.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

from ember_testing.wires.events import event

__all__ = ["EventReader", "as_server_sent", "values_of"]

_FRAMES = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">III")
_CHECKSUM = 4
# Size in bytes of a header value, by type number; other types begin with a two-byte length.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


def values_of(headers: Mapping[str, str], body: bytes) -> list[Any]:
    """Return the JSON values of a body: a single one, or those of a stream's events.

    Args:
        headers: Response headers, names in lower case.
        body: The body without content encoding; of a stream, the part that has arrived.
    """
    reader = EventReader(headers)
    if not reader.framed:
        try:
            return [json.loads(body)]
        except ValueError:  # JSON lines, or a stream without a stream's content type
            pass
    return [*reader.feed(body), *reader.feed(b"\n")]


class EventReader:
    """An incremental reader of a stream's events; names of headers in lower case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.framed = headers.get("content-type", "").startswith(_FRAMES)
        self._rest = b""
        self._lines = b""  # the incomplete line of a stream inside frames

    def feed(self, piece: bytes) -> Iterator[Any]:
        """Yield the JSON value of each event that a piece completes."""
        self._rest += piece
        if not self.framed:
            self._rest, found = _from_lines(self._rest)
            yield from found
            return
        while (frame := _frame(self._rest)) is not None:
            length, headers, payload = frame
            self._rest = self._rest[length:]
            name = headers.get(":event-type") or headers.get(":exception-type") or ""
            if name == "PayloadPart":  # SageMaker: an arbitrary part of the model server's stream
                self._lines, found = _from_lines(self._lines + payload)
                yield from found
                continue
            value = _json(payload)
            if isinstance(wrapped := _fields(value).get("bytes"), str):
                value = _json(_from_base64(wrapped))
            elif name:
                value = {name: value}
            if value is not None:
                yield value


def as_server_sent(headers: Mapping[str, str], body: bytes) -> bytes | None:
    """Unwrap framed events into server-sent events of the model's vendor; None if not framed."""
    reader = EventReader(headers)
    if not reader.framed:
        return None
    events = filter(None, map(_fields, reader.feed(body)))
    return b"".join(event(each, str(each.get("type") or "message")) for each in events)


def _from_lines(text: bytes) -> tuple[bytes, list[Any]]:
    """Return the incomplete last line, and the values of the lines before it."""
    *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
    values = (_json(line.removeprefix(b"data:")) for line in lines)
    return rest, [value for value in values if value is not None]


def _frame(data: bytes) -> tuple[int, Mapping[str, str], bytes] | None:
    """Return length, headers and payload of the first frame, or None if it is incomplete."""
    if len(data) < _PRELUDE.size:
        return None
    length, head, _ = _PRELUDE.unpack_from(data)
    if not _PRELUDE.size + head + _CHECKSUM <= length <= len(data):
        return None
    end = _PRELUDE.size + head
    return length, _headers(data[_PRELUDE.size : end]), data[end : length - _CHECKSUM]


def _headers(data: bytes) -> Mapping[str, str]:
    """Return the headers with string values, such as `:event-type`."""
    found: dict[str, str] = {}
    try:
        while data:
            name, data = data[1 : 1 + data[0]].decode(), data[1 + data[0] :]
            kind, data = data[0], data[1:]
            if kind in _FIXED:
                data = data[_FIXED[kind] :]
                continue
            (size,) = struct.unpack_from(">H", data)
            found[name] = data[2 : 2 + size].decode("utf-8", "replace")
            data = data[2 + size :]
    except (IndexError, struct.error, UnicodeDecodeError):  # malformed
        pass
    return found


def _fields(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
