"""Decoding of a streamed answer's bytes to events; pure.

Event streams are read by the rules of the HTML standard (section 9.2.6): lines end only with CR, LF
or CRLF, not with U+2028 or U+0085, which may be unescaped inside a JSON string. Deviations of
providers from the standard are read too: a JSON array instead of an event stream, a whole JSON
object, raw JSON between two events, a last event without a blank line after it.
"""

from __future__ import annotations

import re
from typing import TypeAlias

__all__ = ["Event", "EventDecoder"]

_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
# The tokens that matter around and inside JSON objects.
_TOKENS = re.compile(rb'\\.?|["{}\[\]]', re.DOTALL)
# Bytes to keep of an answer that is not an event stream, to show what it was.
_STRAY_LIMIT = 2000


# The name, "" if the stream gives none, and the data.
Event: TypeAlias = tuple[str, str]


class EventDecoder:
    """Decodes the pieces of a streamed body, split anywhere, into events.

    After `finish`, `stray` is the beginning of the bytes that were neither events nor JSON.
    """

    def __init__(self) -> None:
        self.stray = b""
        # The beginning of a line, or of the body, in pieces: if they were joined at every piece,
        # a long line would be copied again and again.
        self._pending: list[bytes] = []
        self._after_cr = False
        self._started = False
        self._is_between_events = True
        self._json: _JsonObjects | None = None
        self._raw: _JsonObjects | None = None
        self._raw_name = ""
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that this piece completes, in order."""
        if self._is_between_events and piece.startswith(b"data: ") and piece.endswith(b"\n\n"):
            # Fast path: most pieces are events of one line each.
            texts = _text(piece[6:-2]).split("\n\ndata: ")
            if piece.count(b"\n") == 2 * len(texts) and b"\r" not in piece:
                self._started = True
                return [("", text) for text in texts]
        events = self._feed(piece)
        begun = self._pending or self._data or self._name or self._after_cr
        self._is_between_events = not (begun or self._json or self._raw)
        return events

    def _feed(self, piece: bytes) -> list[Event]:
        if not piece:
            return []
        if not self._started:
            self._pending.append(piece)
            if piece.isspace() or not self._start():
                return []
            piece = self._take_pending()
        if self._json is not None:
            return [("", text) for text in self._json.feed(piece)]
        return self._feed_lines(piece)

    def finish(self) -> list[Event]:
        """Return the events that the end of the body completes."""
        events: list[Event] = []
        if not self._started:
            self._started = True
            self._after_cr = False
            events += self._feed_lines(self._take_pending())
        if self._json is not None:
            self._add_stray(self._json.rest())
            return events
        if line := self._take_pending():
            self._read_line(line, events)
        self._dispatch(events)
        if self._raw is not None:
            self._add_stray(self._raw.rest())
            self._raw = None
        return events

    def _start(self) -> bool:
        """Detect the kind of body; return False while its beginning is ambiguous."""
        beginning = b"".join(self._pending)
        if len(beginning) < len(_BOM) and _BOM.startswith(beginning):
            return False
        beginning = beginning.removeprefix(_BOM)
        self._pending = [beginning]
        first = beginning.lstrip()[:1]
        if not first:
            return False
        self._started = True
        if first in b"[{":
            self._json = _JsonObjects()
        return True

    def _take_pending(self) -> bytes:
        begun, self._pending = b"".join(self._pending), []
        return begun

    def _feed_lines(self, piece: bytes) -> list[Event]:
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            if not piece:
                self._after_cr = False
                return []
        self._after_cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[Event] = []
        if b"\n" not in piece:
            self._pending.append(piece)
            return events
        *lines, rest = (self._take_pending() + piece).split(b"\n")
        if rest:
            self._pending.append(rest)
        for line in lines:
            self._read_line(line, events)
        return events

    def _read_line(self, line: bytes, events: list[Event]) -> None:
        if self._raw is not None:
            # Inside raw JSON every line is part of it.
            self._read_raw(line, events)
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            self._dispatch(events)
        elif line.startswith(b":"):
            return
        else:
            name, _, value = line.partition(b":")
            if name == b"event":
                self._name = value.strip()
            elif name == b"data":
                self._data.append(value)
            elif name not in _FIELDS:
                # Google and old builds of llama.cpp send an error between events as raw JSON,
                # on several lines or after `error:`.
                self._dispatch(events)
                named = name == b"error"
                raw = value if named else line
                if raw.lstrip()[:1] in (b"{", b"["):
                    self._raw, self._raw_name = _JsonObjects(), "error" if named else ""
                    self._read_raw(raw, events)
                else:
                    self._add_stray(line + b"\n")

    def _read_raw(self, line: bytes, events: list[Event]) -> None:
        assert self._raw is not None
        events += [(self._raw_name, text) for text in self._raw.feed(line + b"\n")]
        if self._raw.balanced:
            self._raw = None

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            name = _text(self._name) if self._name else ""
            events.append((name, _text(b"\n".join(self._data))))
            self._data.clear()
        self._name = b""

    def _add_stray(self, more: bytes) -> None:
        self.stray = (self.stray + more)[:_STRAY_LIMIT]


class _JsonObjects:
    """Extracts the outermost JSON objects from a body such as `[{...}, {...}]`."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []  # the open object, from earlier pieces
        self._brackets = 0  # open around the object
        self._depth = 0  # of braces
        self._in_string = self._escaped = False

    @property
    def balanced(self) -> bool:
        """Whether no object or bracket is open."""
        return not self._depth and self._brackets <= 0

    def feed(self, piece: bytes) -> list[str]:
        found: list[str] = []
        start, escaped, self._escaped = 0, self._escaped, False
        for match in _TOKENS.finditer(piece, int(escaped)):
            token = match.group()
            if token.startswith(b"\\"):
                self._escaped = token == b"\\"  # the escaped byte is in the next piece
            elif token == b'"':
                self._in_string = not self._in_string
            elif self._in_string:
                continue
            elif token == b"{":
                start = start if self._depth else match.start()
                self._depth += 1
            elif token == b"}" and self._depth:
                self._depth -= 1
                if not self._depth:
                    found.append(_text(b"".join([*self._pending, piece[start : match.end()]])))
                    self._pending.clear()
            elif not self._depth:
                self._brackets += {b"[": 1, b"]": -1}.get(token, 0)
        if self._depth:
            self._pending.append(piece[start:])
        return found

    def rest(self) -> bytes:
        return b"".join(self._pending)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
