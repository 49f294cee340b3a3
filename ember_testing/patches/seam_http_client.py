"""The seam of http.client, and of urllib3 and httplib2, which use it: requests, botocore, urllib.

The libraries themselves write the request and parse the response. For an answered request the
connection gets a socket that accepts all writes and delivers the answer's bytes; for a recorded
request, a socket that records what it receives. Connecting is deferred until the request is known:
`request` has all of it; a request sent by `putrequest`, `endheaders` and `send` is buffered until
its last byte is written.
"""

from __future__ import annotations

import errno
import io
import re
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import h11

from ember_testing.patches.exchange import (
    Answerer,
    Exchange,
    answer_of,
    answerers,
    answerers_for,
    is_sending,
    sending,
)
from ember_testing.patches.http_bytes import LARGEST_HEAD, ResponseParser, response_bytes
from ember_testing.patches.patch import Patch
from ember_testing.patches.sleep import wait
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.wires.body import Headers

__all__ = ["Seam"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PORTS = {"http": 80, "https": 443}
_ERRNO = re.compile(r"^\[Errno (-?\d+)\] ")


class Seam:
    """The replaced methods of one library's connections.

    Args:
        library: `http.client`, or a library based on it: `urllib3.connection` or `httplib2`.
    """

    def __init__(self, library: Any) -> None:  # Any: urllib3 is not installed for every type check
        self._has_errors = library.__name__ == "urllib3.connection"
        if library.__name__ == "httplib2":
            # Overrides connect(), which is called before a request; the rest is http.client's.
            self.patches = [
                Patch(library.HTTPConnectionWithTimeout, "connect", self._defer_connect),
                Patch(library.HTTPSConnectionWithTimeout, "connect", self._defer_connect),
            ]
            return
        plain, secure = library.HTTPConnection, library.HTTPSConnection
        self.patches = [Patch(plain, "request", self._request)]
        if self._has_errors:
            # http.client connects when it sends; urllib3 connects earlier for TLS.
            self.patches += [Patch(each, "connect", self._connect) for each in (plain, secure)]
        else:
            self.patches += [
                Patch(plain, "putrequest", self._putrequest),
                Patch(plain, "connect", self._defer_connect),
                Patch(secure, "connect", self._defer_connect),
            ]

    def _connect(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def connect(connection: Any) -> None:
            if is_sending() or not answerers:
                return original(connection)
            # Anticipates the deferred connection, for urllib3's InsecureRequestWarning.
            connection.is_verified = getattr(connection, "cert_reqs", None) not in (0, "CERT_NONE")
            return None

        return connect

    def _defer_connect(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def connect(connection: Any) -> None:
            deferred = connection.sock
            if is_sending() or not answerers:
                return original(connection)
            if isinstance(deferred, _DeferredSocket) and deferred.is_connecting:
                return original(connection)
            connection.sock = _DeferredSocket(connection, partial(original, connection))
            return None

        return connect

    def _putrequest(self, original: Callable[..., None]) -> Callable[..., None]:
        def putrequest(
            connection: Any, method: str, url: str, *arguments: Any, **named: Any
        ) -> None:
            original(connection, method, url, *arguments, **named)  # rejects a malformed request
            whole = _url_of(connection, url)
            if chosen := answerers_for(method, whole):
                deferred = connection.sock
                if not isinstance(deferred, _DeferredSocket):
                    deferred = _DeferredSocket(connection, connection.connect, deferred)
                    connection.sock = deferred
                deferred.buffer_request(_Pending(self, chosen, method, whole))

        return putrequest

    def _request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def request(
            connection: Any,
            method: str,
            url: str,
            body: Any = None,
            headers: Any = None,
            **more: Any,
        ) -> Any:
            __tracebackhide__ = True
            if isinstance(connection.sock, _ReplaySocket):  # its response was never read
                connection.close()
            whole = _url_of(connection, url)
            headers = {} if headers is None else headers
            answer: Response | Exchange | None = None
            if chosen := answerers_for(method, whole):
                body = _read(body)
                answer = answer_of(chosen, Request(method, whole, _pairs(headers), _bytes(body)))
            if isinstance(answer, Response):
                self.refuse(connection, answer)
                connection.close()
                connection.sock = _ReplaySocket(connection, answer)
            try:
                with sending(method, whole):
                    result = original(connection, method, url, body, headers, **more)
            except BaseException as error:
                if isinstance(answer, Exchange):
                    self.failed(answer, error)
                raise
            if isinstance(answer, Exchange):
                connection.sock = _RecordingSocket(connection, ResponseParser(answer))
            return result

        return request

    def failed(self, exchange: Exchange, error: BaseException) -> None:
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

    def refuse(self, connection: Any, answer: Response) -> None:
        """Raise an answer that is an error before anything is sent."""
        if answer.status is None and not isinstance(answer.end, NetworkFailure):
            raise answer.failure(_error)
        if isinstance(answer.end, NetworkFailure) and answer.status is None:
            name, message = answer.end
            if self._has_errors and name in ("ConnectError", "ConnectTimeout"):
                import urllib3.exceptions as errors  # already imported by the caller

                if name == "ConnectTimeout":
                    raise errors.ConnectTimeoutError(connection, message)
                raise errors.NewConnectionError(connection, message)
            if name.startswith("Connect"):
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


class _ReplaySocket:
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


class _Pending:
    """A request that is being written.

    Args:
        seam: The seam of the library that writes it.
        chosen: The answerers to ask about it.
        method: The request's method.
        url: The request's absolute URL.
    """

    def __init__(self, seam: Seam, chosen: list[Answerer], method: str, url: str) -> None:
        self.seam = seam
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


class _DeferredSocket:
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
        self._pending: _Pending | None = None
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._settings: list[Callable[[Any], None]] = []  # to apply once there is a socket
        seconds = connection.timeout if live is None else live.gettimeout()
        self._patience = seconds if isinstance(seconds, (int, float)) else None

    def buffer_request(self, pending: _Pending) -> None:
        """Buffer the next writes as this request."""
        self._pending = pending

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
        if self._pending is None:
            number: int = self._connected().fileno()
            return number
        if self._pair is None:
            self._pair = socket.socketpair()
            if self._pending.awaits_continue:
                self._pair[1].sendall(_CONTINUE)
        return self._pair[0].fileno()

    def _close_pair(self) -> None:
        for end in self._pair or ():
            end.close()
        self._pair = None

    def close(self) -> None:
        self._pending = None
        self._close_pair()
        if self._live is not None:
            self._live.close()

    def sendall(self, data: Any, *arguments: Any) -> None:
        __tracebackhide__ = True
        pending = self._pending
        if pending is None:
            self._connected().sendall(data, *arguments)
        else:
            try:
                is_whole = pending.write(data)
            except h11.RemoteProtocolError:  # no server would understand it: send it as is
                self._pending = None
                self._send(pending, None)
            else:
                if is_whole:
                    self._decide()

    def makefile(self, *arguments: Any, **named: Any) -> Any:
        """Return the response, even if the request is incomplete."""
        __tracebackhide__ = True
        if self._pending is not None and self._pending.awaits_continue:
            return io.BytesIO(_CONTINUE)
        if self._pending is None:
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
        pending, self._pending = self._pending, None
        assert pending is not None
        answer = pending.answer()
        if not isinstance(answer, Response):
            return self._send(pending, answer)
        pending.seam.refuse(self._connection, answer)
        self.close()
        self._connection.sock = played = _ReplaySocket(self._connection, answer)
        played.settimeout(self.gettimeout())
        return None

    def _send(self, pending: _Pending, exchange: Exchange | None) -> None:
        self._close_pair()
        try:
            with sending(pending.method, pending.url):
                self._connected().sendall(bytes(pending.written))
        except BaseException as error:
            if exchange is not None:
                pending.seam.failed(exchange, error)
            raise
        if exchange is not None:
            self._connection.sock = _RecordingSocket(self._connection, ResponseParser(exchange))


class _RecordingSocket:
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


def _url_of(connection: Any, target: str) -> str:
    """Return the absolute URL of a request on a connection."""
    if "://" in target[:8]:
        return target  # the absolute URL in a request to a proxy
    scheme = "https" if connection.default_port == 443 else "http"
    # The server behind a proxy's tunnel, for which http.client has no public attribute.
    host = getattr(connection, "_tunnel_host", None) or connection.host
    port = (getattr(connection, "_tunnel_port", None) if host != connection.host else None) or (
        connection.port
    )
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    place = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{place}{target}"


def _read(body: Any) -> Any:
    """Return a body that can be read here and then sent."""
    if body is None or isinstance(body, (bytes, str, bytearray)) or type(body) is memoryview:
        return body
    if hasattr(body, "read"):
        return body.read()
    try:
        return memoryview(body).tobytes()  # the bytes of an array, not its items
    except TypeError:
        return b"".join([_bytes(piece) for piece in body])


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _pairs(headers: Any) -> Headers:
    return tuple((_text(name), HeaderValue(_text(value))) for name, value in headers.items())


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
