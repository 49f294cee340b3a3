"""A connection pool that finds an idle connection without a search.

httpcore's own pool looks through all its connections at the beginning and at the end of every
request, so that a call costs more the more calls run at once. This one keeps the idle connections
to each origin on a stack. A connection is opened when none is idle: there are never more
connections than calls in flight.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

import anyio
import httpcore

from ember.transport.bounds import idle_limits
from ember.transport.connection import AsyncConnection, Connection

__all__ = ["AsyncPool", "Pool"]

_Connection = TypeVar("_Connection", bound=Connection | AsyncConnection)

# When a server closes an idle connection while a request is on its way to it, the client learns of
# it within a round trip and the time that this machine takes to run the waiting thread. A
# connection that ends later may have carried the request to a model, and the answer may have been
# paid for: whether to send it again is for the caller to decide.
_SCHEDULING_SECONDS = 0.1
_LONGEST_ROUND_TRIP_SECONDS = 1.0


class _IdleConnections(Generic[_Connection]):
    """The idle connections to each origin, last used on top.

    Each step is a single operation on a deque, so that threads need no lock.
    """

    def __init__(self) -> None:
        self.limits = idle_limits()  # read again with each new connection
        self._origins: dict[object, deque[tuple[float, _Connection]]] = {}

    def pop(self, to: object) -> tuple[_Connection | None, bool]:
        """The connection that was used last, if one is idle; and whether it may be used again."""
        try:
            since, connection = self._origins[to].pop()
        except LookupError:
            return None, False
        expired = time.monotonic() - since >= self.limits.seconds
        return connection, not expired and not connection.link.is_stale()

    def push(self, to: object, connection: _Connection) -> list[_Connection]:
        """Keep a connection for the next request; the caller closes those that are returned."""
        idle = self._origins.get(to)
        if idle is None:
            idle = self._origins.setdefault(to, deque())
        now = time.monotonic()
        idle.append((now, connection))
        seconds, connections = self.limits
        surplus: list[_Connection] = []
        try:
            while now - idle[0][0] >= seconds or len(idle) > connections:
                surplus.append(idle.popleft()[1])
        except IndexError:  # another thread took the last one
            pass
        return surplus

    def clear(self) -> list[_Connection]:
        """Forget all connections; the caller closes them."""
        idle = [one for stack in tuple(self._origins.values()) for _, one in stack]
        self._origins.clear()
        return idle


def _route(request: Any) -> object:  # Any: httpcore does not type extensions
    """What the requests that may share a connection have in common.

    A server in this process is asked for its host and port here, so that an answer which needs no
    connection does not start it.
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
    """Whether the server closed a connection before it saw the request that was sent on it."""
    round_trip = min(connection.link.round_trip, _LONGEST_ROUND_TRIP_SECONDS)
    if time.monotonic() - sent > round_trip + _SCHEDULING_SECONDS:
        return False
    if isinstance(error, httpcore.RemoteProtocolError):
        return "without sending a response" in str(error)  # else it sent something
    return isinstance(error, (httpcore.ReadError, httpcore.WriteError))


# --- sync ---------------------------------------------------------------------------------------


class Pool:
    """Stands where `httpx.HTTPTransport` has httpcore's pool, and has the methods it calls."""

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
    """The body of a response; closing it gives its connection back to the pool."""

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
        reusable = connection.link.idle  # not where the body was not read to its end
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
    with anyio.CancelScope(shield=True):  # a cancelled call closes its connection too
        await connection.aclose()
