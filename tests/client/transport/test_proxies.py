"""Proxies that tunnel connections, by HTTP or SOCKS, and proxies that forward requests."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ember.api.exceptions import ProviderAPIError
from tests.loopback import Received, Reply, scripted, serving
from tests.ways import ALL, completion, events

every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)
# httpx leaves its generators to the garbage collector if a body ends early, and trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

Script = Callable[[socket.socket], None]


def answering(received: Received) -> Reply:
    """Answer with or without streaming, as requested."""
    if received.json().get("stream"):
        return Reply(pieces=events("Hello!"))
    return Reply(json.dumps(completion()).encode())


def relay(one: socket.socket, other: socket.socket, done: threading.Event) -> None:
    """Forward bytes in both directions until one side closes or the test ends.

    In one thread, since two must not use a TLS connection at once.
    """
    with suppress(OSError):
        while not done.is_set():
            waiting = isinstance(one, ssl.SSLSocket) and one.pending()
            for source in [one] if waiting else select.select([one, other], [], [], 0.05)[0]:
                if not (data := source.recv(65536)):
                    return
                (other if source is one else one).sendall(data)


@every_way
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_https_through_a_proxy_shares_one_tunnel(
    way: Callable[..., str],
    secure: bool,
    server_tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls go to an https server through a proxy, and calls in a row share one tunnel."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[bytes] = []
    done = threading.Event()

    def proxy(connection: socket.socket) -> None:
        if secure:
            connection = server_tls.wrap_socket(connection, server_side=True)
        with connection, socket.create_connection(("127.0.0.1", server.port)) as target:
            asked.append(connection.recv(65536).partition(b"\r\n")[0])
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            relay(connection, target, done)  # the client keeps the tunnel for its next call

    with serving(answering, server_tls) as server, scripted(proxy) as url:
        try:
            monkeypatch.setenv("HTTPS_PROXY", url.replace("http:", "https:" if secure else "http:"))
            assert way(server.url) == "Hello!"
            assert asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1".encode()]
            if way is ALL["call"]:
                long = "x" * 200_000  # more than the socket's buffer
                assert way(server.url, prompt=long) == "Hello!"
                assert len(asked) == 1
                assert len(server.received[1].body) > 200_000
        finally:
            done.set()


def socks(done: threading.Event, user: bytes | None, reply: int = 0) -> Script:
    """A SOCKS5 proxy (RFC 1928), with a name and password if one is given (RFC 1929)."""

    def script(connection: socket.socket) -> None:
        read = connection.makefile("rb").read
        version, methods = read(2)
        assert version == 5
        assert read(methods) == (b"\x02" if user else b"\x00")
        connection.sendall(b"\x05\x02" if user else b"\x05\x00")
        if user is not None:
            assert read(1) == b"\x01"
            name, password = read(read(1)[0]), read(read(1)[0])
            accepted = b"%b:%b" % (name, password) == user
            connection.sendall(b"\x01\x00" if accepted else b"\x01\x01")
        if read(3) != b"\x05\x01\x00":
            return
        kind = read(1)[0]
        host = read(read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(read(4))
        port = int.from_bytes(read(2), "big")
        for byte in bytes([5, reply, 0, 3, 4]) + b"here" + bytes(2):  # byte by byte
            connection.sendall(bytes([byte]))
        if not reply:
            with socket.create_connection((host.replace("named.invalid", "127.0.0.1"), port)) as to:
                relay(connection, to, done)

    return script


@every_way
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("user", [None, b"me:s3cret"], ids=["anyone", "password"])
def test_socks5_proxy_is_used(
    way: Callable[..., str],
    secure: bool,
    user: bytes | None,
    server_tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls use a SOCKS5 proxy, which resolves the server's name, without an extra package."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    done = threading.Event()
    with serving(answering, server_tls if secure else None) as server:
        with scripted(socks(done, user)) as url:
            address = url.replace("http://", f"socks5://{user.decode()}@" if user else "socks5://")
            monkeypatch.setenv("ALL_PROXY", address)
            try:
                named = server.url if secure else server.url.replace("127.0.0.1", "named.invalid")
                assert way(named) == "Hello!"
            finally:
                done.set()
        assert server.received[0].path == "/v1/chat/completions"


@every_way
@pytest.mark.parametrize(
    ("given", "reply", "words"),
    [
        ("me:wrong", 0, "refuses the user name or the password"),
        ("me:s3cret", 5, "could not connect: connection refused"),
        ("me:s3cret", 99, "its reply is 99"),
    ],
)
def test_socks5_refusal_is_shown_without_the_password(
    way: Callable[..., str],
    given: str,
    reply: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says what a SOCKS5 proxy refuses, without its password."""
    with scripted(socks(threading.Event(), b"me:s3cret", reply)) as url:
        monkeypatch.setenv("ALL_PROXY", url.replace("http://", f"socks5h://{given}@"))
        with pytest.raises(ProviderAPIError, match=words) as caught:
            way("http://named.invalid")
    assert (caught.value.error_type, caught.value.context["phase"]) == ("connection", "connect")
    assert "through the proxy socks5h://127.0.0.1" in str(caught.value)
    assert given not in str(caught.value)


