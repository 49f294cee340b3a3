"""One connection: its sockets, whose waits end at a call's deadline, and how it is opened.

httpcore bounds each single wait for a socket: a server that sends one byte now and then could keep
a call waiting for ever. Here each wait gets what is left until the deadline.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol, cast

import httpcore
import httpx

from ember.exceptions import ModelProviderError
from ember.transport.environment import proxy_for, without_user
from ember.transport.tls import trusted

__all__ = ["AsyncConnection", "Connection", "Deadline", "aconnect", "connect"]

_SYNC = httpcore.SyncBackend()
# For asyncio and trio. The cast: pyright sees what httpcore has where anyio is missing.
_ASYNC = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
# A socket that can take anything takes a slice of this size at once.
_SLICE_BYTES = 16384


class Deadline(Protocol):
    """The moments at which one call's waits end, on the clock of `time.monotonic`.

    Attributes:
        end: For the whole of the call.
        next: For what the server is to send next; None if the wait has not begun.
        read: Seconds that this wait may take.
    """

    end: float
    next: float | None
    read: float


class _Waits:
    """How long the waits of one connection may be.

    Attributes:
        deadline: That of the call which uses the connection now.
        round_trip: Seconds that the TCP handshake took; for async code with the name lookup.
    """

    deadline: Deadline

    def __init__(self) -> None:
        self.round_trip = 0.0
        self._connect_end = math.inf

    def start_connecting(self, timeout: float | None) -> float | None:
        self._connect_end = math.inf if timeout is None else time.monotonic() + timeout
        return self.to_connect()

    def to_connect(self) -> float | None:
        end = min(self._connect_end, self.deadline.end)
        return _seconds(end, None, httpcore.ConnectTimeout)

    def to_write(self, timeout: float | None) -> float | None:
        self.deadline.next = None
        return _seconds(self.deadline.end, timeout, httpcore.WriteTimeout)

    def to_read(self, timeout: float | None) -> float | None:
        deadline = self.deadline
        if deadline.next is None:
            deadline.next = min(time.monotonic() + deadline.read, deadline.end)
        return _seconds(deadline.next, timeout, httpcore.ReadTimeout)


def _seconds(
    end: float, timeout: float | None, expired: type[httpcore.TimeoutException]
) -> float | None:
    left = end - time.monotonic()
    if left <= 0:
        raise expired("timed out")
    if timeout is None:
        return None if left == math.inf else left
    return min(left, timeout)


class _ProxyPool:
    """httpcore's pool for a proxy with room for one connection, in the place of a connection.

    The pool, because tools that intercept requests replace its `handle_request`.
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


