"""No library reaches the network while a test replays."""

# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import create_connection, getaddrinfo  # imported before any guard, on purpose

import httpx
import pytest

import ember_testing
from ember_testing import CassetteMiss, NetworkBlocked, RecordingWarning
from tests.loopback import Loopback, serving

FAR = "192.0.2.1"  # reserved for documentation: never answers


def by_urllib() -> None:
    """Use urllib."""
    urllib.request.urlopen("http://example.com")


def by_aiohttp() -> None:
    """Use aiohttp with its own resolver."""
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get("http://example.com")

    asyncio.run(get())


def by_requests() -> None:
    """Use requests, which uses urllib3."""
    requests = pytest.importorskip("requests")
    requests.get("https://example.com", timeout=5)


def by_urllib3() -> None:
    """Use urllib3 with an address instead of a name."""
    urllib3 = pytest.importorskip("urllib3")
    urllib3.PoolManager(retries=False).request("GET", f"http://{FAR}/")


def by_socket() -> None:
    """Connect a plain socket."""
    with socket.socket() as plain:
        plain.connect((FAR, 80))


def by_connect_ex() -> None:
    """Use `connect_ex`, which returns its error."""
    with socket.socket() as plain:
        plain.connect_ex((FAR, 80))


def by_udp() -> None:
    """Send a datagram, which needs no connection."""
    with socket.socket(type=socket.SOCK_DGRAM) as plain:
        plain.sendto(b"x", (FAR, 53))


def by_ipv6() -> None:
    """Connect by IPv6."""
    with socket.socket(socket.AF_INET6) as plain:
        plain.connect(("2001:db8::1", 80))


def by_imported_function() -> None:
    """Use a function imported before the guard."""
    create_connection((FAR, 80))


def by_name() -> None:
    """Look up a name, which contacts a name server."""
    getaddrinfo("example.com", 443)


def by_reverse_name() -> None:
    """Look up an address's name, which contacts a name server too."""
    socket.gethostbyaddr(FAR)


def by_name_info() -> None:
    """Look up an address's name with `getnameinfo`."""
    socket.getnameinfo((FAR, 80), 0)


def by_asyncio() -> None:
    """Use asyncio's connections, as aiohttp does."""
    asyncio.run(_open(FAR))


def by_asyncio_name() -> None:
    """Use asyncio's name lookup, which runs in a thread."""
    asyncio.run(_open("example.com"))


async def _open(host: str) -> None:
    await asyncio.open_connection(host, 80)


def in_a_thread() -> None:
    """Connect in a thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            by_socket()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise failures[0]


def by_pieces_of_a_request() -> None:
    """Use http.client with a request written in parts."""
    connection = http.client.HTTPConnection("example.com")
    connection.putrequest("GET", "/")
    connection.endheaders()


# These libraries are recorded, so they raise a miss before they reach the guard.
RECORDED = [by_urllib, by_pieces_of_a_request, by_aiohttp, by_requests, by_urllib3]
WAYS = [
    by_socket, by_connect_ex, by_udp, by_ipv6,
    by_imported_function, by_name, by_reverse_name, by_name_info, by_asyncio, by_asyncio_name,
    in_a_thread,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_connection_is_blocked_with_the_reason(path: Path, way: Callable[[], None]) -> None:
    """The error says that this is a replay, what was tried, and how to record."""
    with pytest.raises(NetworkBlocked, match="blocked: this test replays") as blocked:
        with ember_testing.cassette(path):
            way()
    assert 'record="new"' in str(blocked.value)


@pytest.mark.parametrize("way", RECORDED)
def test_request_of_a_recorded_library_is_a_miss(path: Path, way: Callable[[], None]) -> None:
    """The error says what is missing and how to record it, without a connection."""
    with pytest.raises(CassetteMiss, match="there is no cassette") as missed:
        with ember_testing.cassette(path):
            way()
    assert 'record="new"' in str(missed.value)


def test_swallowed_network_error_fails_the_block(path: Path) -> None:
    """The block fails even if a library catches everything."""
    with pytest.raises(NetworkBlocked), ember_testing.cassette(path):
        with suppress(BaseException):
            by_socket()


def connect(server: Loopback) -> None:
    """Open a raw connection to a server of this process."""
    create_connection(("localhost", server.port)).close()


def test_loopback_is_blocked_unless_allowed(path: Path) -> None:
    """A server on this machine needs `allow_loopback=True`; the message says so."""
    with serving() as server:
        with pytest.raises(NetworkBlocked, match="allow_loopback=True"):
            with ember_testing.cassette(path):
                connect(server)
        with ember_testing.cassette(path, allow_loopback=True):
            connect(server)
        with pytest.raises(NetworkBlocked):
            with ember_testing.cassette(path, allow_loopback=True):
                by_socket()


def test_local_sockets_and_event_loops_work(path: Path, tmp_path: Path) -> None:
    """Event loops, pipes, socket pairs, Unix sockets and listening are left alone."""

    async def loop() -> str:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        server.close()
        return await asyncio.to_thread(str, "done")

    with ember_testing.cassette(path):
        assert asyncio.run(loop()) == "done"
        left, right = socket.socketpair()
        left.sendall(b"x")
        assert right.recv(1) == b"x"
        left.close()
        right.close()
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as sender:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            sender.connect(str(tmp_path / "s"))
        assert getaddrinfo("localhost", 80)
        assert getaddrinfo("127.0.0.1", 80)


def test_the_network_is_open_before_after_and_while_recording(path: Path) -> None:
    """The guard is only active during a replay; a recording needs the network."""
    with serving() as server:
        connect(server)
        with ember_testing.cassette(path):
            pass
        connect(server)
        with pytest.warns(RecordingWarning, match="not recorded: connections to 127"):
            with ember_testing.cassette(path, record="new"):
                connect(server)
        with ember_testing.cassette(path):
            with pytest.warns(RecordingWarning, match="not recorded: connections to 127"):
                with ember_testing.cassette(path.with_name("inner.sqlite"), record="new"):
                    connect(server)


def test_a_connection_made_by_httpx_below_the_seam_is_blocked(path: Path) -> None:
    """A custom transport that opens connections is blocked like any library."""

    class Own(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            by_socket()
            raise AssertionError("connected")

    with pytest.raises(NetworkBlocked), ember_testing.cassette(path):
        with httpx.Client(transport=Own()) as client:
            client.get("https://example.com")
