"""Connections: each carries one request at a time, and every wait ends at the call's deadline.

With a fixed timeout for each wait on a socket, a server that sends a byte now and then could keep a
call waiting for ever. Here each wait gets the time left until the deadline.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Protocol, TypeVar, cast

import httpcore

from ember.transport.http1 import Answer, request_head
from ember.transport.proxies import Handshake, Proxy, proxy_of
from ember.transport.tls import trusted

__all__ = ["AsyncConnection", "Connection", "Deadline", "Response"]

_SYNC = httpcore.SyncBackend()
# For asyncio and trio. The cast: pyright takes httpcore's fallback for a missing anyio.
_ASYNC = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
_READ_BYTES = 64 * 1024
_T = TypeVar("_T")


class Deadline(Protocol):
    """The deadlines of one call, as times of `time.monotonic`, and its timeouts.

    Attributes:
        connect: Timeout in seconds for opening a connection.
        end: Deadline of the whole call.
        next: Deadline of the current read; None if the wait has not begun.
        read: Timeout in seconds for each read, and for each write of the request.
    """

    connect: float
    end: float
    next: float | None
    read: float


class Response:
    """The response that httpx gets; an `httpcore.Response` would check each header again."""

    __slots__ = ("extensions", "headers", "status", "stream")

    def __init__(self, answer: Answer, stream: Any) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.stream = stream
        self.extensions = {"http_version": b"HTTP/1.1", "reason_phrase": answer.reason}


class _Link:
    """The part of a connection that does no I/O, shared by sync and async.

    Attributes:
        idle: Whether the response was read completely and another request may follow.
        sent: Whether the whole request was sent.
        round_trip: Seconds that the TCP handshake took; for async, including the name lookup.
    """

    _deadline: Deadline
    _answer: Answer

    def __init__(self, request: Any) -> None:  # Any: httpcore does not type extensions
        self.idle = self.sent = False
        self.round_trip = 0.0
        self._connect_end = math.inf
        self._unix_socket: str | None = request.extensions.get("ember_unix_socket")
        own = self._unix_socket is not None or "ember_address" in request.extensions
        self._proxy: Proxy | None = None if own else proxy_of(request.url)

    def begin(self, request: Any) -> bytes:
        """Start a request and return its head."""
        self._deadline = request.extensions["ember_deadline"]
        self._answer = Answer()
        self.idle = self.sent = False
        target, headers = request.url.target, request.headers
        if self._proxy is not None and self._proxy.handshake(request.url) is None:
            target, headers = self._proxy.forwarded(request.url, headers)
        return request_head(request.method, target, headers)

    def info(self) -> str:
        """Return the state for the repr of httpcore's connection."""
        return "HTTP/1.1, idle" if self.idle else "HTTP/1.1, in use"

    def start_connecting(self, url: httpcore.URL) -> tuple[str, int]:
        """Start the connect timeout; return the host and port to connect to.

        Raises:
            ModelProviderError: The trusted certificates cannot be read.
        """
        if url.scheme == b"https":
            trusted()  # raises before a socket is open
        self._connect_end = time.monotonic() + self._deadline.connect
        if self._proxy is not None:
            return self._proxy.host, self._proxy.port
        return url.host.decode("ascii"), url.port or (443 if url.scheme == b"https" else 80)

    def layers(self, url: httpcore.URL) -> Iterator[Handshake | str]:
        """Yield each layer to add to an open socket: a proxy's handshake, or a host for TLS."""
        if (proxy := self._proxy) is not None:
            if proxy.scheme == "https":
                yield proxy.host
            if (handshake := proxy.handshake(url)) is not None:
                yield handshake
        if url.scheme == b"https":
            yield url.host.decode("ascii")

    def to_connect(self) -> float | None:
        """Return the timeout for the next step of connecting."""
        return _seconds(min(self._connect_end, self._deadline.end), httpcore.ConnectTimeout)

    def to_write(self) -> float | None:
        """Return the timeout for the next write of the request."""
        deadline = self._deadline
        deadline.next = None
        end = min(time.monotonic() + deadline.read, deadline.end)
        return _seconds(end, httpcore.WriteTimeout)

    def to_read(self) -> float | None:
        """Return the timeout for the next read of the response."""
        deadline = self._deadline
        if deadline.next is None:
            deadline.next = min(time.monotonic() + deadline.read, deadline.end)
        return _seconds(deadline.next, httpcore.ReadTimeout)


def _seconds(end: float, expired: type[httpcore.TimeoutException]) -> float | None:
    left = end - time.monotonic()
    if left <= 0:
        raise expired("timed out")
    return None if left == math.inf else left


