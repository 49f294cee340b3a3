"""Decoding of a streamed answer's bytes to events; pure.

Event streams are read by the rules of the HTML standard (section 9.2.6): lines end only with CR, LF
or CRLF, not with U+2028 or U+0085, which may be unescaped inside a JSON string. Deviations of
providers from the standard are read too: a JSON array instead of an event stream, a whole JSON
object, raw JSON between two events, a last event without a blank line after it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Event", "EventDecoder"]

_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
# The tokens that matter inside a JSON object: a string, up to its first escape, and brackets.
_STRUCTURE = re.compile(rb'"[^"\\]*"?|[{\[]+|[}\]]+')
_STRING_END = re.compile(rb'["\\]')
# Bytes to keep of an answer that is not an event stream, to show what it was.
_STRAY_LIMIT = 2000


class Event(NamedTuple):
    """One event: its name ("" if the stream gives none) and its data."""

    name: str
    data: str


class EventDecoder:
    """Decodes the pieces of a streamed body, split anywhere, into events.

    After `finish`, `stray` is the beginning of the bytes that were neither events nor JSON.
    """

    def __init__(self) -> None:
        self.stray = b""
        # The beginning of a line, or of the body, in pieces: if they were joined at every piece,
        # a long line would be copied again and again.
        self._begun: list[bytes] = []
        self._after_cr = False
        self._started = False
        self._json: _JsonObjects | None = None
        self._raw: _JsonObjects | None = None
        self._raw_name = ""
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that this piece completes, in order."""
        if not piece:
            return []
        if not self._started:
            self._begun.append(piece)
            if piece.isspace() or not self._start():
                return []
            piece = self._take_begun()
        if self._json is not None:
            return [Event("", text) for text in self._json.feed(piece)]
        return self._feed_lines(piece)

    def finish(self) -> list[Event]:
        """Return the events that the end of the body completes."""
        events: list[Event] = []
        if not self._started:
            self._started = True
            self._after_cr = False
            events += self._feed_lines(self._take_begun())
        if self._json is not None:
            self._add_stray(self._json.rest())
            return events
        if line := self._take_begun():
            self._read_line(line, events)
        self._dispatch(events)
        if self._raw is not None:
            self._add_stray(self._raw.rest())
            self._raw = None
        return events

    def _start(self) -> bool:
        """Detect the kind of body; return False while its beginning is ambiguous."""
        head = b"".join(self._begun)
        if len(head) < len(_BOM) and _BOM.startswith(head):
            return False
        head = head.removeprefix(_BOM)
        self._begun = [head]
        first = head.lstrip()[:1]
        if not first:
            return False
        self._started = True
        if first in b"[{":
            self._json = _JsonObjects()
        return True

    def _take_begun(self) -> bytes:
        begun, self._begun = b"".join(self._begun), []
        return begun

    def _feed_lines(self, piece: bytes) -> list[Event]:
        if piece.startswith(b"data: ") and self._is_one_event(piece):
            return [Event("", _text(piece[6:-2]))]
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
            self._begun.append(piece)
            return events
        *lines, rest = (self._take_begun() + piece).split(b"\n")
        if rest:
            self._begun.append(rest)
        for line in lines:
            # Fast path: nearly all lines are one of these two.
            if self._raw is None and line.startswith(b"data: "):
                self._data.append(line[6:])
            elif self._raw is None and not line:
                self._dispatch(events)
            else:
                self._read_line(line, events)
        return events

    def _is_one_event(self, piece: bytes) -> bool:
        """Return whether this is exactly one event of one line, as most pieces are."""
        return (
            piece.find(b"\n") == len(piece) - 2
            and piece.endswith(b"\n\n")
            and b"\r" not in piece
            and not (self._begun or self._data or self._name or self._after_cr)
            and self._raw is None
        )

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
        events += [Event(self._raw_name, text) for text in self._raw.feed(line + b"\n")]
        if self._raw.balanced:
            self._raw = None

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            name = _text(self._name) if self._name else ""
            events.append(Event(name, _text(b"\n".join(self._data))))
            self._data.clear()
        self._name = b""

    def _add_stray(self, more: bytes) -> None:
        self.stray = (self.stray + more)[:_STRAY_LIMIT]


class _JsonObjects:
    """Extracts the outermost JSON objects from a body such as `[{...}, {...}]`."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # the open object, from earlier pieces
        self._brackets = 0  # open around the object
        self._depth = 0  # of nesting inside the object
        self._in_string = False
        self._escaped = False

    @property
    def balanced(self) -> bool:
        """Whether no object or bracket is open."""
        return not self._depth and self._brackets <= 0

    def feed(self, piece: bytes) -> list[str]:
        found: list[str] = []
        start = at = 0
        if self._escaped and piece:
            self._escaped, at = False, 1
        while at < len(piece):
            if not self._depth:
                brace = piece.find(b"{", at)
                outside = (at, brace if brace >= 0 else len(piece))
                self._brackets += piece.count(b"[", *outside) - piece.count(b"]", *outside)
                if brace < 0:
                    break
                start, at, self._depth = brace, brace + 1, 1
            elif self._in_string:
                at = self._read_string(piece, at)
            elif (end := self._read_object(piece, at)) is None:
                break
            else:
                at = end
                if not self._depth:
                    found.append(_text(b"".join([*self._begun, piece[start:end]])))
                    self._begun.clear()
        if self._depth:
            self._begun.append(piece[start:])
        return found

    def _read_string(self, piece: bytes, at: int) -> int:
        """Read on inside a string; return the next position, which may be beyond the piece."""
        match = _STRING_END.search(piece, at)
        if match is None:
            return len(piece)
        if match.group() == b'"':
            self._in_string = False
            return match.end()
        self._escaped = match.end() == len(piece)
        return match.end() + 1

    def _read_object(self, piece: bytes, at: int) -> int | None:
        """Read up to the end of the next string or run of brackets; return the position."""
        match = _STRUCTURE.search(piece, at)
        if match is None:
            return None
        first, count = piece[match.start()], match.end() - match.start()
        if first == ord('"'):
            self._in_string = count == 1 or piece[match.end() - 1] != first
        elif first in b"{[":
            self._depth += count
        else:
            closed = min(count, self._depth)
            self._depth -= closed
            return match.start() + closed
        return match.end()

    def rest(self) -> bytes:
        return b"".join(self._begun)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
