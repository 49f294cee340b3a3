"""http.client: requests in parts, early connections, subclasses, and proxies."""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
from contextlib import closing
from pathlib import Path
from xmlrpc.client import ServerProxy

import pytest

import ember_testing
from ember_testing import CassetteMiss
from tests.loopback import Received, Reply, serving

ASKED = {"model": "gpt-4", "messages": [{"role": "user", "content": "Where is the Louvre?"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the test's cassette."""
    return tmp_path / "c.sqlite"


XML = b"""<?xml version="1.0"?><methodResponse><params><param><value><string>%b</string></value>
</param></params></methodResponse>"""


def test_xmlrpc_client_reuses_its_connection(path: Path) -> None:
    """xmlrpc.client reuses its connection for the next call, live and in a replay."""

    def answer(request: Received) -> Reply:
        words = re.findall(rb"<string>(.*?)</string>", request.body)
        return Reply(XML % words[0], headers={"content-type": "text/xml"})

    with serving(answer) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            with ServerProxy(server.url) as proxy:
                assert [proxy.ask("a"), proxy.ask("b")] == ["a", "b"]
            assert [call.outcome for call in cassette.recorded] == ["complete"] * 2
            assert server.connections == 1
        with ServerProxy(server.url) as proxy:
            with ember_testing.cassette(path):
                assert [proxy.ask("b"), proxy.ask("a")] == ["b", "a"]
            assert proxy.ask("live") == "live"
            with pytest.raises(CassetteMiss), ember_testing.cassette(path):
                proxy.ask("c")
        assert len(server.received) == 3


@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_deferred_connection_is_opened_when_data_is_sent(early: bool) -> None:
    """A deferred connection is opened, with the options set on it, when data is sent."""
    with serving() as server, ember_testing.fake_model(allow_loopback=True):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        if early:
            connection.connect()
            assert server.connections == 0
            connection.sock.settimeout(4)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for q in (b"1", b"2"):
            connection.putrequest("PUT", "/other")
            connection.putheader("Content-Length", "1")
            connection.endheaders()
            connection.send(q)
            assert isinstance(connection.sock, socket.socket)
            assert connection.getresponse().read() == b'{"echo": %b}' % q
            assert connection.sock.getpeername()[1] == server.port
            if early:
                assert connection.sock.gettimeout() == 4
                assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()
        assert server.connections == 1


@pytest.mark.parametrize("polled", [False, True])
def test_an_upload_waits_for_100_continue(polled: bool, path: Path) -> None:
    """A request with `Expect` gets `100 Continue`, and is recorded and matched with its body."""

    def put(port: int, body: bytes) -> bytes:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.putrequest("PUT", "/v1")
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Expect", "100-continue")
            connection.endheaders()
            if polled:
                assert select.select([connection.sock], [], [], 5)[0]
            with connection.sock.makefile("rb", 0) as early:
                assert early.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.send(body)
            return connection.getresponse().read()

    with serving() as server, ember_testing.cassette(path, record="new") as cassette:
        live = [put(server.port, b'"a"'), put(server.port, b'"b"')]
        assert [call.outcome for call in cassette.recorded] == ["complete"] * 2
        port = server.port
    with ember_testing.cassette(path):
        assert [put(port, b'"b"'), put(port, b'"a"')] == live[::-1]
    with pytest.raises(CassetteMiss), ember_testing.cassette(path):
        put(port, b'"c"')


@pytest.mark.parametrize("way", ["connect", "whole", "parts"])
def test_subclass_that_uses_the_socket_after_connect_is_recorded(way: str, path: Path) -> None:
    """A `connect` that uses the socket after `super().connect()` is recorded and replayed."""

    class Alive(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def ask(port: int) -> bytes:
        connection = Alive("127.0.0.1", port, timeout=5)
        if way == "connect":
            connection.connect()
        if way == "whole":
            connection.request("GET", "/v1")
        else:
            connection.putrequest("GET", "/v1")
            connection.endheaders()
        try:
            return connection.getresponse().read()
        finally:
            connection.close()

    with serving() as server, ember_testing.cassette(path, record="new") as cassette:
        assert ask(server.port) == b'{"echo": null}'
        assert len(cassette.recorded) == 1
    with ember_testing.cassette(path):
        assert ask(server.port) == b'{"echo": null}'
    assert len(server.received) == 1


def test_request_through_a_tunnel_matches_by_the_servers_url(path: Path) -> None:
    """Through a proxy, a request in parts matches by the server's URL, without a connection."""
    url = "http://models.example:8080/v1"
    with ember_testing.fake_model() as fake:
        fake("gpt-4", "Paris")
        connection = http.client.HTTPSConnection("127.0.0.1", 1)
        connection.set_tunnel("api.openai.com")
        connection.connect()
        body = json.dumps(ASKED).encode()
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        assert b"Paris" in connection.getresponse().read()
        connection.close()
    with pytest.raises(CassetteMiss, match=r"models\.example:8080"), ember_testing.cassette(path):
        forwarding = http.client.HTTPConnection("127.0.0.1", 1)
        forwarding.putrequest("GET", url)
        forwarding.endheaders()
