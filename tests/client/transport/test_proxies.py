"""A proxy that carries a TLS connection, itself reached plainly or over TLS."""

from __future__ import annotations

import json
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


def forward(source: socket.socket, target: socket.socket) -> None:
    """Pass on what one side sends until it ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


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

    def proxy(connection: socket.socket) -> None:
        if secure:
            connection = server_tls.wrap_socket(connection, server_side=True)
        with connection, socket.create_connection(("127.0.0.1", server.port)) as target:
            connection.settimeout(1)  # the client keeps the tunnel for its next call
            target.settimeout(1)
            asked.append(connection.recv(65536).partition(b"\r\n")[0])
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=forward, args=(target, connection))
            back.start()
            forward(connection, target)
            back.join()

    with serving(answering, server_tls) as server, scripted(proxy) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http:", "https:" if secure else "http:"))
        assert way(server.url) == "Hello!"
        assert asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1".encode()]
        if way is ALL["call"]:
            long = "x" * 200_000  # more than the socket takes at once
            assert way(server.url, prompt=long) == "Hello!"
            assert len(asked) == 1
            assert len(server.received[1].body) > 200_000
