"""A proxy that carries a TLS connection, itself reached plainly or over TLS."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.loopback import Received, Reply, scripted, serving
from tests.ways import ALL, completion, events

every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)
# httpx leaves its generators to the collector when a body ends early, and trio complains of it.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")


def answering(received: Received) -> Reply:
    """Answers in whole or as a stream, as asked."""
    if received.json().get("stream"):
        return Reply(pieces=events("Hello!"))
    return Reply(json.dumps(completion()).encode())


def relay(one: socket.socket, other: socket.socket, done: threading.Event) -> None:
    """Pass on what each side sends until one ends, or the test does.

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
def test_tunnel(
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
                long = "x" * 200_000  # more than the socket takes at once
                assert way(server.url, prompt=long) == "Hello!"
                assert len(asked) == 1
                assert len(server.received[1].body) > 200_000
        finally:
            done.set()
