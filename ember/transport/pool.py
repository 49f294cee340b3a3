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
from typing import Any, ClassVar, Generic, TypeVar

import anyio
import httpcore
import httpx

from ember.exceptions import ModelProviderError
from ember.transport.environment import limits, proxy_for, without_user
from ember.transport.tls import trusted

__all__ = ["AsyncPool", "Pool"]

_Connection = TypeVar(
    "_Connection", httpcore.ConnectionInterface, httpcore.AsyncConnectionInterface
)

# When a server closes an idle connection while a request is on its way to it, the client learns of
# it within a round trip. A connection that ends later may have carried the request to a model, and
# the answer may have been paid for: whether to send it again is for the caller to decide.
_ROUND_TRIP_SECONDS = 1.0


class _IdleConnections(Generic[_Connection]):
    """The idle connections to each origin, last used on top, and how a new one is made.

    Each step is a single operation on a deque, so that threads need no lock.
    """

    direct: ClassVar[Any]
    http_proxy: ClassVar[Any]
    socks_proxy: ClassVar[Any]
    through_proxy: ClassVar[Any]

    def __init__(self) -> None:
        self._limits = limits()
        self._origins: dict[object, deque[tuple[float, _Connection]]] = {}

    def pop(self, origin: object) -> _Connection | None:
        """The connection that was used last, if one is idle."""
        try:
            return self._origins[origin].pop()[1]
        except LookupError:
            return None

    def push(self, origin: object, connection: _Connection) -> list[_Connection]:
        """Keep a connection for the next request; the caller closes those that are returned."""
        idle = self._origins.get(origin)
        if idle is None:
            idle = self._origins.setdefault(origin, deque())
        now = time.monotonic()
        idle.append((now, connection))
        seconds, at_most = self._limits
        surplus: list[_Connection] = []
        try:
            while now - idle[0][0] >= seconds or len(idle) > at_most:
                surplus.append(idle.popleft()[1])
        except IndexError:  # another thread took the last one
            pass
        return surplus

    def clear(self) -> list[_Connection]:
        """Forget all connections; the caller closes them."""
        connections = [one for idle in tuple(self._origins.values()) for _, one in idle]
        self._origins.clear()
        return connections

    def connect(self, request: httpcore.Request) -> Any:
        """A new connection for a request, which opens it."""
        self._limits = limits()
        socket_path = _extension(request, "ember_unix_socket")
        if not (socket_path or _extension(request, "ember_address")):
            scheme, host = request.url.scheme.decode("ascii"), request.url.host.decode("ascii")
            url = httpx.URL(scheme=scheme, host=host, port=request.url.port)
            if (proxy := proxy_for(url)) is not None:
                return self._connect_through(proxy, url)
        return self.direct(
            request.url.origin, trusted(), self._limits.keepalive_seconds, uds=socket_path
        )

    def _connect_through(self, address: str, url: httpx.URL) -> Any:
        try:
            proxy = httpx.Proxy(address)
            options: dict[str, Any] = {
                "proxy_url": str(proxy.url),
                "proxy_auth": proxy.raw_auth,
                "ssl_context": trusted(),
                "max_connections": 1,
                "keepalive_expiry": self._limits.keepalive_seconds,
            }
            if proxy.url.scheme == "https":
                options["proxy_ssl_context"] = trusted()
            is_socks = proxy.url.scheme.startswith("socks")
            return self.through_proxy(
                (self.socks_proxy if is_socks else self.http_proxy)(**options)
            )
        except (RuntimeError, ValueError, httpx.InvalidURL) as error:
            raise ModelProviderError(
                f"the proxy {without_user(address)!r} cannot be used: {error}. "
                f"{url.scheme.upper()}_PROXY or ALL_PROXY names it; NO_PROXY={url.host} goes past "
                "it"
            ) from error


def _origin(request: httpcore.Request) -> object:
    """What the requests that may share a connection have in common.

    A server in this process is asked for its host and port here, so that a recorded or mocked
    answer does not start it.
    """
    if address := _extension(request, "ember_address"):
        host, port = address()
        target = request.url.target
        request.url = httpcore.URL(scheme=b"http", host=host, port=port, target=target)
    url = request.url
    return _extension(request, "ember_unix_socket") or (url.scheme, url.host, url.port)


def _extension(request: Any, name: str) -> Any:  # Any: httpcore does not type what it holds
    return request.extensions.get(name)


def _is_usable(
    connection: httpcore.ConnectionInterface | httpcore.AsyncConnectionInterface,
) -> bool:
    return connection.is_available() and not connection.has_expired()


