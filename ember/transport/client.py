"""The connections of this process: one `Client`, and one `AsyncClient` an event loop.

Each client sends on a free list of one-connection transports: httpx's own pool scans all its
connections at every request, which makes a call dearer the more of them run at once. A connection
is made when none is idle, so there are never more than calls in flight.

What tests replace is httpx itself: `httpx.HTTPTransport.handle_request` and its async sibling for
what goes out on a connection, or respx's `httpx` mocker for a whole client.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import urllib.request
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

import httpx

from ember.exceptions import ModelProviderError
from ember.transport.tls import trusted

__all__ = ["UNIX_SOCKET", "LateURL", "async_client", "client", "proxy_for", "without_user"]

# The request extension that names a Unix socket.
UNIX_SOCKET = "ember_unix_socket"

if TYPE_CHECKING:
    from anyio.lowlevel import RunVar

    from ember.transport.one_connection import (
        AsyncOneConnection,
        AsyncThroughProxy,
        OneConnection,
        ThroughProxy,
    )

    _Sync = OneConnection | ThroughProxy
    _Awaited = AsyncOneConnection | AsyncThroughProxy

_Transport = TypeVar("_Transport", "_Sync", "_Awaited")


class _Keep(NamedTuple):
    """How long an idle connection is kept, and how many to one origin."""

    seconds: float
    at_most: float


def _kept_alive() -> _Keep:
    # Most load balancers close an idle connection after 60 s or more; httpx's default of 5 s would
    # make every call of a quiet program open a new one.
    return _Keep(
        _setting("EMBER_KEEPALIVE_SECONDS", 30.0), _setting("EMBER_MAX_IDLE_CONNECTIONS", 100.0)
    )


def _setting(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise ModelProviderError(
            f"{variable}={text!r} is not a number of 0 or more, such as {default:g}",
            {"variable": variable},
        )
    return value


class _Idle(Generic[_Transport]):
    """The idle transports to one origin, last used first.

    Taking and giving back are single operations on a deque, so that no lock is needed.
    """

    def __init__(self, awaited: bool) -> None:
        self._awaited = awaited
        self._keep = _kept_alive()
        self._transports: deque[tuple[float, _Transport]] = deque()

    def take(self, request: httpx.Request) -> tuple[_Transport, bool]:
        """An idle transport, or a new one; and whether it was used before."""
        try:
            return self._transports.pop()[1], True
        except IndexError:
            return self.new(request), False

    def give_back(self, transport: _Transport) -> _Transport | None:
        """Keep a transport for the next call; returns one that is to be closed, if any."""
        if not transport.is_free:  # its call was cancelled again while it gave up
            return transport
        now = time.monotonic()
        self._transports.append((now, transport))
        try:
            since, oldest = self._transports.popleft()
        except IndexError:  # another thread has taken it already
            return None
        if now - since >= self._keep.seconds or len(self._transports) >= self._keep.at_most:
            return oldest
        self._transports.appendleft((since, oldest))
        return None

    def clear(self) -> list[_Transport]:
        """Forget all; the caller closes them."""
        kept = [transport for _, transport in self._transports]
        self._transports.clear()
        return kept

    def new(self, request: httpx.Request) -> _Transport:
        """A transport without a connection yet."""
        self._keep = _kept_alive()
        unix_socket = request.extensions.get(UNIX_SOCKET)
        address = None if unix_socket else proxy_for(request.url)
        if address is not None:
            return self._through(address, request.url)
        # Late: it loads httpcore, as httpx itself does with its first transport.
        from ember.transport.one_connection import AsyncOneConnection, OneConnection, Options

        options = Options(trusted(), self._keep.seconds, unix_socket)
        made = AsyncOneConnection(options) if self._awaited else OneConnection(options)
        return cast("_Transport", made)

    def _through(self, proxy: str, url: httpx.URL) -> _Transport:
        from ember.transport.one_connection import AsyncThroughProxy, ThroughProxy  # late, as above

        one = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keep.seconds
        )
        kind = AsyncThroughProxy if self._awaited else ThroughProxy
        try:
            tls = trusted() if proxy.startswith("https:") else None
            through = httpx.Proxy(proxy, ssl_context=tls)
            made = kind(verify=trusted(), limits=one, proxy=through, trust_env=False)
            return cast("_Transport", made)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ModelProviderError(
                f"the proxy {without_user(proxy)!r} cannot be used: {error}. "
                f"{url.scheme.upper()}_PROXY or ALL_PROXY names it; NO_PROXY={url.host} goes past "
                "it"
            ) from error


class _FreeList(Generic[_Transport]):
    """Idle transports by origin."""

    def __init__(self, awaited: bool) -> None:
        self._awaited = awaited
        self._origins: dict[object, _Idle[_Transport]] = {}

    def to(self, request: httpx.Request) -> _Idle[_Transport]:
        """The transports to where a request goes."""
        url = request.url
        origin = request.extensions.get(UNIX_SOCKET) or (url.scheme, url.netloc)
        idle = self._origins.get(origin)
        if idle is None:
            idle = self._origins.setdefault(origin, _Idle(self._awaited))
        return idle

    def clear(self) -> list[_Transport]:
        """Forget all; the caller closes them."""
        kept: list[_Transport] = []
        for idle in tuple(self._origins.values()):
            kept.extend(idle.clear())
        return kept


# What is in flight when a server closes an idle connection is here within a round trip. Whatever
# ends later may have been worked on, and paid for: sending it again is the caller's to decide.
_ROUND_TRIP_SECONDS = 1.0


def _was_closed_idle(error: httpx.TransportError, started: float) -> bool:
    """Whether the server closed the connection before it saw the request that met it there."""
    if time.monotonic() - started > _ROUND_TRIP_SECONDS:
        return False
    if isinstance(error, httpx.RemoteProtocolError):
        return "without sending a response" in str(error)  # else it sent something
    return isinstance(error, (httpx.ReadError, httpx.WriteError))


class _Connections(httpx.BaseTransport):
    """Sends each request on an idle connection, or on a new one."""

    def __init__(self) -> None:
        self._free: _FreeList[_Sync] = _FreeList(awaited=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        idle = self._free.to(request)
        transport, used = idle.take(request)
        started = time.monotonic()
        try:
            try:
                response = transport.handle_request(request)
            except httpx.TransportError as error:
                if not (used and transport.reused and _was_closed_idle(error, started)):
                    raise
                transport.close()
                transport = idle.new(request)
                response = transport.handle_request(request)
        except BaseException:
            transport.close()
            raise
        stream = cast("httpx.SyncByteStream", response.stream)
        response.stream = _Stream(stream, transport, idle)
        return response

    def close(self) -> None:
        for transport in self._free.clear():
            transport.close()


class _Stream(httpx.SyncByteStream):
    """A body that gives its transport back when it is closed."""

    def __init__(
        self,
        stream: httpx.SyncByteStream,
        transport: _Sync,
        idle: _Idle[_Sync],
    ) -> None:
        self._stream = stream
        self._transport: _Sync | None = transport
        self._idle = idle

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            # Of a body that was not read to its end, this closes the connection.
            self._stream.close()
        except BaseException:
            transport.close()
            raise
        expired = self._idle.give_back(transport)
        if expired is not None:
            expired.close()


class _AsyncConnections(httpx.AsyncBaseTransport):
    """`_Connections` for one event loop."""

    def __init__(self) -> None:
        self._free: _FreeList[_Awaited] = _FreeList(awaited=True)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        idle = self._free.to(request)
        transport, used = idle.take(request)
        started = time.monotonic()
        try:
            try:
                response = await transport.handle_async_request(request)
            except httpx.TransportError as error:
                if not (used and transport.reused and _was_closed_idle(error, started)):
                    raise
                await transport.aclose()
                transport = idle.new(request)
                response = await transport.handle_async_request(request)
        except BaseException:
            await transport.aclose()
            raise
        stream = cast("httpx.AsyncByteStream", response.stream)
        response.stream = _AsyncStream(stream, transport, idle)
        return response

    async def aclose(self) -> None:
        for transport in self._free.clear():
            await transport.aclose()


class _AsyncStream(httpx.AsyncByteStream):
    """`_Stream` for an event loop."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        transport: _Awaited,
        idle: _Idle[_Awaited],
    ) -> None:
        self._stream = stream
        self._transport: _Awaited | None = transport
        self._idle = idle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            await self._stream.aclose()
        except BaseException:
            await transport.aclose()
            raise
        expired = self._idle.give_back(transport)
        if expired is not None:
            await expired.aclose()


