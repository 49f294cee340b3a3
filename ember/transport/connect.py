"""Opens sockets, through proxies and with TLS; each step gets the time left to connect."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import anyio
import httpcore

from ember.transport.proxies import Handshake, Proxy
from ember.transport.tls import ssl_context

__all__ = [
    "READ_BYTES",
    "AsyncNetworkConnection",
    "NetworkConnection",
    "aclose",
    "connect",
    "connect_async",
]

READ_BYTES = 64 * 1024
_SYNC = httpcore.SyncBackend()
# For asyncio and trio. The cast: pyright takes httpcore's fallback for a missing anyio.
_ASYNC = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
_T = TypeVar("_T")
# Returns the time left in seconds (None: unlimited), or raises ConnectTimeout.
_TimeLeft: TypeAlias = Callable[[], "float | None"]


def _layers(origin: httpcore.Origin, proxy: Proxy | None) -> Iterator[Handshake | str]:
    """Yield each layer to add to an open socket: a proxy's handshake, or a host for TLS."""
    if proxy is not None:
        if proxy.scheme == "https":
            yield proxy.host
        if (handshake := proxy.handshake(origin)) is not None:
            yield handshake
    if origin.scheme == b"https":
        yield origin.host.decode("ascii")


def _address(origin: httpcore.Origin, proxy: Proxy | None) -> tuple[str, int]:
    if proxy is not None:
        return proxy.host, proxy.port
    return origin.host.decode("ascii"), origin.port


class NetworkConnection(NamedTuple):
    """An open connection.

    Args:
        stream: To check and to close.
        socket: To read and to write.
        round_trip: Seconds that the TCP handshake took.
    """

    stream: httpcore.NetworkStream
    socket: socket.socket | _TLSInTLS
    round_trip: float = 0.0


class AsyncNetworkConnection(NamedTuple):
    """`NetworkConnection` for an event loop; `round_trip` includes the name lookup."""

    stream: httpcore.AsyncNetworkStream
    round_trip: float = 0.0


@contextmanager
def _connect_errors() -> Generator[None]:
    """Turn the errors of a handshake into errors of connecting."""
    try:
        yield
    except (httpcore.ReadTimeout, httpcore.WriteTimeout, TimeoutError) as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
        raise httpcore.ProxyError(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


# --- sync ---------------------------------------------------------------------------------------


def connect(
    origin: httpcore.Origin, unix_socket: str | None, proxy: Proxy | None, time_left: _TimeLeft
) -> NetworkConnection:
    """Open a connection to a server, by a socket's path or through a proxy if there is one.

    Raises:
        ModelProviderError: The trusted certificates cannot be read.
    """
    if origin.scheme == b"https":
        ssl_context()  # raises before a socket is open
    if unix_socket is not None:
        network = _network_connection(_SYNC.connect_unix_socket(unix_socket, time_left()))
    else:
        network = _connect_tcp(*_address(origin, proxy), time_left)
    stream = network.stream
    try:
        for layer in _layers(origin, proxy):
            if not isinstance(layer, str):
                _shake_hands(network.stream, layer, time_left)
            elif isinstance(network.socket, ssl.SSLSocket):
                with _connect_errors():
                    tls = _TLSInTLS(network.socket, layer, time_left())
                network = network._replace(socket=tls)
            else:
                stream = network.stream.start_tls(ssl_context(), layer, time_left())
                network = _network_connection(stream, network.round_trip)
    except BaseException:
        stream.close()
        raise
    return network


def _network_connection(
    stream: httpcore.NetworkStream, round_trip: float = 0.0
) -> NetworkConnection:
    return NetworkConnection(stream, stream.get_extra_info("socket"), round_trip)


def _connect_tcp(host: str, port: int, time_left: _TimeLeft) -> NetworkConnection:
    """Connect to the first address of a host that answers in its share of the time."""
    addresses = _resolve(host, port, time_left())
    for position, address in enumerate(addresses, 1):
        left = time_left()
        share = None if left is None else left / (len(addresses) - position + 1)
        started = time.monotonic()
        try:
            stream = _SYNC.connect_tcp(address, port, share, None, ())
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            if position == len(addresses):
                raise
        else:
            return _network_connection(stream, time.monotonic() - started)
    raise httpcore.ConnectError(f"the host {host!r} has no address")


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


def _shake_hands(stream: httpcore.NetworkStream, handshake: Handshake, left: _TimeLeft) -> None:
    with _connect_errors(), suppress(StopIteration):
        send = next(handshake)
        while True:
            stream.write(send, left())
            send = handshake.send(stream.read(READ_BYTES, left()))


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
        self._tls = ssl_context().wrap_bio(self._received, self._to_send, server_hostname=host)
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
            if data := self._outer.recv(READ_BYTES):
                self._received.write(data)
            else:
                self._received.write_eof()

    def _set_timeout(self) -> None:
        left = None if self._end is None else self._end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self._outer.settimeout(left)


# --- async --------------------------------------------------------------------------------------


async def connect_async(
    origin: httpcore.Origin, unix_socket: str | None, proxy: Proxy | None, time_left: _TimeLeft
) -> AsyncNetworkConnection:
    """`connect` without blocking the event loop."""
    if origin.scheme == b"https":
        ssl_context()  # as above
    started = time.monotonic()
    if unix_socket is not None:
        stream = await _ASYNC.connect_unix_socket(unix_socket, time_left())
    else:
        stream = await _ASYNC.connect_tcp(*_address(origin, proxy), time_left())
    round_trip = time.monotonic() - started
    try:
        for layer in _layers(origin, proxy):
            if isinstance(layer, str):
                stream = await stream.start_tls(ssl_context(), layer, time_left())
            else:
                await _shake_hands_async(stream, layer, time_left)
    except BaseException:
        await aclose(stream)
        raise
    return AsyncNetworkConnection(stream, round_trip)


async def _shake_hands_async(
    stream: httpcore.AsyncNetworkStream, handshake: Handshake, left: _TimeLeft
) -> None:
    with _connect_errors(), suppress(StopIteration):
        send = next(handshake)
        while True:
            await stream.write(send, left())
            send = handshake.send(await stream.read(READ_BYTES, left()))


async def aclose(stream: Any) -> None:
    """Close a stream or a connection, even if the call was cancelled."""
    with anyio.CancelScope(shield=True):
        await stream.aclose()
