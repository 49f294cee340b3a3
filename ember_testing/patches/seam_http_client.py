"""The standard library's http.client, and urllib3 upon it: requests, botocore, urllib.

The libraries' own code makes the request and reads the response. Where a request is answered, the
connection gets a socket that takes all that is written and gives the answer's bytes; where one is
recorded, a socket that listens to what comes. Connections are put off until a request is known.
"""

from __future__ import annotations

import errno
import io
import re
from typing import TYPE_CHECKING, Any

from ember_testing.patches.exchange import (
    Exchange,
    answer_of,
    answerers,
    asked,
    is_sending,
    sending,
)
from ember_testing.patches.http_bytes import Listener, played_bytes
from ember_testing.patches.patch import Patch
from ember_testing.patches.sleep import wait
from ember_testing.wires.response import Broken, HeaderValue, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.wires.body import Headers

__all__ = ["Seam"]

_PORTS = {"http": 80, "https": 443}
_ERRNO = re.compile(r"^\[Errno (\d+)\] ")


class Seam:
    """The replaced methods of one library's connections.

    Args:
        library: `http.client` or `urllib3.connection`.
    """

    def __init__(self, library: Any) -> None:  # Any: urllib3 is not installed for every type check
        self._library = library
        self._has_errors = library.__name__ != "http.client"
        self.patches = [Patch(library.HTTPConnection, "request", self._request)]
        if self._has_errors:
            # http.client connects when it sends; urllib3 before that, where it speaks TLS.
            self.patches += [
                Patch(library.HTTPConnection, "connect", self._connect),
                Patch(library.HTTPSConnection, "connect", self._connect),
            ]

    def _connect(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def connect(connection: Any) -> None:
            if is_sending() or not answerers:
                return original(connection)
            # Said of the connection that is made when the request is sent, for urllib3's warning.
            connection.is_verified = getattr(connection, "cert_reqs", None) not in (0, "CERT_NONE")
            return None

        return connect

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
            if isinstance(connection.sock, _PlayedSocket):  # nobody asked for its response
                connection.close()
            whole = _url_of(connection, url)
            headers = {} if headers is None else headers
            answer: Response | Exchange | None = None
            if whom := asked(method, whole):
                body = _read(body)
                answer = answer_of(whom, Request(method, whole, _pairs(headers), _bytes(body)))
            if isinstance(answer, Response):
                self._play(connection, answer)
            try:
                with sending(method, whole):
                    result = original(connection, method, url, body, headers, **more)
            except BaseException as error:
                if isinstance(answer, Exchange):
                    self._failed(answer, error)
                raise
            if isinstance(answer, Exchange):
                connection.sock = _HeardSocket(connection, Listener(answer))
            return result

        return request

    def _failed(self, exchange: Exchange, error: BaseException) -> None:
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
        return exchange.finish("failed", Broken(name, message))

    def _play(self, connection: Any, answer: Response) -> None:
        if answer.status is None and not isinstance(answer.end, Broken):
            raise answer.failure(_error)
        if isinstance(answer.end, Broken) and answer.status is None:
            name, message = answer.end
            if self._has_errors and name in ("ConnectError", "ConnectTimeout"):
                import urllib3.exceptions as errors  # its user has loaded it

                if name == "ConnectTimeout":
                    raise errors.ConnectTimeoutError(connection, message)
                raise errors.NewConnectionError(connection, message)
            if name.startswith("Connect"):
                raise _error(answer.end)
        connection.close()
        connection.sock = _PlayedSocket(connection, answer)


class _End(Exception):
    """The connection ends here, in the middle of the response."""


def _error(broken: Broken) -> Exception:
    """What a socket raises where httpx would raise this."""
    if broken.error == "RemoteProtocolError":
        return _End()
    if broken.error.endswith("Timeout"):
        return TimeoutError("timed out")
    number = _ERRNO.match(broken.message)
    refused = errno.ECONNREFUSED if broken.error == "ConnectError" else errno.ECONNRESET
    code = int(number[1]) if number else refused
    return OSError(code, _ERRNO.sub("", broken.message))


class _PlayedSocket:
    """Takes a request, and gives the answer's bytes to its reader."""

    def __init__(self, connection: Any, answer: Response) -> None:
        self._connection = connection
        self._answer = answer
        self._patience: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._patience = seconds if isinstance(seconds, (int, float)) else None

    def gettimeout(self) -> float | None:
        return self._patience

    def sendall(self, data: Any, *arguments: Any) -> None:
        """Nobody reads it."""

    def setsockopt(self, *arguments: Any) -> None:
        """There is nothing to set."""

    def shutdown(self, how: int) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    def makefile(self, *arguments: Any, **named: Any) -> io.BufferedReader:
        """The response; the connection is free for the next request, which opens another one."""
        self._connection.sock = None
        return io.BufferedReader(_PlayedFile(played_bytes(self._answer, self._patience, _error)))


class _PlayedFile(io.RawIOBase):
    """An answer's bytes, piece by piece."""

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


class _HeardSocket:
    """The connection's own socket, whose response is listened to."""

    def __init__(self, connection: Any, listener: Listener) -> None:
        self._connection = connection
        self._socket = connection.sock
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def close(self) -> None:
        self._listener.closed()
        self._socket.close()

    def makefile(self, *arguments: Any, **named: Any) -> io.BufferedReader:
        """The response; the next one on this connection is another exchange's."""
        self._connection.sock = self._socket
        return io.BufferedReader(_HeardFile(self._socket.makefile("rb", 0), self._listener))


class _HeardFile(io.RawIOBase):
    """What a socket gives, and the listener gets as well."""

    def __init__(self, inner: Any, listener: Listener) -> None:
        self._inner = inner
        self._listener = listener

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            count: int | None = self._inner.readinto(buffer)
        except TimeoutError as error:
            self._listener.broke(Broken("ReadTimeout", str(error)))
            raise
        except OSError as error:
            self._listener.broke(Broken("ReadError", str(error)))
            raise
        if count is not None:
            self._listener.receive(bytes(buffer[:count]))
        return count

    def close(self) -> None:
        if not self.closed:
            self._listener.closed()
            self._inner.close()
        super().close()


def _url_of(connection: Any, target: str) -> str:
    """The whole URL that a connection is asked for."""
    if "://" in target[:8]:
        return target  # a proxy is asked for it
    scheme = "https" if connection.default_port == 443 else "http"
    # Behind a proxy's tunnel is the server; http.client has no public name for it.
    host = getattr(connection, "_tunnel_host", None) or connection.host
    port = (getattr(connection, "_tunnel_port", None) if host != connection.host else None) or (
        connection.port
    )
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    place = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{place}{target}"


def _read(body: Any) -> Any:
    """A body that can be looked at and then sent."""
    if body is None or isinstance(body, (bytes, str, bytearray)) or type(body) is memoryview:
        return body
    if hasattr(body, "read"):
        return body.read()
    try:
        return memoryview(body).tobytes()  # an array's bytes, not its items
    except TypeError:
        return b"".join([_bytes(piece) for piece in body])


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _pairs(headers: Any) -> Headers:
    return tuple((_text(name), HeaderValue(_text(value))) for name, value in headers.items())


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