@every_way
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_silent_proxy_is_a_connect_timeout(
    way: Callable[..., str], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that accepts the connection and does not answer is a connect timeout."""
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        connection.recv(65536)
        over.wait(5)

    with scripted(silent) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http:", f"{scheme}:"))
        started = time.monotonic()
        with pytest.raises(ProviderAPIError) as caught:
            way("https://named.invalid", timeout={"connect": 0.3})
        assert time.monotonic() - started < 2
        over.set()
    assert (caught.value.error_type, caught.value.context["phase"]) == ("timeout", "connect")


@every_way
@pytest.mark.parametrize("inner", ["handshake", "answer"])
def test_endless_tls_record_through_a_tls_proxy_times_out(
    way: Callable[..., str],
    inner: str,
    server_tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS inside TLS to a proxy: a record that never ends times out, as elsewhere."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    over = threading.Event()

    def drip(connection: ssl.SSLSocket) -> None:
        while not over.wait(0.05):
            connection.sendall(b"\x02")

    def script(connection: socket.socket) -> None:
        with server_tls.wrap_socket(connection, server_side=True) as outer, suppress(OSError):
            outer.recv(65536)
            outer.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            if inner == "answer":
                received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = server_tls.wrap_bio(received, to_send, server_side=True)
                for step in (tls.do_handshake, lambda: tls.read(65536)):
                    while True:
                        with suppress(ssl.SSLWantReadError):
                            step()
                            break
                        outer.sendall(to_send.read())
                        received.write(outer.recv(65536))
                    outer.sendall(to_send.read())
                outer.sendall(b"\x17\x03\x03\x40\x00")  # the header of a record that arrives slowly
            else:
                outer.sendall(b"\x16\x03\x03\x40\x00")
            drip(outer)

    with scripted(script) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http:", "https:"))
        started = time.monotonic()
        with pytest.raises(ProviderAPIError) as caught:
            way("https://127.0.0.1:9", timeout=1)
        assert time.monotonic() - started < 2.8
        over.set()
    assert caught.value.error_type == "timeout"


@every_way
def test_forwarding_proxy_gets_url_and_password(
    way: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that forwards http gets the whole URL and its user name and password."""
    with serving(answering) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.replace("http://", "http://me:s3cret@"))
        host = f"api{server.port}.invalid:81"  # one without an idle connection
        assert way(f"http://{host}/v1?x=1") == "Hello!"
        received = server.received[0]
    assert received.path.startswith(f"http://{host}/v1")
    assert received.headers["host"] == host
    assert received.headers["proxy-authorization"] == "Basic bWU6czNjcmV0"
