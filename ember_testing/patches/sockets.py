"""Stand-ins for the socket of an `http.client` connection.

The library writes its request to them and reads its response from them, so that it parses a
replayed response as it does a live one.
"""

from __future__ import annotations

import errno
import io
import re
import socket
from typing import TYPE_CHECKING, Any

import h11

from ember_testing.patches.exchange import Answerer, Exchange, answer_of, sending
from ember_testing.patches.http_bytes import LARGEST_HEAD, ResponseParser, response_bytes
from ember_testing.patches.sleep import wait
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.wires.body import Headers

__all__ = [
    "DeferredSocket",
    "PendingRequest",
    "RecordingSocket",
    "ReplaySocket",
    "finish_failed",
    "refuse",
]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ERRNO = re.compile(r"^\[Errno (-?\d+)\] ")


def finish_failed(exchange: Exchange, error: BaseException) -> None:
    """Finish the exchange of a request that could not be sent."""
    if not isinstance(error, Exception):
        return exchange.finish("closed")  # interrupted
    connecting = "NewConnection" in type(error).__name__ or "SSL" in type(error).__name__
    if type(error).__name__ == "ConnectTimeoutError" or isinstance(error, TimeoutError):
        name = "ConnectTimeout"
    elif connecting or not isinstance(error, (ConnectionResetError, BrokenPipeError)):
        name = "ConnectError"
    else:
        name = "WriteError"
    message = str(error).rpartition(" object at 0x")[2].partition(">: ")[2] or str(error)
    return exchange.finish("failed", NetworkFailure(name, message))


def refuse(answer: Response) -> None:
    """Raise an answer that is an error before anything is sent, as a socket does."""
    if answer.status is not None:
        return
    if not isinstance(answer.end, NetworkFailure):
        raise answer.failure(_error)
    if answer.end.error.startswith("Connect"):
        raise _error(answer.end)


class _End(Exception):
    """The connection ends here, in the middle of the response."""


def _error(broken: NetworkFailure) -> Exception:
    """Return the exception that a socket raises where httpx would raise this one."""
    if broken.error == "RemoteProtocolError":
        return _End()
    if broken.error.endswith("Timeout"):
        return TimeoutError("timed out")
    number = _ERRNO.match(broken.message)
    refused = errno.ECONNREFUSED if broken.error == "ConnectError" else errno.ECONNRESET
    code = int(number[1]) if number else refused
    if code < 0:  # the host's name could not be resolved
        return socket.gaierror(code, _ERRNO.sub("", broken.message))
    return OSError(code, _ERRNO.sub("", broken.message))


class ReplaySocket:
    """Accepts a request and delivers the answer's bytes to its reader."""

    def __init__(self, connection: Any, answer: Response) -> None:
        self._connection = connection
        self._answer = answer
        self._patience: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._patience = seconds if isinstance(seconds, (int, float)) else None

    def gettimeout(self) -> float | None:
        return self._patience

    def sendall(self, data: Any, *arguments: Any) -> None:
        """Discard the data."""

    def setsockopt(self, *arguments: Any) -> None:
        """Do nothing."""

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def makefile(self, *arguments: Any, **named: Any) -> io.BufferedReader:
        """Return the response, and free the connection: the next request opens another socket."""
        self._connection.sock = None
        return io.BufferedReader(_ReplayFile(response_bytes(self._answer, self._patience, _error)))


