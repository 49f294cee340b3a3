"""HTTP/1.1 without I/O: the bytes of a request, and what the bytes of its answer mean; pure.

As RFC 9112 has it for a client that sends one request at a time. h11, which httpcore uses, reads
the same answers and refuses the same ones; it takes five times as long, which was a third of what
a whole call cost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import httpcore

__all__ = ["Answer", "request_head"]

# What is not the body of an answer may have so many bytes.
_LONGEST_HEAD = 100 * 1024
_LONGEST_CHUNK_LINE = 16 * 1024

_NAME = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_REQUEST_HEAD = re.compile(
    rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:"
    + _NAME
    + rb": (?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?\r\n)*\r\n"
)
# Lines may end without \r, and a reason may be left out, as some servers do.
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([0-9]{3})(?: ([^\x00\n\r]*))?\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")  # a header that goes on in the next line
_HEADER_LINES = re.compile(rb"(?:" + _NAME + rb":[^\x00\n\r\f\v]*\r?\n)*")
_HEADER = re.compile(rb"([^:\n]+):([^\n]*)\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;.*)?[ \t]*")

Headers = Sequence[tuple[bytes, bytes]]


def request_head(method: bytes, target: bytes, headers: Headers) -> bytes:
    """What a request begins with: all but its body.

    Raises:
        httpcore.LocalProtocolError: A name or value is not valid in HTTP.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)
    # The count: a line break inside a value would make a header of what follows it.
    if head.count(b"\n") != len(headers) + 2 or not _REQUEST_HEAD.fullmatch(head):
        raise httpcore.LocalProtocolError("a header is not valid HTTP")
    return head


class Answer:
    """The answer to one request, read from the bytes that arrive.

    Attributes:
        status: None until the head is complete; then the attributes below are valid.
        reason: The words beside the status.
        headers: As they were sent.
        complete: Whether the body is, too.
        reusable: Whether the connection can carry another request then.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.reusable = False
        self._began = False
        self._head = bytearray()
        self._chunked = False
        self._line = b""  # of a chunked body, as far as it has come
        self._trailer_bytes: int | None = None  # None before the trailer
        self._length: int | None = None  # of the body; None where the connection's end is its end
        self._left = 0  # of the body, or of a chunk with the line break after it

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The pieces of the body in these bytes, as they were sent; b"" is the connection's end.

        Raises:
            httpcore.RemoteProtocolError: This is no answer, or it ended too early.
        """
        if self.status is None:
            data = self._read_head(data)
            if not data:
                return ()
        elif not data:
            self._end()
            return ()
        if self._chunked:
            return self._read_chunks(data)
        if self._length is None:
            return (data,)
        body = data[: self._left]
        self._left -= len(body)
        if not self._left:
            self._finish(len(data) > len(body))
        return (body,) if body else ()

    def _finish(self, more: bool) -> None:
        self.complete = True
        if more:  # bytes that nobody asked for: the next answer would not be told from them
            self.reusable = False

    def _end(self) -> None:
        if self.complete:
            return
        if self._chunked:
            raise _broken(
                "peer closed connection without sending complete message body (incomplete chunked "
                "read)"
            )
        if self._length is not None:
            raise _broken(
                "peer closed connection without sending complete message body (received "
                f"{self._length - self._left} bytes, expected {self._length})"
            )
        self.complete = True

    def _read_head(self, data: bytes) -> bytes:
        """Take bytes of the head; returns those behind it."""
        if not data:
            if self._began:
                raise _broken("the server closed the connection within the head of its answer")
            raise _broken("Server disconnected without sending a response.")
        self._began = True
        head, start = self._head, max(len(self._head) - 2, 0)
        head += data
        while True:
            if not head.startswith(b"HTTP/") and b"\n" in head:  # such as what an SSH server says
                raise _broken(f"illegal status line: {bytes(head[:40])!r}")
            end = _END_OF_HEAD.search(head, start)
            if (end.end() if end else len(head)) > _LONGEST_HEAD:
                raise _broken(f"the head of the answer is longer than {_LONGEST_HEAD} bytes")
            if end is None:
                return b""
            # The first line break is that of the last line.
            self._parse(bytes(head[: end.start() + 1]))
            rest = bytes(head[end.end() :])
            if self.status is not None:
                head.clear()
                return rest
            del head[: end.end()]  # an interim answer, such as 103: another one follows
            if not head:
                return b""
            start = 0

    def _parse(self, head: bytes) -> None:
        line = _STATUS_LINE.match(head)
        if line is None:
            raise _broken(f"illegal status line: {head.splitlines()[0][:100]!r}")
        lines = head[line.end() :]
        if b"\n " in lines or b"\n\t" in lines:
            lines = _FOLD.sub(b" ", lines)
        if not _HEADER_LINES.fullmatch(lines):
            raise _broken("illegal header line")
        status = int(line[2])
        if status == 101:
            raise _broken("the server switches protocols, which nobody asked for")
        if status < 200:
            return
        headers = [(name, value.strip(b" \t\r")) for name, value in _HEADER.findall(lines)]
        self.reason, self.headers = line[3] or b"", headers
        self._frame(status, line[1] >= b"1.1")
        self.status = status

    def _frame(self, status: int, persistent: bool) -> None:
        """Find out where the body ends, and whether the connection stays open."""
        length, codings = None, b""
        for name, value in self.headers:
            name = name.lower()
            if name == b"content-length":
                lengths = {part.strip(b" \t") for part in value.split(b",")}
                if length is not None:
                    lengths.add(length)
                length = lengths.pop()
                if lengths:
                    raise _broken("conflicting Content-Length headers")
                if not length.isdigit() or len(length) > 20:
                    raise _broken(f"bad Content-Length: {length[:40]!r}")
            elif name == b"transfer-encoding":
                codings = value.lower() if not codings else codings + b"," + value.lower()
            elif name == b"connection" and b"close" in value.lower():
                persistent = False
        if codings and codings != b"chunked":
            raise _broken(f"the transfer encoding {codings[:40]!r} was not asked for")
        if status in (204, 304):
            length, codings = b"0", b""
        self._chunked = bool(codings)
        if not codings and length is not None:
            self._length = self._left = int(length)
        self.reusable = persistent and (self._chunked or self._length is not None)
        self.complete = self._length == 0 and not self._chunked

    def _read_chunks(self, data: bytes) -> list[bytes]:
        if self._line:
            data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.complete:
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0 or (self._left == 2 and end > at):
                if len(data) - at > _LONGEST_CHUNK_LINE or (self._left and data[at:] != b"\r"):
                    raise _broken("illegal chunk")
                self._line = data[at:]
                break
            line, at = data[at:end], end + 2
            if self._left:
                self._left = 0  # the line break after a chunk
            else:
                self._read_line(line)
        if self.complete:
            self._finish(at < len(data))
        return pieces

    def _read_line(self, line: bytes) -> None:
        """Take a line that begins a chunk, or that stands in the trailer after the last one."""
        if self._trailer_bytes is not None:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _LONGEST_HEAD:
                raise _broken("the trailer of the answer is too long")
            if line and not _HEADER_LINES.fullmatch(line + b"\r\n"):
                raise _broken(f"illegal trailer: {line[:40]!r}")
            self.complete = not line
            return
        size = _CHUNK_LINE.fullmatch(line)
        if size is None:
            raise _broken(f"illegal chunk header: {line[:40]!r}")
        if length := int(size[1], 16):
            self._left = length + 2
        else:
            self._trailer_bytes = 0


def _broken(why: str) -> httpcore.RemoteProtocolError:
    return httpcore.RemoteProtocolError(why)
