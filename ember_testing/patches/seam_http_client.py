"""The seam of http.client, and of urllib3 and httplib2, which use it: requests, botocore, urllib.

The libraries themselves write the request and parse the response. For an answered request the
connection gets a socket that accepts all writes and delivers the answer's bytes; for a recorded
request, a socket that records what it receives. Connecting is deferred until the request is known:
`request` has all of it; a request sent by `putrequest`, `endheaders` and `send` is buffered until
its last byte is written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ember_testing.patches.exchange import (
    Exchange,
    answer_of,
    answerers,
    answerers_for,
    is_sending,
    sending,
)
from ember_testing.patches.http_bytes import ResponseParser
from ember_testing.patches.patch import Patch
from ember_testing.patches.sockets import (
    DeferredSocket,
    PendingRequest,
    RecordingSocket,
    ReplaySocket,
    finish_failed,
    refuse,
)
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from ember_testing.wires.body import Headers

__all__ = ["Seam"]

_PORTS = {"http": 80, "https": 443}


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
            if isinstance(deferred, DeferredSocket) and deferred.is_connecting:
                return original(connection)
            connection.sock = DeferredSocket(connection, partial(original, connection))
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
                if not isinstance(deferred, DeferredSocket):
                    deferred = DeferredSocket(connection, connection.connect, deferred)
                    connection.sock = deferred
                deferred.pending_request = PendingRequest(chosen, method, whole)

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
            if isinstance(connection.sock, ReplaySocket):  # its response was never read
                connection.close()
            whole = _url_of(connection, url)
            headers = {} if headers is None else headers
            answer: Response | Exchange | None = None
            if chosen := answerers_for(method, whole):
                body = _read(body)
                answer = answer_of(chosen, Request(method, whole, _pairs(headers), _bytes(body)))
            if isinstance(answer, Response):
                self._refuse(connection, answer)
                connection.close()
                connection.sock = ReplaySocket(connection, answer)
            try:
                with sending(method, whole):
                    result = original(connection, method, url, body, headers, **more)
            except BaseException as error:
                if isinstance(answer, Exchange):
                    finish_failed(answer, error)
                raise
            if isinstance(answer, Exchange):
                connection.sock = RecordingSocket(connection, ResponseParser(answer))
            return result

        return request

    def _refuse(self, connection: Any, answer: Response) -> None:
        """Raise an answer that is an error before anything is sent."""
        end = answer.end
        if self._has_errors and answer.status is None and isinstance(end, NetworkFailure):
            import urllib3.exceptions as errors  # already imported by the caller

            if end.error == "ConnectTimeout":
                raise errors.ConnectTimeoutError(connection, end.message)
            if end.error == "ConnectError":
                raise errors.NewConnectionError(connection, end.message)
        refuse(answer)


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