class _ReplayFile(io.RawIOBase):
    """An answer's bytes, chunk by chunk."""

    def __init__(self, pieces: Iterator[tuple[float, bytes]]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._left:
            try:
                pause, self._left = next(self._pieces, (0.0, b""))
            except _End:
                return 0
            if pause > 0:
                wait(pause)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


class PendingRequest:
    """A request that is being written.

    Args:
        chosen: The answerers to ask about it.
        method: The request's method.
        url: The request's absolute URL.
    """

    def __init__(self, chosen: list[Answerer], method: str, url: str) -> None:
        self.method, self.url = method, url
        self.written = bytearray()
        self._chosen = chosen
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self._headers: Headers = ()
        self._body = bytearray()

    def write(self, data: Any) -> bool:
        """Add a part of the request; return whether it is complete."""
        data = bytes(memoryview(data))  # raises TypeError for a non-buffer, as a socket does
        self.written += data
        self._parser.receive_data(data)
        while not isinstance(event := self._parser.next_event(), type):
            if isinstance(event, h11.Request):
                self._headers = tuple(
                    (name.decode("latin-1"), HeaderValue(value.decode("latin-1")))
                    for name, value in event.headers.raw_items()
                )
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return True
        return False

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends the body only after `100 Continue`."""
        return self._parser.they_are_waiting_for_100_continue

    def answer(self) -> Response | Exchange | None:
        """Ask the answerers about the complete request."""
        __tracebackhide__ = True
        request = Request(self.method, self.url, self._headers, bytes(self._body))
        return answer_of(self._chosen, request)


class DeferredSocket:
    """A socket that connects when data must be sent or an attribute is used.

    Args:
        connection: The connection whose `sock` it is.
        connect: Connects the connection.
        live: The real socket, if already connected.
    """

    def __init__(self, connection: Any, connect: Callable[[], None], live: Any = None) -> None:
        self._connection = connection
        self._connect = connect
        self._live = live
        self.is_connecting = False
        self.pending_request: PendingRequest | None = None  # of which the next writes are parts
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._settings: list[Callable[[Any], None]] = []  # to apply once there is a socket
        seconds = connection.timeout if live is None else live.gettimeout()
        self._patience = seconds if isinstance(seconds, (int, float)) else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected(), name)

    def settimeout(self, seconds: float | None) -> None:
        self._set(lambda live: live.settimeout(seconds))
        self._patience = seconds

    def gettimeout(self) -> float | None:
        return self._patience

    def setsockopt(self, *arguments: Any) -> None:
        self._set(lambda live: live.setsockopt(*arguments))

    def _set(self, setting: Callable[[Any], None]) -> None:
        if self._live is None:
            self._settings.append(setting)
        else:
            setting(self._live)

    def fileno(self) -> int:
        """Return a descriptor that is readable if the client waits for `100 Continue`."""
        if self.pending_request is None:
            number: int = self._connected().fileno()
            return number
        if self._pair is None:
            self._pair = socket.socketpair()
            if self.pending_request.awaits_continue:
                self._pair[1].sendall(_CONTINUE)
        return self._pair[0].fileno()

    def _close_pair(self) -> None:
        for end in self._pair or ():
            end.close()
        self._pair = None

    def close(self) -> None:
        self.pending_request = None
        self._close_pair()
        if self._live is not None:
            self._live.close()

    def sendall(self, data: Any, *arguments: Any) -> None:
        __tracebackhide__ = True
        pending = self.pending_request
        if pending is None:
            self._connected().sendall(data, *arguments)
        else:
            try:
                is_whole = pending.write(data)
            except h11.RemoteProtocolError:  # no server would understand it: send it as is
                self.pending_request = None
                self._send(pending, None)
            else:
                if is_whole:
                    self._decide()

    def makefile(self, *arguments: Any, **named: Any) -> Any:
        """Return the response, even if the request is incomplete."""
        __tracebackhide__ = True
        if self.pending_request is not None and self.pending_request.awaits_continue:
            return io.BytesIO(_CONTINUE)
        if self.pending_request is None:
            self._connected()
        else:
            self._decide()
        return self._connection.sock.makefile(*arguments, **named)

    def _connected(self) -> Any:
        connection = self._connection
        if self._live is None:
            self.is_connecting = True
            try:
                self._connect()
            except BaseException:
                connection.sock = None
                raise
            self._live = connection.sock
            for setting in self._settings:
                setting(self._live)
        connection.sock = self._live
        return self._live

    def _decide(self) -> None:
        __tracebackhide__ = True
        pending, self.pending_request = self.pending_request, None
        assert pending is not None
        answer = pending.answer()
        if not isinstance(answer, Response):
            return self._send(pending, answer)
        refuse(answer)
        self.close()
        self._connection.sock = played = ReplaySocket(self._connection, answer)
        played.settimeout(self.gettimeout())
        return None

    def _send(self, pending: PendingRequest, exchange: Exchange | None) -> None:
        self._close_pair()
        try:
            with sending(pending.method, pending.url):
                self._connected().sendall(bytes(pending.written))
        except BaseException as error:
            if exchange is not None:
                finish_failed(exchange, error)
            raise
        if exchange is not None:
            self._connection.sock = RecordingSocket(self._connection, ResponseParser(exchange))


class RecordingSocket:
    """The connection's real socket, whose response is recorded."""

    def __init__(self, connection: Any, parser: ResponseParser) -> None:
        self._connection = connection
        self._socket = connection.sock
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def close(self) -> None:
        self._parser.closed()
        self._socket.close()

    def makefile(self, *arguments: Any, **named: Any) -> io.BufferedReader:
        """Return the response; the next response on this connection is another exchange."""
        self._connection.sock = self._socket
        return io.BufferedReader(_RecordingFile(self._socket.makefile("rb", 0), self._parser))


class _RecordingFile(io.RawIOBase):
    """A socket's file, whose data is passed to the parser as well."""

    def __init__(self, inner: Any, parser: ResponseParser) -> None:
        self._inner = inner
        self._parser = parser

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            count: int | None = self._inner.readinto(buffer)
        except TimeoutError as error:
            self._parser.broke(NetworkFailure("ReadTimeout", str(error)))
            raise
        except OSError as error:
            self._parser.broke(NetworkFailure("ReadError", str(error)))
            raise
        if count is not None:
            self._parser.receive(bytes(buffer[:count]))
        return count

    def close(self) -> None:
        if not self.closed:
            self._parser.closed()
            self._inner.close()
        super().close()
