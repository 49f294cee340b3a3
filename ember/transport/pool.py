"""A connection pool that finds an idle connection without a search, and its connections.

httpcore's pool scans all its connections at the start and the end of each request, so the cost of
a call grows with the number of concurrent calls. This pool keeps the idle connections to each
origin on a stack, and opens a connection only if none is idle: there are never more connections
than calls in flight.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

import httpcore

from ember.transport.connect import (
    READ_BYTES,
    AsyncNetworkConnection,
    NetworkConnection,
    aclose,
    connect,
    connect_async,
)
from ember.transport.environment import number
from ember.transport.http1 import ResponseParser, request_head
from ember.transport.proxies import proxy_of

__all__ = ["AsyncPool", "Deadline", "Pool"]

# Loaded with the pool, not at the first error: that may be that no more files can be opened.
import_module("ember.transport.errors")

_NetworkConnection = TypeVar("_NetworkConnection", bound=NetworkConnection | AsyncNetworkConnection)

# If a server closes an idle connection while a request is in transit, the client notices within one
# round trip plus the time to schedule the waiting thread. If the connection breaks later, the
# request may have reached the model and be billed: only the caller can decide to send it again.
_SCHEDULING_SECONDS = 0.1
_LONGEST_ROUND_TRIP_SECONDS = 1.0


class Deadline(Protocol):
    """The timeouts of one call in seconds, and its deadlines as times of `time.monotonic`.

    With a timeout for each wait alone, a server that sends a byte now and then could keep a call
    waiting for ever: here each wait ends at the call's deadline.

    Attributes:
        connect: Timeout for opening a connection.
        read: Timeout for each read, and for each write of the request.
        end: Deadline of the whole call.
        read_end: Deadline of the current read; None if the wait has not begun.
    """

    connect: float
    read: float
    end: float
    read_end: float | None


def _start_connecting(deadline: Deadline) -> Callable[[], float | None]:
    """Start the timeout for connecting; return a function for the time left, in seconds."""
    end = min(time.monotonic() + deadline.connect, deadline.end)
    return lambda: _timeout(end - time.monotonic(), httpcore.ConnectTimeout)


def _write_timeout(deadline: Deadline) -> float | None:
    """Return the timeout for the next write of the request."""
    deadline.read_end = None
    return _timeout(min(deadline.read, deadline.end - time.monotonic()), httpcore.WriteTimeout)


def _read_timeout(deadline: Deadline) -> float | None:
    """Return the timeout for the next read of the response."""
    now = time.monotonic()
    if deadline.read_end is None:
        deadline.read_end = min(now + deadline.read, deadline.end)
    return _timeout(deadline.read_end - now, httpcore.ReadTimeout)


def _timeout(left: float, expired: type[httpcore.TimeoutException]) -> float | None:
    if left <= 0:
        raise expired("timed out")
    return None if left == math.inf else left


# --- connections --------------------------------------------------------------------------------


class _Response:
    """The response that httpx gets; an `httpcore.Response` would check each header again."""

    __slots__ = ("extensions", "headers", "status", "stream")

    def __init__(self, response: ResponseParser, stream: Any) -> None:
        self.status = response.status
        self.headers = response.headers
        self.stream = stream
        self.extensions = {"http_version": b"HTTP/1.1", "reason_phrase": response.reason}


class _HTTP11(Generic[_NetworkConnection]):
    """A connection that carries one request at a time; the part that does no I/O.

    Attributes:
        idle: Whether the last response was read completely and another request may follow.
        is_sent: Whether the last request was sent completely.
        network: The open connection; None before the first request and after the end.
    """

    network: _NetworkConnection | None = None

    def __init__(self, request: Any) -> None:  # Any: httpcore does not type extensions
        self.idle = self.is_sent = False
        origin, extensions = request.url.origin, request.extensions
        unix_socket = extensions.get("ember_unix_socket")
        is_local = unix_socket is not None or "ember_address" in extensions
        self._proxy = None if is_local else proxy_of(origin)
        self._target = (origin, unix_socket, self._proxy)

    def is_stale(self) -> bool:
        """Return whether the server has closed it or sent unexpected bytes."""
        return self.network is None or self.network.stream.get_extra_info("is_readable")

    def info(self) -> str:
        """Return the state for the repr of httpcore's connection."""
        return "HTTP/1.1, idle" if self.idle else "HTTP/1.1, in use"

    def _head(self, request: Any) -> bytes:
        target, headers = request.url.target, request.headers
        proxy = self._proxy
        if proxy is not None and proxy.handshake(request.url.origin) is None:
            target, headers = proxy.forwarded(request.url, headers)
        return request_head(request.method, target, headers)


