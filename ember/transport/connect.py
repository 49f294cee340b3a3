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
    "Target",
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


class Target(NamedTuple):
    """What to connect to.

    Args:
        origin: The server.
        unix_socket: The path of the server's socket, or None for TCP.
        proxy: The proxy to go through, or None.
    """

    origin: httpcore.Origin
    unix_socket: str | None
    proxy: Proxy | None

    def load_certificates(self) -> None:
        """Load the trusted certificates if they are needed.

        Raises:
            ModelProviderError: They cannot be read.
        """
        if self.origin.scheme == b"https":
            ssl_context()

    def address(self) -> tuple[str, int]:
        """Return the host and port of the TCP connection."""
        if self.proxy is not None:
            return self.proxy.host, self.proxy.port
        return self._host(), self.origin.port

    def layers(self) -> Iterator[Handshake | str]:
        """Yield each layer to add to an open socket: a proxy's handshake, or a host for TLS."""
        if self.proxy is not None:
            if self.proxy.scheme == "https":
                yield self.proxy.host
            if (handshake := self.proxy.handshake(self.origin)) is not None:
                yield handshake
        if self.origin.scheme == b"https":
            yield self._host()

    def _host(self) -> str:
        return self.origin.host.decode("ascii")


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
def _handshake_errors() -> Generator[None]:
    """Turn the errors of a handshake with a proxy into errors of connecting."""
    try:
        yield
    except (httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
        raise httpcore.ProxyError(str(error)) from error


# --- sync ---------------------------------------------------------------------------------------


def connect(target: Target, time_left: _TimeLeft) -> NetworkConnection:
    """Open a connection."""
    if target.unix_socket is not None:
        network = _network_connection(_SYNC.connect_unix_socket(target.unix_socket, time_left()))
    else:
        network = _connect_tcp(*target.address(), time_left)
    stream = network.stream
    try:
        for layer in target.layers():
            if not isinstance(layer, str):
                _shake_hands(network.stream, layer, time_left)
            elif isinstance(network.socket, ssl.SSLSocket):
                network = network._replace(socket=_tls_in_tls(network.socket, layer, time_left()))
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
    with _handshake_errors(), suppress(StopIteration):
        send = next(handshake)
        while True:
            stream.write(send, left())
            send = handshake.send(stream.read(READ_BYTES, left()))


def _tls_in_tls(outer: ssl.SSLSocket, host: str, seconds: float | None) -> _TLSInTLS:
    try:
        return _TLSInTLS(outer, host, seconds)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


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


async def connect_async(target: Target, time_left: _TimeLeft) -> AsyncNetworkConnection:
    """`connect` without blocking the event loop."""
    started = time.monotonic()
    if target.unix_socket is not None:
        stream = await _ASYNC.connect_unix_socket(target.unix_socket, time_left())
        round_trip = 0.0
    else:
        stream = await _ASYNC.connect_tcp(*target.address(), time_left())
        round_trip = time.monotonic() - started
    try:
        for layer in target.layers():
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
    with _handshake_errors(), suppress(StopIteration):
        send = next(handshake)
        while True:
            await stream.write(send, left())
            send = handshake.send(await stream.read(READ_BYTES, left()))


async def aclose(stream: Any) -> None:
    """Close a stream or a connection, even if the call was cancelled."""
    with anyio.CancelScope(shield=True):
        await stream.aclose()