@contextmanager
def _failing_as_connect() -> Generator[None]:
    """Turn the errors of a handshake with a proxy into errors of connecting."""
    try:
        yield
    except (httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
        raise httpcore.ProxyError(str(error)) from error


# --- sync ---------------------------------------------------------------------------------------


class _SyncLink(_Link, httpcore.ConnectionInterface):
    _stream: httpcore.NetworkStream | None = None
    _socket: socket.socket | _TLSInTLS

    def handle_request(self, request: Any) -> Any:
        # A memoryview, since its repr hides the bytes: the request contains the key.
        data = memoryview(self.begin(request) + b"".join(request.stream))
        if self._stream is None:
            self._open(request.url)
        with suppress(httpcore.WriteError):  # a server may answer and close before reading it all
            self._write(data)
            self.sent = True
        pieces: Sequence[bytes] = ()
        while self._answer.status is None:
            pieces = self._answer.feed(self._read())
        return Response(self._answer, self._body(pieces))

    def _body(self, pieces: Sequence[bytes]) -> Iterator[bytes]:
        answer = self._answer
        yield from pieces
        while not answer.complete:
            yield from answer.feed(self._read())
        self.idle = answer.reusable and self.sent

    def is_stale(self) -> bool:
        """Return whether the server has closed it or sent unexpected bytes."""
        return self._stream is None or self._stream.get_extra_info("is_readable")

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _open(self, url: httpcore.URL) -> None:
        host, port = self.start_connecting(url)
        if self._unix_socket is not None:
            self._use(_SYNC.connect_unix_socket(self._unix_socket, self.to_connect()))
        else:
            self._use(self._connected(host, port))
        for layer in self.layers(url):
            if isinstance(layer, str):
                self._start_tls(layer)
            else:
                self._shake_hands(layer)

    def _use(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._socket = stream.get_extra_info("socket")

    def _connected(self, host: str, port: int) -> httpcore.NetworkStream:
        addresses = _resolve(host, port, self.to_connect())
        for position, address in enumerate(addresses, 1):
            left = self.to_connect()
            share = None if left is None else left / (len(addresses) - position + 1)
            started = time.monotonic()
            try:
                stream = _SYNC.connect_tcp(address, port, share, None, ())
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(addresses):
                    raise
            else:
                self.round_trip = time.monotonic() - started
                return stream
        raise httpcore.ConnectError(f"the host {host!r} has no address")

    def _start_tls(self, host: str) -> None:
        assert self._stream is not None
        seconds = self.to_connect()
        if not isinstance(self._socket, ssl.SSLSocket):
            self._use(self._stream.start_tls(trusted(), host, seconds))
            return
        try:
            self._socket = _TLSInTLS(self._socket, host, seconds)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    def _shake_hands(self, handshake: Handshake) -> None:
        assert self._stream is not None
        with _failing_as_connect(), suppress(StopIteration):
            send = next(handshake)
            while True:
                self._stream.write(send, self.to_connect())
                send = handshake.send(self._stream.read(_READ_BYTES, self.to_connect()))

    def _read(self) -> bytes:
        seconds = self.to_read()
        try:
            self._socket.settimeout(seconds)
            return self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def _write(self, data: memoryview) -> None:
        while data:
            seconds = self.to_write()
            try:
                self._socket.settimeout(seconds)
                sent = self._socket.send(data)
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error
            data = data[sent:]


class _TLSInTLS:
    """TLS to a server inside TLS to a proxy, with the methods of `ssl.SSLSocket`, which lacks this.

    Args:
        outer: The connection to the proxy.
        host: The server's name.
        seconds: Timeout of the handshake, or None.
    """

    def __init__(self, outer: ssl.SSLSocket, host: str, seconds: float | None) -> None:
        self._outer = outer
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusted().wrap_bio(self._received, self._to_send, server_hostname=host)
        self.settimeout(seconds)
        self._do(self._tls.do_handshake)

    def settimeout(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def recv(self, count: int) -> bytes:
        return self._do(lambda: self._tls.read(count))

    def send(self, data: bytes | memoryview) -> int:
        return self._do(lambda: self._tls.write(data))

    def _do(self, step: Callable[[], _T]) -> _T:
        while True:
            result: list[_T] = []
            with suppress(ssl.SSLWantReadError):
                result.append(step())
            self._set_timeout()
            self._outer.sendall(self._to_send.read())
            if result:
                return result[0]
            self._set_timeout()
            if data := self._outer.recv(_READ_BYTES):
                self._received.write(data)
            else:
                self._received.write_eof()

    def _set_timeout(self) -> None:
        left = None if self._end is None else self._end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self._outer.settimeout(left)


class Connection(httpcore.HTTPConnection):
    """A connection that opens with its first request.

    It is httpcore's class, since tools that intercept requests patch its `handle_request`.

    Raises:
        ModelProviderError: The proxy that the environment names cannot be used.
    """

    def __init__(self, request: httpcore.Request) -> None:
        super().__init__(request.url.origin)
        # Two private names of httpcore's: the inner connection, and a lock that is not needed for
        # one call at a time.
        self._connection = self.link = _SyncLink(request)
        self._request_lock: Any = nullcontext()


def _resolve(host: str, port: int, seconds: float | None) -> list[str]:
    """Return the addresses of a host.

    The system's resolver has its own timeouts, which may be longer: it runs in a thread, which is
    abandoned in that case.
    """
    found: list[str] = []
    failed: list[BaseException] = []

    def look_up() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                scope = f"%{address[3]}" if len(address) > 3 and address[3] else ""
                found.append(f"{address[0]}{scope}")
        except BaseException as error:  # raised again in the calling thread
            failed.append(error)

    if seconds is None or ":" in host or host[-1:].isdigit():
        look_up()
    else:
        thread = threading.Thread(target=look_up, name="ember-name-lookup", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise httpcore.ConnectTimeout(f"no answer to the lookup of {host!r}")
    for error in failed:
        if isinstance(error, OSError):
            raise httpcore.ConnectError(str(error)) from error
        raise error
    return found


# --- async --------------------------------------------------------------------------------------


class _AsyncLink(_Link, httpcore.AsyncConnectionInterface):
    _stream: httpcore.AsyncNetworkStream | None = None

    async def handle_async_request(self, request: Any) -> Any:
        data = memoryview(self.begin(request) + b"".join([part async for part in request.stream]))
        if self._stream is None:
            await self._open(request.url)
        with suppress(httpcore.WriteError):  # as above
            await self._write(data)
            self.sent = True
        pieces: Sequence[bytes] = ()
        while self._answer.status is None:
            pieces = self._answer.feed(await self._read())
        return Response(self._answer, _AsyncBody(self, pieces))

    async def more(self) -> Sequence[bytes]:
        """Return the next pieces of the body; at its end, an empty sequence."""
        answer = self._answer
        while not answer.complete:
            if pieces := answer.feed(await self._read()):
                return pieces
        self.idle = answer.reusable and self.sent
        return ()

    def is_stale(self) -> bool:
        """Return whether the server has closed it or sent unexpected bytes."""
        return self._stream is None or self._stream.get_extra_info("is_readable")

    async def aclose(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _open(self, url: httpcore.URL) -> None:
        host, port = self.start_connecting(url)
        if self._unix_socket is not None:
            seconds = self.to_connect()
            self._stream = await _ASYNC.connect_unix_socket(self._unix_socket, seconds)
        else:
            started = time.monotonic()
            self._stream = await _ASYNC.connect_tcp(host, port, self.to_connect())
            self.round_trip = time.monotonic() - started
        for layer in self.layers(url):
            if isinstance(layer, str):
                self._stream = await self._stream.start_tls(trusted(), layer, self.to_connect())
            else:
                await self._shake_hands(layer)

    async def _shake_hands(self, handshake: Handshake) -> None:
        assert self._stream is not None
        with _failing_as_connect(), suppress(StopIteration):
            send = next(handshake)
            while True:
                await self._stream.write(send, self.to_connect())
                send = handshake.send(await self._stream.read(_READ_BYTES, self.to_connect()))

    async def _read(self) -> bytes:
        assert self._stream is not None
        return await self._stream.read(_READ_BYTES, self.to_read())

    async def _write(self, data: Any) -> None:  # httpcore's types lack memoryview
        assert self._stream is not None
        await self._stream.write(data, self.to_write())


class _AsyncBody:
    """The body of a response; not a generator, which the event loop could close at any time."""

    def __init__(self, link: _AsyncLink, pieces: Sequence[bytes]) -> None:
        self._link = link
        self._pieces = iter(pieces)

    def __aiter__(self) -> _AsyncBody:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        self._pieces = iter(await self._link.more())
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class AsyncConnection(httpcore.AsyncHTTPConnection):
    """`Connection` for an event loop."""

    def __init__(self, request: httpcore.Request) -> None:
        super().__init__(request.url.origin)
        self._connection = self.link = _AsyncLink(request)
        self._request_lock: Any = nullcontext()