class _SyncHTTP11(_HTTP11[NetworkConnection], httpcore.ConnectionInterface):
    def handle_request(self, request: Any) -> Any:
        self.idle = False
        deadline: Deadline = request.extensions["ember_deadline"]
        # A memoryview, since its repr hides the bytes: the request contains the key.
        data = memoryview(self._head(request) + b"".join(request.stream))
        if self.network is None:
            self.network = connect(*self._target, _start_connecting(deadline))
        socket = self.network.socket
        self.is_sent = _write_request(socket, data, deadline)
        received = _receive(socket, deadline)
        # Made after the wait: with many calls in flight, each object costs garbage collections.
        response = ResponseParser()
        pieces = response.feed(received)
        while response.status is None:
            pieces = response.feed(_receive(socket, deadline))
        return _Response(response, self._pieces(response, pieces, socket, deadline))

    def _pieces(
        self, response: ResponseParser, pieces: Sequence[bytes], socket: Any, deadline: Deadline
    ) -> Iterator[bytes]:
        yield from pieces
        while not response.complete:
            yield from response.feed(_receive(socket, deadline))
        self.idle = response.reusable and self.is_sent

    def close(self) -> None:
        network, self.network = self.network, None
        if network is not None:
            network.stream.close()


def _write_request(socket: Any, data: memoryview, deadline: Deadline) -> bool:
    """Send a request; return False if the server closed: it may have answered before the end."""
    while data:
        seconds = _write_timeout(deadline)
        try:
            socket.settimeout(seconds)
            data = data[socket.send(data) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError:
            return False
    return True


def _receive(socket: Any, deadline: Deadline) -> bytes:
    seconds = _read_timeout(deadline)
    try:
        socket.settimeout(seconds)
        received: bytes = socket.recv(READ_BYTES)
    except TimeoutError as error:
        raise httpcore.ReadTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ReadError(str(error)) from error
    return received


class _AsyncHTTP11(_HTTP11[AsyncNetworkConnection], httpcore.AsyncConnectionInterface):
    async def handle_async_request(self, request: Any) -> Any:
        self.idle = False
        deadline: Deadline = request.extensions["ember_deadline"]
        data: Any = memoryview(  # Any: httpcore's types lack memoryview
            self._head(request) + b"".join([part async for part in request.stream])
        )
        if self.network is None:
            self.network = await connect_async(*self._target, _start_connecting(deadline))
        stream = self.network.stream
        try:
            await stream.write(data, _write_timeout(deadline))
            self.is_sent = True
        except httpcore.WriteError:  # as in _write_request
            self.is_sent = False
        received = await stream.read(READ_BYTES, _read_timeout(deadline))
        response = ResponseParser()  # after the wait, as above
        pieces = response.feed(received)
        while response.status is None:
            pieces = response.feed(await stream.read(READ_BYTES, _read_timeout(deadline)))
        return _Response(response, _AsyncPieces(self, stream, response, pieces, deadline))

    async def aclose(self) -> None:
        network, self.network = self.network, None
        if network is not None:
            await network.stream.aclose()


class _AsyncPieces:
    """The pieces of a body; not a generator, which the event loop could close at any time."""

    def __init__(
        self,
        connection: _AsyncHTTP11,
        stream: httpcore.AsyncNetworkStream,
        response: ResponseParser,
        pieces: Sequence[bytes],
        deadline: Deadline,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._response = response
        self._pieces = iter(pieces)
        self._deadline = deadline

    def __aiter__(self) -> _AsyncPieces:
        return self

    async def __anext__(self) -> bytes:
        response = self._response
        while True:
            for piece in self._pieces:
                return piece
            if response.complete:
                self._connection.idle = response.reusable and self._connection.is_sent
                raise StopAsyncIteration
            received = await self._stream.read(READ_BYTES, _read_timeout(self._deadline))
            self._pieces = iter(response.feed(received))


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
        self._connection = self.http11 = _SyncHTTP11(request)
        self._request_lock: Any = nullcontext()


class AsyncConnection(httpcore.AsyncHTTPConnection):
    """`Connection` for an event loop."""

    def __init__(self, request: httpcore.Request) -> None:
        super().__init__(request.url.origin)
        self._connection = self.http11 = _AsyncHTTP11(request)
        self._request_lock: Any = nullcontext()


# --- idle connections ---------------------------------------------------------------------------


def _half_of_descriptors() -> float:
    """Return half the number of files that the process may open.

    A program that made a thousand calls at once gets all its connections back, and room to open
    files while they are idle.
    """
    try:
        most = os.sysconf("SC_OPEN_MAX")
    except (AttributeError, ValueError):  # Windows has no such limit
        most = -1
    return most // 2 if most >= 0 else math.inf


_Connection = TypeVar("_Connection", bound=Connection | AsyncConnection)


class _IdleConnections(Generic[_Connection]):
    """A stack of idle connections for each origin, last used on top.

    Threads need no lock: each step is a single operation on a deque.
    """

    def __init__(self) -> None:
        self.update_limits()
        self._origins: dict[object, deque[tuple[float, _Connection]]] = {}
        self._last_sweep = -math.inf

    def update_limits(self) -> None:
        """Read the limits from the environment, as with each new connection.

        Raises:
            ModelProviderError: A variable is not a number of 0 or more.
        """
        # Most load balancers close an idle connection after 60 s or more; with httpx's default of
        # 5 s a program that calls rarely would open a new one each time.
        self._seconds = number("EMBER_KEEPALIVE_SECONDS", 30.0)
        self._half_of_descriptors = _half_of_descriptors()
        self._most = number("EMBER_MAX_IDLE_CONNECTIONS", self._half_of_descriptors)

    def pop(self, key: object) -> tuple[_Connection | None, bool]:
        """Return the idle connection that was used last, or None, and whether it is usable."""
        try:
            since, connection = self._origins[key].pop()
        except LookupError:
            return None, False
        expired = time.monotonic() - since >= self._seconds
        return connection, not expired and not connection.http11.is_stale()

    def push(self, key: object, connection: _Connection) -> list[_Connection]:
        """Keep a connection for reuse; return those that the caller must close."""
        idle = self._origins.get(key)
        if idle is None:
            idle = self._origins.setdefault(key, deque())
        now = time.monotonic()
        idle.append((now, connection))
        if len(idle) > self._most:
            with suppress(IndexError):  # another thread took the last one
                return [idle.popleft()[1]]
        return self._expired(now) if now - self._last_sweep >= self._seconds else []

    def make_room(self) -> list[_Connection]:
        """Remove the oldest connection if a quarter of the descriptors is not enough for all.

        It is called before a connection is opened: otherwise bursts of calls to two servers would
        need all descriptors, half of them for the idle connections to the first.
        """
        stacks = tuple(self._origins.values())
        if sum(map(len, stacks)) > self._half_of_descriptors / 2:
            with suppress(IndexError, ValueError):  # other threads took them
                return [min(filter(None, stacks), key=lambda idle: idle[0][0]).popleft()[1]]
        return []

    def _expired(self, now: float) -> list[_Connection]:
        """Remove the expired connections to all origins, after a burst perhaps thousands."""
        self._last_sweep = now
        expired: list[_Connection] = []
        for idle in tuple(self._origins.values()):
            with suppress(IndexError):  # none is left
                while now - idle[0][0] >= self._seconds:
                    expired.append(idle.popleft()[1])
        return expired

    def clear(self) -> list[_Connection]:
        """Remove all connections and return them for the caller to close."""
        idle = [one for stack in tuple(self._origins.values()) for _, one in stack]
        self._origins.clear()
        return idle


def _connection_key(request: Any) -> object:  # Any: httpcore does not type extensions
    """Return the key of the connections that a request may use.

    A server in this process starts when it is asked for its address. That is done only here, so
    that an answer without a connection does not start it.
    """
    extensions = request.extensions
    if address := extensions.get("ember_address"):
        host, port = address()
        target = request.url.target
        request.url = httpcore.URL(scheme=b"http", host=host, port=port, target=target)
    url = request.url
    return extensions.get("ember_unix_socket") or (url.scheme, url.host, url.port)


def _last_idle_close(connection: Connection | AsyncConnection) -> float:
    """Return the time until which the close of an idle connection can be noticed, if sent on now.

    It is computed before the request: a connection that failed is closed, with its round trip gone.
    """
    network = connection.http11.network
    round_trip = min(network.round_trip if network else 0.0, _LONGEST_ROUND_TRIP_SECONDS)
    return time.monotonic() + round_trip + _SCHEDULING_SECONDS


def _was_closed_idle(error: Exception, last_idle_close: float) -> bool:
    """Return whether the server closed an idle connection before it received the request."""
    if time.monotonic() > last_idle_close:
        return False
    if isinstance(error, httpcore.RemoteProtocolError):
        return "without sending a response" in str(error)  # otherwise it sent something
    return isinstance(error, httpcore.ReadError)


# --- sync ---------------------------------------------------------------------------------------


class Pool:
    """A replacement for httpcore's pool in `httpx.HTTPTransport`."""

    def __init__(self) -> None:
        self.idle: _IdleConnections[Connection] = _IdleConnections()

    def handle_request(self, request: httpcore.Request) -> Any:
        """Send a request on an idle connection, or on a new one."""
        key = _connection_key(request)
        while True:
            connection, is_usable = self.idle.pop(key)
            if connection is None:
                break
            if not is_usable:
                connection.close()
                continue
            last_idle_close = _last_idle_close(connection)
            try:
                return self._send_on(request, connection, key)
            except Exception as error:
                if not _was_closed_idle(error, last_idle_close):
                    raise
                break
        self.idle.update_limits()
        for one in self.idle.make_room():
            one.close()
        return self._send_on(request, Connection(request), key)

    def _send_on(self, request: httpcore.Request, connection: Connection, key: object) -> Any:
        try:
            response: Any = connection.handle_request(request)
        except BaseException:
            connection.close()
            raise
        response.stream = _PooledBody(self, key, connection, response.stream)
        return response

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self.idle.clear():
            connection.close()


class _PooledBody:
    """The body of a response; closing it returns its connection to the pool."""

    def __init__(self, pool: Pool, key: object, connection: Connection, stream: Any) -> None:
        self._pool = pool
        self._key = key
        self._connection: Connection | None = connection
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = connection.http11.idle  # False if the body was not read completely
        for one in self._pool.idle.push(self._key, connection) if reusable else [connection]:
            one.close()


# --- async --------------------------------------------------------------------------------------


class AsyncPool:
    """`Pool` for one event loop."""

    def __init__(self) -> None:
        self.idle: _IdleConnections[AsyncConnection] = _IdleConnections()

    async def handle_async_request(self, request: httpcore.Request) -> Any:
        """Send a request on an idle connection, or on a new one."""
        key = _connection_key(request)
        while True:
            connection, is_usable = self.idle.pop(key)
            if connection is None:
                break
            if not is_usable:
                await aclose(connection)
                continue
            last_idle_close = _last_idle_close(connection)
            try:
                return await self._send_on(request, connection, key)
            except Exception as error:
                if not _was_closed_idle(error, last_idle_close):
                    raise
                break
        self.idle.update_limits()
        for one in self.idle.make_room():
            await aclose(one)
        return await self._send_on(request, AsyncConnection(request), key)

    async def _send_on(
        self, request: httpcore.Request, connection: AsyncConnection, key: object
    ) -> Any:
        try:
            response: Any = await connection.handle_async_request(request)
        except BaseException:
            await aclose(connection)
            raise
        response.stream = _AsyncPooledBody(self, key, connection, response.stream)
        return response

    async def aclose(self) -> None:
        """Close the idle connections."""
        for connection in self.idle.clear():
            await aclose(connection)


class _AsyncPooledBody:
    """`_PooledBody` for one event loop."""

    def __init__(
        self, pool: AsyncPool, key: object, connection: AsyncConnection, stream: Any
    ) -> None:
        self._pool = pool
        self._key = key
        self._connection: AsyncConnection | None = connection
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = connection.http11.idle
        for one in self._pool.idle.push(self._key, connection) if reusable else [connection]:
            await aclose(one)
