"""Responses as HTTP/1.1 bytes: written for libraries that parse them, and recorded from the wire.

A library that owns a socket reads a replayed response with its own parser, as it does a live one.
The bytes of a live response are parsed again here, so that the chunks are those of the network.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from ember_testing.wires.response import NetworkFailure, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.patches.exchange import Exchange

__all__ = ["LARGEST_HEAD", "ResponseParser", "response_bytes"]

_NO_RESPONSE = "Server disconnected without sending a response."
_FRAMES = ("content-length", "transfer-encoding")
LARGEST_HEAD = 100 * 1024


def response_bytes(
    answer: Response, patience: float | None, error: Callable[[NetworkFailure], BaseException]
) -> Iterator[tuple[float, bytes]]:
    """Iterate over seconds to wait and the bytes that follow; raise `error`'s if it breaks off.

    Args:
        answer: The response.
        patience: Seconds that the caller waits for a chunk.
        error: Returns the exception that the caller's library would raise.
    """
    if answer.status is None:
        raise answer.failure(error)
    answer = _framed(answer)
    yield answer.delay, _head(answer)
    chunked = _says(answer, "transfer-encoding", "chunked")
    for pause, piece in answer.timed_pieces(patience, error):
        if piece:
            yield pause, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    if chunked:
        yield 0.0, b"0\r\n\r\n"


def _framed(answer: Response) -> Response:
    """Add a header that frames the body, which fakes and HTTP/2 responses lack."""
    if answer.status in (204, 304) or any(_says(answer, name) for name in _FRAMES):
        return answer
    if answer.end is None and _says(answer, "connection", "close"):
        return answer
    return answer._replace(headers=(*answer.headers, ("transfer-encoding", "chunked")))


def _says(answer: Response, header: str, value: str = "") -> bool:
    return any(k.lower() == header and value in v.lower() for k, v in answer.headers)


def _head(answer: Response) -> bytes:
    reason = answer.reason
    if reason is None:
        known = {status.value: status.phrase for status in HTTPStatus}
        reason = known.get(answer.status or 0, "")
    version = "HTTP/1.0" if answer.http_version == "HTTP/1.0" else "HTTP/1.1"
    lines = [f"{version} {answer.status} {reason}", *(f"{k}: {v}" for k, v in answer.headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class ResponseParser:
    """Records in an exchange the response bytes that a library reads.

    Args:
        exchange: The call.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        # The parser needs only the request's method.
        request = h11.Request(method=exchange.request.method, target="/", headers=[("host", "-")])
        self._parser.send(request)
        self._parser.send(h11.EndOfMessage())

    def receive(self, data: bytes) -> None:
        """Parse received bytes; empty bytes mean that the connection was closed."""
        if self._exchange.outcome:
            return
        if not data and self._exchange.status is None:
            self.broke(NetworkFailure("RemoteProtocolError", _NO_RESPONSE))
            return
        try:
            self._parser.receive_data(data)
            while not isinstance(event := self._parser.next_event(), type):
                self._handle(event)
                if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    break
        except h11.RemoteProtocolError as error:
            self.broke(NetworkFailure("RemoteProtocolError", str(error)))

    def _handle(self, event: h11.Event) -> None:
        if isinstance(event, h11.Response):
            pairs = event.headers.raw_items()
            self._exchange.head(
                event.status_code,
                tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs),
                f"HTTP/{event.http_version.decode('ascii')}",
                event.reason.decode("ascii", "replace"),
            )
        elif isinstance(event, h11.Data):
            self._exchange.piece(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._exchange.finish("complete")

    def broke(self, error: NetworkFailure) -> None:
        """Record that the connection broke."""
        self._exchange.finish("failed" if self._exchange.status is None else "cut", error)

    def closed(self) -> None:
        """Record that the library stopped reading."""
        self._exchange.finish("closed")