def _was_closed_idle(error: Exception, started: float) -> bool:
    """Whether the server closed the connection before it saw the request that was sent on it."""
    if time.monotonic() - started > _ROUND_TRIP_SECONDS:
        return False
    if isinstance(error, httpcore.RemoteProtocolError):
        return "without sending a response" in str(error)  # else it sent something
    return isinstance(error, (httpcore.ReadError, httpcore.WriteError))


class _ThroughProxy:
    """A connection through a proxy: httpcore's pool for a proxy, with room for one connection.

    Mocks such as respx replace the `handle_request` of that pool.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def is_available(self) -> bool:
        return True

    def is_idle(self) -> bool:
        return all(one.is_idle() for one in self._pool.connections)

    def has_expired(self) -> bool:
        return any(one.has_expired() for one in self._pool.connections)


# --- sync ---------------------------------------------------------------------------------------


class _SyncThroughProxy(_ThroughProxy, httpcore.ConnectionInterface):
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        response: httpcore.Response = self._pool.handle_request(request)
        return response

    def close(self) -> None:
        self._pool.close()


class Pool(_IdleConnections[httpcore.ConnectionInterface]):
    """Stands where `httpx.HTTPTransport` has httpcore's pool, and has the methods it calls."""

    direct = httpcore.HTTPConnection
    http_proxy = httpcore.HTTPProxy
    socks_proxy = httpcore.SOCKSProxy
    through_proxy = _SyncThroughProxy

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request on an idle connection, or on a new one."""
        origin = _origin(request)
        while (connection := self.pop(origin)) is not None:
            if not _is_usable(connection):
                connection.close()
                continue
            started = time.monotonic()
            try:
                return self._send(request, connection, origin)
            except Exception as error:
                if not _was_closed_idle(error, started):
                    raise
                break
        return self._send(request, self.connect(request), origin)

    def _send(
        self, request: httpcore.Request, connection: httpcore.ConnectionInterface, origin: object
    ) -> httpcore.Response:
        try:
            response = connection.handle_request(request)
        except BaseException:
            connection.close()
            raise
        response.stream = _Body(self, origin, connection, response.stream)
        return response

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self.clear():
            connection.close()


class _Body:
    """The body of a response; closing it gives its connection back to the pool."""

    def __init__(
        self, pool: Pool, origin: object, connection: httpcore.ConnectionInterface, stream: Any
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: httpcore.ConnectionInterface | None = connection
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        surplus = [connection]
        try:
            self._stream.close()  # ends the connection, where the body was not read to its end
            if connection.is_idle():
                surplus = self._pool.push(self._origin, connection)
        finally:
            for one in surplus:
                one.close()


# --- async --------------------------------------------------------------------------------------


class _AsyncThroughProxy(_ThroughProxy, httpcore.AsyncConnectionInterface):
    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        response: httpcore.Response = await self._pool.handle_async_request(request)
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()


class AsyncPool(_IdleConnections[httpcore.AsyncConnectionInterface]):
    """`Pool` for one event loop."""

    direct = httpcore.AsyncHTTPConnection
    http_proxy = httpcore.AsyncHTTPProxy
    socks_proxy = httpcore.AsyncSOCKSProxy
    through_proxy = _AsyncThroughProxy

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request on an idle connection, or on a new one."""
        origin = _origin(request)
        while (connection := self.pop(origin)) is not None:
            if not _is_usable(connection):
                await _aclose(connection)
                continue
            started = time.monotonic()
            try:
                return await self._send(request, connection, origin)
            except Exception as error:
                if not _was_closed_idle(error, started):
                    raise
                break
        return await self._send(request, self.connect(request), origin)

    async def _send(
        self,
        request: httpcore.Request,
        connection: httpcore.AsyncConnectionInterface,
        origin: object,
    ) -> httpcore.Response:
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await _aclose(connection)
            raise
        response.stream = _AsyncBody(self, origin, connection, response.stream)
        return response

    async def aclose(self) -> None:
        """Close the idle connections."""
        for connection in self.clear():
            await _aclose(connection)


class _AsyncBody:
    """`_Body` for one event loop."""

    def __init__(
        self,
        pool: AsyncPool,
        origin: object,
        connection: httpcore.AsyncConnectionInterface,
        stream: Any,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: httpcore.AsyncConnectionInterface | None = connection
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        surplus = [connection]
        try:
            await self._stream.aclose()
            if connection.is_idle():  # it is not, where this task was cancelled again
                surplus = self._pool.push(self._origin, connection)
        finally:
            for one in surplus:
                await _aclose(one)


async def _aclose(connection: httpcore.AsyncConnectionInterface) -> None:
    with anyio.CancelScope(shield=True):  # a cancelled call closes its connection too
        await connection.aclose()
