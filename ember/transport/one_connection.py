"""httpx's transports on one connection of httpcore's, without the pool between them.

A pool with room for one costs a fifth of a call, of an awaited one a third, and a free list of
transports needs none. Everything else stays httpx's own, `handle_request` above all, which is what
recorders and mocks of other makers replace.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

import anyio
import httpcore
import httpx

__all__ = ["AsyncOneConnection", "AsyncThroughProxy", "OneConnection", "Options", "ThroughProxy"]


class Options(NamedTuple):
    """How a connection is made and kept.

    Args:
        tls: For https.
        keepalive_seconds: How long it may be idle.
        unix_socket: The path of a socket to go to instead of the URL's host, or None.
    """

    tls: ssl.SSLContext
    keepalive_seconds: float
    unix_socket: str | None


class OneConnection(httpx.HTTPTransport):
    """A transport for one request at a time.

    Args:
        options: How its connection is made.
    """

    def __init__(self, options: Options) -> None:
        # httpx has no other way in: all that it asks of what stands here is two methods.
        self._pool: Any = _Connection(options)

    @property
    def reused(self) -> bool:
        """Whether the last request went out on a connection that was there already."""
        return bool(self._pool.reused)

    @property
    def is_free(self) -> bool:
        """Whether another request may follow: no answer is half read."""
        return bool(self._pool.is_free)


class AsyncOneConnection(httpx.AsyncHTTPTransport):
    """`OneConnection` for an event loop."""

    def __init__(self, options: Options) -> None:
        self._pool: Any = _AsyncConnection(options)

    @property
    def reused(self) -> bool:
        """See `OneConnection.reused`."""
        return bool(self._pool.reused)

    @property
    def is_free(self) -> bool:
        """See `OneConnection.is_free`."""
        return bool(self._pool.is_free)


class ThroughProxy(httpx.HTTPTransport):
    """httpx's own transport for a proxy, which needs its pool, with room for one connection."""

    reused = True  # as far as one can tell

    @property
    def is_free(self) -> bool:
        """See `OneConnection.is_free`."""
        return all(map(_is_free, self._pool.connections))


class AsyncThroughProxy(httpx.AsyncHTTPTransport):
    """`ThroughProxy` for an event loop."""

    reused = True

    @property
    def is_free(self) -> bool:
        """See `OneConnection.is_free`."""
        return all(map(_is_free, self._pool.connections))


def _is_free(connection: Any) -> bool:
    return bool(connection.is_idle() or connection.is_closed())


class _Connection:
    """A connection, made when a request finds none that is still good."""

    def __init__(self, options: Options) -> None:
        self.reused = False
        self._options = options
        self._connection: httpcore.HTTPConnection | None = None

    @property
    def is_free(self) -> bool:
        return self._connection is None or _is_free(self._connection)

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        connection = self._connection
        self.reused = connection is not None and _is_good(connection, request)
        if connection is None or not self.reused:
            self.close()
            tls, seconds, unix_socket = self._options
            connection = self._connection = httpcore.HTTPConnection(
                request.url.origin, tls, seconds, uds=unix_socket
            )
        return connection.handle_request(request)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _AsyncConnection:
    """`_Connection` for an event loop."""

    def __init__(self, options: Options) -> None:
        self.reused = False
        self._options = options
        self._connection: httpcore.AsyncHTTPConnection | None = None

    @property
    def is_free(self) -> bool:
        return self._connection is None or _is_free(self._connection)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        connection = self._connection
        self.reused = connection is not None and _is_good(connection, request)
        if connection is None or not self.reused:
            await self.aclose()
            tls, seconds, unix_socket = self._options
            connection = self._connection = httpcore.AsyncHTTPConnection(
                request.url.origin, tls, seconds, uds=unix_socket
            )
        return await connection.handle_async_request(request)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):  # a cancelled call closes its connection too
                await connection.aclose()


def _is_good(
    connection: httpcore.HTTPConnection | httpcore.AsyncHTTPConnection, request: httpcore.Request
) -> bool:
    # The embedded model's server has another port after it was started anew.
    leads_there = connection.can_handle_request(request.url.origin)
    return leads_there and connection.is_available() and not connection.has_expired()
