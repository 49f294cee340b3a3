"""HTTP/1.1 without I/O: serializes requests and parses responses with h11.

h11, a dependency of httpx, is given a placeholder request: it would check each header separately,
which takes longer than everything done here, and its frames would hold the key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11
import httpcore

__all__ = ["Headers", "ResponseParser", "request_head"]

# Most bytes of a response's head, of a line between two chunks, and of the trailer.
_LONGEST_HEAD = 100 * 1024
_REQUEST_HEAD = re.compile(
    rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n"
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: (?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?\r\n)*\r\n"
)
_A_REQUEST = h11.Request(method=b"POST", target=b"/", headers=[(b"host", b"")])

Headers = Sequence[tuple[bytes, bytes]]


def request_head(method: bytes, target: bytes, headers: Headers) -> bytes:
    """Return the request line and the headers of a request.

    Raises:
        httpcore.LocalProtocolError: A name or value is not valid in HTTP.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)
    # The count: a line break inside a value would turn the rest of it into another header.
    if head.count(b"\n") != len(headers) + 2 or not _REQUEST_HEAD.fullmatch(head):
        raise httpcore.LocalProtocolError("a header is not valid HTTP")
    return head


class ResponseParser:
    """Parses the response to one request as its bytes arrive.

    Attributes:
        status: None until the head is complete.
        reason: The reason phrase.
        headers: Names and values as sent.
        complete: Whether the body is complete.
        reusable: Whether the connection can be reused; not if bytes follow the response.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.reason = b""
        self.headers: Headers = ()
        self.complete = self.reusable = False
        self._began = False
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._h11.send(_A_REQUEST)  # h11 then reads a response; the request's end is not needed

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Return the pieces of the body in these bytes, still encoded; b"" means end of file.

        Raises:
            httpcore.RemoteProtocolError: The response is invalid or incomplete.
        """
        if not data and not self._began:
            raise httpcore.RemoteProtocolError("Server disconnected without sending a response.")
        self._began = True
        parser = self._h11
        pieces: list[bytes] = []
        try:
            parser.receive_data(data)
            while (event := parser.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
                elif isinstance(event, h11.Response):
                    self.status, self.reason = event.status_code, event.reason
                    self.headers = event.headers.raw_items()
                elif isinstance(event, h11.EndOfMessage):
                    self.complete = True
                    is_done = parser.their_state is h11.DONE  # not if it is to be closed
                    self.reusable = is_done and parser.trailing_data == (b"", False)
                    break
        except h11.RemoteProtocolError as error:
            raise httpcore.RemoteProtocolError(str(error)) from error
        return pieces