class _Network(_Waits, httpcore.NetworkBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve(host, port, self.start_connecting(timeout))
        for position, address in enumerate(addresses, 1):
            left = self.to_connect()
            share = None if left is None else left / (len(addresses) - position + 1)
            started = time.monotonic()
            try:
                stream = _SYNC.connect_tcp(
                    address, port, share, local_address, socket_options or ()
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(addresses):
                    raise
            else:
                self.round_trip = time.monotonic() - started
                return _Stream(stream, self)
        raise httpcore.ConnectError(f"the host {host!r} has no address")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self.start_connecting(timeout)
        return _Stream(_SYNC.connect_unix_socket(path, seconds, socket_options), self)


def _resolve(host: str, port: int, seconds: float | None) -> list[str]:
    """The addresses of a host.

    The system's resolver has timeouts of its own, which may be longer: it is asked in a thread that
    is left behind in that case.
    """
    found: list[str] = []
    failed: list[BaseException] = []

    def look_up() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                scope = f"%{address[3]}" if len(address) > 3 and address[3] else ""
                found.append(f"{address[0]}{scope}")
        except BaseException as error:  # raised in the thread that waits
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


class _Stream(httpcore.NetworkStream):
    """A socket, read and written without the layers that httpcore's own stream goes through.

    Args:
        stream: httpcore's own, which does the rest.
        waits: Of its connection.
        is_plain: Whether what the socket carries is what is read and written: not with TLS in TLS.
    """

    def __init__(
        self, stream: httpcore.NetworkStream, waits: _Waits, is_plain: bool = True
    ) -> None:
        self._stream = stream
        self._waits = waits
        self._socket: socket.socket | None = stream.get_extra_info("socket") if is_plain else None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = self._waits.to_read(timeout)
        if self._socket is None:
            return self._stream.read(max_bytes, seconds)
        try:
            self._socket.settimeout(seconds)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        while buffer:
            seconds = self._waits.to_write(timeout)
            if self._socket is None:
                self._stream.write(buffer[:_SLICE_BYTES], seconds)
                buffer = buffer[_SLICE_BYTES:]
                continue
            try:
                self._socket.settimeout(seconds)
                sent = self._socket.send(buffer)
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error
            buffer = buffer[sent:]

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._waits.to_connect()
        is_plain = not isinstance(self._socket, ssl.SSLSocket)
        secured = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return _Stream(secured, self._waits, is_plain)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


class _Direct(httpcore.HTTPConnection):
    def __init__(self, network: _Network, **options: Any) -> None:
        super().__init__(network_backend=network, **options)
        self.network = network


class _ThroughProxy(_ProxyPool, httpcore.ConnectionInterface):
    def __init__(self, network: _Network, pool: Any) -> None:
        super().__init__(pool)
        self.network = network

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        response: httpcore.Response = self._pool.handle_request(request)
        return response

    def close(self) -> None:
        self._pool.close()


Connection = _Direct | _ThroughProxy


def connect(request: httpcore.Request, keepalive_seconds: float) -> Connection:
    """A connection that opens with its first request.

    Raises:
        ModelProviderError: The proxy that the environment names cannot be used.
    """
    network = _Network()
    kinds = (httpcore.HTTPProxy, httpcore.SOCKSProxy)
    pool = _proxy_pool(request, network, keepalive_seconds, *kinds)
    if pool is not None:
        return _ThroughProxy(network, pool)
    return _Direct(network, **_options(request, keepalive_seconds))


# --- async --------------------------------------------------------------------------------------


class _AsyncNetwork(_Waits, httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        seconds = self.start_connecting(timeout)
        started = time.monotonic()
        stream = await _ASYNC.connect_tcp(host, port, seconds, local_address, socket_options)
        self.round_trip = time.monotonic() - started
        return _AsyncStream(stream, self)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        seconds = self.start_connecting(timeout)
        return _AsyncStream(await _ASYNC.connect_unix_socket(path, seconds, socket_options), self)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, waits: _Waits) -> None:
        self._stream = stream
        self._waits = waits

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, self._waits.to_read(timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            await self._stream.write(buffer, self._waits.to_write(timeout))

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        seconds = self._waits.to_connect()
        stream = await self._stream.start_tls(ssl_context, server_hostname, seconds)
        return _AsyncStream(stream, self._waits)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _AsyncDirect(httpcore.AsyncHTTPConnection):
    def __init__(self, network: _AsyncNetwork, **options: Any) -> None:
        super().__init__(network_backend=network, **options)
        self.network = network


class _AsyncThroughProxy(_ProxyPool, httpcore.AsyncConnectionInterface):
    def __init__(self, network: _AsyncNetwork, pool: Any) -> None:
        super().__init__(pool)
        self.network = network

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        response: httpcore.Response = await self._pool.handle_async_request(request)
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()


AsyncConnection = _AsyncDirect | _AsyncThroughProxy


def aconnect(request: httpcore.Request, keepalive_seconds: float) -> AsyncConnection:
    """`connect` for an event loop."""
    network = _AsyncNetwork()
    kinds = (httpcore.AsyncHTTPProxy, httpcore.AsyncSOCKSProxy)
    pool = _proxy_pool(request, network, keepalive_seconds, *kinds)
    if pool is not None:
        return _AsyncThroughProxy(network, pool)
    return _AsyncDirect(network, **_options(request, keepalive_seconds))


# --- directly, or through a proxy ---------------------------------------------------------------


# Any: httpcore does not type what a request's extensions hold.
def _options(request: Any, keepalive_seconds: float) -> dict[str, Any]:
    return {
        "origin": request.url.origin,
        "ssl_context": trusted(),
        "keepalive_expiry": keepalive_seconds,
        "uds": request.extensions.get("ember_unix_socket"),
    }


def _proxy_pool(
    request: Any,
    network: _Network | _AsyncNetwork,
    keepalive_seconds: float,
    http_proxy: Any,
    socks_proxy: Any,
) -> Any:
    """The pool of httpcore for the proxy that the environment names, or None without a proxy."""
    if request.extensions.keys() & {"ember_address", "ember_unix_socket"}:
        return None
    scheme, host = request.url.scheme.decode("ascii"), request.url.host.decode("ascii")
    address = proxy_for(httpx.URL(scheme=scheme, host=host, port=request.url.port))
    if address is None:
        return None
    try:
        proxy = httpx.Proxy(address)
        options: dict[str, Any] = {
            "proxy_url": str(proxy.url),
            "proxy_auth": proxy.raw_auth,
            "ssl_context": trusted(),
            "max_connections": 1,
            "keepalive_expiry": keepalive_seconds,
            "network_backend": network,
        }
        if proxy.url.scheme.startswith("socks"):
            return socks_proxy(**options)
        if proxy.url.scheme == "https":
            options["proxy_ssl_context"] = trusted()
        return http_proxy(**options)
    except (RuntimeError, ValueError, httpx.InvalidURL) as error:
        raise ModelProviderError(
            f"the proxy {without_user(address)!r} cannot be used: {error}. "
            f"{scheme.upper()}_PROXY or ALL_PROXY names it; NO_PROXY={host} goes past it"
        ) from error