# --- where to -----------------------------------------------------------------------------------


class LateURL(httpx.URL):
    """A URL whose host and port are found out when a connection is made.

    Args:
        url: All the rest of it.
        address: Asked for host and port.
    """

    def __init__(self, url: httpx.URL, address: Callable[[], tuple[str, int]]) -> None:
        super().__init__(url)
        self._address = address

    @property
    def raw_host(self) -> bytes:
        """See `httpx.URL`."""
        return self._address()[0].encode("ascii")

    @property
    def port(self) -> int:
        """See `httpx.URL`."""
        return self._address()[1]


def proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for this URL (`HTTPS_PROXY`, `NO_PROXY`, ...)."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or isinstance(url, LateURL):
        return None
    if urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def without_user(url: str) -> str:
    """A URL as a message may show it: user and query can hold a key."""
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


# --- one for the process, one for each event loop -----------------------------------------------


class Client(httpx.Client):
    """httpx's client, for calls that want neither redirects nor cookies nor its idea of auth."""

    def exchange(self, request: httpx.Request) -> httpx.Response:
        """Send a request as it is; the response's stream is to be read and closed.

        `Client.send` would do so too, for a tenth of what the whole call costs. Like it, this asks
        for the transport by the one method that mocks of a client replace.
        """
        return self._transport_for_url(request.url).handle_request(request)


