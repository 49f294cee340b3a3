"""A connection pool that finds an idle connection without a search.

httpcore's pool scans all its connections at the start and the end of each request, so the cost of
a call grows with the number of concurrent calls. This pool keeps the idle connections to each
origin on a stack, and opens a connection only if none is idle: there are never more connections
than calls in flight.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
import httpcore

from ember.transport.bounds import idle_limits
from ember.transport.connection import AsyncConnection, Connection

__all__ = ["AsyncPool", "Pool"]

_Connection = TypeVar("_Connection", bound=Connection | AsyncConnection)

# If a server closes an idle connection while a request is in transit, the client notices within one
# round trip plus the time to schedule the waiting thread. If the connection breaks later, the
# request may have reached the model and be billed: only the caller can decide to send it again.
_SCHEDULING_SECONDS = 0.1
_LONGEST_ROUND_TRIP_SECONDS = 1.0


class _IdleConnections(Generic[_Connection]):
    """A stack of idle connections for each origin, last used on top.

    Threads need no lock: each step is a single operation on a deque.
    """

    def __init__(self) -> None:
        self.limits = idle_limits()  # updated with each new connection
        self._origins: dict[object, deque[tuple[float, _Connection]]] = {}
        self._last_sweep = -math.inf

    def pop(self, to: object) -> tuple[_Connection | None, bool]:
        """Return the idle connection that was used last, or None, and whether it is usable."""
        try:
            since, connection = self._origins[to].pop()
        except LookupError:
            return None, False
        expired = time.monotonic() - since >= self.limits.seconds
        return connection, not expired and not connection.link.is_stale()

    def push(self, to: object, connection: _Connection) -> list[_Connection]:
        """Keep a connection for reuse; return those that the caller must close."""
        idle = self._origins.get(to)
        if idle is None:
            idle = self._origins.setdefault(to, deque())
        now = time.monotonic()
        idle.append((now, connection))
        if len(idle) > self.limits.connections:
            with suppress(IndexError):  # another thread took the last one
                return [idle.popleft()[1]]
        return self._expired(now) if now - self._last_sweep >= self.limits.seconds else []

    def _expired(self, now: float) -> list[_Connection]:
        """Remove the expired connections to all origins, after a burst perhaps thousands."""
        seconds = self.limits.seconds
        self._last_sweep = now
        expired: list[_Connection] = []
        for idle in tuple(self._origins.values()):
            with suppress(IndexError):  # none is left
                while now - idle[0][0] >= seconds:
                    expired.append(idle.popleft()[1])
        return expired

    def clear(self) -> list[_Connection]:
        """Remove all connections and return them for the caller to close."""
        idle = [one for stack in tuple(self._origins.values()) for _, one in stack]
        self._origins.clear()
        return idle


def _route(request: Any) -> object:  # Any: httpcore does not type extensions
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


def _was_closed_idle(
    error: Exception, connection: Connection | AsyncConnection, sent: float
) -> bool:
    """Return whether the server closed an idle connection before it received the request."""
    round_trip = min(connection.link.round_trip, _LONGEST_ROUND_TRIP_SECONDS)
    if time.monotonic() - sent > round_trip + _SCHEDULING_SECONDS:
        return False
    if isinstance(error, httpcore.RemoteProtocolError):
        return "without sending a response" in str(error)  # otherwise it sent something
    return isinstance(error, (httpcore.ReadError, httpcore.WriteError))


# --- sync ---------------------------------------------------------------------------------------


class Pool:
    """A replacement for httpcore's pool in `httpx.HTTPTransport`."""

    def __init__(self) -> None:
        self.idle: _IdleConnections[Connection] = _IdleConnections()

    def handle_request(self, request: httpcore.Request) -> Any:
        """Send a request on an idle connection, or on a new one."""
        to = _route(request)
        while True:
            connection, is_usable = self.idle.pop(to)
            if connection is None:
                break
            if not is_usable:
                connection.close()
                continue
            sent = time.monotonic()
            try:
                return self._send(request, connection, to)
            except Exception as error:
                if not _was_closed_idle(error, connection, sent):
                    raise
                break
        self.idle.limits = idle_limits()
        return self._send(request, Connection(request), to)

    def _send(self, request: httpcore.Request, connection: Connection, to: object) -> Any:
        try:
            response: Any = connection.handle_request(request)
        except BaseException:
            connection.close()
            raise
        response.stream = _Body(self, to, connection, response.stream)
        return response

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self.idle.clear():
            connection.close()


class _Body:
    """The body of a response; closing it returns its connection to the pool."""

    def __init__(self, pool: Pool, to: object, connection: Connection, stream: Any) -> None:
        self._pool = pool
        self._to = to
        self._connection: Connection | None = connection
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = connection.link.idle  # False if the body was not read completely
        for one in self._pool.idle.push(self._to, connection) if reusable else [connection]:
            one.close()


# --- async --------------------------------------------------------------------------------------


class AsyncPool:
    """`Pool` for one event loop."""

    def __init__(self) -> None:
        self.idle: _IdleConnections[AsyncConnection] = _IdleConnections()

    async def handle_async_request(self, request: httpcore.Request) -> Any:
        """Send a request on an idle connection, or on a new one."""
        to = _route(request)
        while True:
            connection, is_usable = self.idle.pop(to)
            if connection is None:
                break
            if not is_usable:
                await _aclose(connection)
                continue
            sent = time.monotonic()
            try:
                return await self._send(request, connection, to)
            except Exception as error:
                if not _was_closed_idle(error, connection, sent):
                    raise
                break
        self.idle.limits = idle_limits()
        return await self._send(request, AsyncConnection(request), to)

    async def _send(
        self, request: httpcore.Request, connection: AsyncConnection, to: object
    ) -> Any:
        try:
            response: Any = await connection.handle_async_request(request)
        except BaseException:
            await _aclose(connection)
            raise
        response.stream = _AsyncBody(self, to, connection, response.stream)
        return response

    async def aclose(self) -> None:
        """Close the idle connections."""
        for connection in self.idle.clear():
            await _aclose(connection)


class _AsyncBody:
    """`_Body` for one event loop."""

    def __init__(
        self, pool: AsyncPool, to: object, connection: AsyncConnection, stream: Any
    ) -> None:
        self._pool = pool
        self._to = to
        self._connection: AsyncConnection | None = connection
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = connection.link.idle
        for one in self._pool.idle.push(self._to, connection) if reusable else [connection]:
            await _aclose(one)


async def _aclose(connection: AsyncConnection) -> None:
    with anyio.CancelScope(shield=True):  # closes it even if the call was cancelled
        await connection.aclose()