class AsyncClient(httpx.AsyncClient):
    """`Client` for an event loop."""

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """See `Client.exchange`."""
        return await self._transport_for_url(request.url).handle_async_request(request)


_lock = threading.Lock()
_client: Client | None = None
_async_clients: RunVar[tuple[AsyncClient, AsyncGenerator[None]]] | None = None
# A forked child must neither use nor close what it shares with its parent.
_parents: list[object] = []


def client() -> Client:
    """The process's client."""
    global _client
    if _client is None:
        with _lock:
            if _client is None:
                _client = Client(transport=_Connections())
    return _client


async def async_client() -> AsyncClient:
    """The running event loop's client: a connection cannot be used from another loop."""
    held = _of_loops().get(None)
    if held is None:
        made = AsyncClient(transport=_AsyncConnections())
        closer = _close_with_loop(made)
        await closer.__anext__()
        _of_loops().set(held := (made, closer))
    return held[0]


def _of_loops() -> RunVar[tuple[AsyncClient, AsyncGenerator[None]]]:
    global _async_clients
    if _async_clients is None:
        # httpx itself depends on anyio, and loads it at its first asynchronous request.
        from anyio.lowlevel import RunVar

        with _lock:
            if _async_clients is None:
                _async_clients = RunVar("ember_async_client")
    return _async_clients


async def _close_with_loop(client: AsyncClient) -> AsyncGenerator[None]:
    # An event loop that ends closes the asynchronous generators that are still open in it: the
    # one hook that every loop offers.
    try:
        yield
    finally:
        await client.aclose()


def _close() -> None:
    if _client is not None:
        _client.close()


def _start_afresh() -> None:
    global _client, _async_clients, _lock
    _parents.extend((_client, _async_clients))
    _client = _async_clients = None
    _lock = threading.Lock()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
