"""Connections: opening, reuse, closing, and the requests sent on them."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import httpcore
import httpx
import pytest
import trio

from ember.api import models
from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.transport import client as connections
from ember.transport import send as transport
from ember.transport import tls as trust
from tests.loopback import Loopback, Received, Reply, receive, reset, scripted, serving
from tests.ways import (
    ALL,
    KEY,
    MODEL,
    PLAIN,
    WHOLE,
    acall,
    answering,
    astream,
    call,
    events,
    stream,
)

# httpx leaves its generators to the garbage collector if a body ends early, and trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)


def slow(received: Received) -> Reply:
    """Answer after a delay, so that calls overlap."""
    return Reply(WHOLE, delay=0.02)


# --- reuse --------------------------------------------------------------------------------------


def test_calls_in_a_row_share_a_connection() -> None:
    """Consecutive calls, plain and streamed, share one connection."""
    with serving(answering) as server:
        for way in (call, stream, call, stream):
            way(server.url)
        assert (server.connections, len(server.received)) == (1, 4)


def test_awaited_calls_in_a_row_share_a_connection() -> None:
    """The same in one event loop, which closes the connection as it ends."""

    async def main() -> None:
        for way in (acall, astream, acall, astream):
            await way(server.url)
        assert (server.connections, server.open) == (1, 1)

    with serving(answering) as server:
        asyncio.run(main())
        assert server.settles_at(0)
        trio.run(main_of_trio, server)
        assert server.settles_at(0)


async def main_of_trio(server: Loopback) -> None:
    """Make two calls in trio's event loop, on one connection."""
    before = server.connections
    await acall(server.url)
    await astream(server.url)
    assert server.connections == before + 1


def test_error_answers_keep_the_connection() -> None:
    """A provider's error is a complete response: the next call reuses the connection."""
    refusal = Reply(b'{"error": {"message": "no"}}', status=400)
    with serving(lambda received: refusal) as server:
        for way in (call, stream):
            with pytest.raises(ProviderAPIError, match="400"):
                way(server.url)
        assert (server.connections, server.open) == (1, 1)


def test_threads_open_no_more_connections_than_calls_in_flight() -> None:
    """Eight threads make forty calls on at most eight connections."""
    with serving(slow) as server, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(server.url), range(40)))
        assert len(server.received) == 40
        assert server.connections <= 8


def test_tasks_open_no_more_connections_than_calls_in_flight() -> None:
    """Three rounds of twenty concurrent calls use twenty connections."""

    async def main() -> None:
        for _ in range(3):
            await asyncio.gather(*(acall(server.url) for _ in range(20)))

    with serving(slow) as server:
        asyncio.run(main())
        assert len(server.received) == 60
        assert server.connections <= 20
        assert server.settles_at(0)


def test_closed_idle_connection_is_replaced() -> None:
    """An idle connection that the server has closed is replaced without an error."""
    with serving(answering) as server:
        for way in (call, stream, call):
            way(server.url)
            server.drop_idle()
        assert server.connections == 3


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_closed_idle_async_connection_is_replaced(run: Callable[..., None]) -> None:
    """The same for event loops."""

    async def main() -> None:
        for way in (acall, astream, acall):
            await way(server.url)
            server.drop_idle()

    with serving(answering) as server:
        run(main) if run is trio.run else run(main())
        assert server.connections == 3


def closing_at_the_second(end: Callable[[socket.socket], None], asked: list[int]) -> Any:
    """A script whose first connection answers once, and closes when the next request arrives."""
    order = count(1)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)

    def script(connection: socket.socket) -> None:
        number = next(order)
        receive(connection)
        asked.append(number)
        connection.sendall(answer)
        if number == 1:
            receive(connection)
            asked.append(number)
            end(connection)

    return script


@pytest.mark.parametrize("way", [call, acall], ids=["sync", "asyncio"])
def test_request_on_a_new_connection_is_not_repeated(
    way: Callable[[str], str],
) -> None:
    """A request that breaks off on the replacement of an idle connection is not repeated."""
    asked: list[int] = []
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)

    def script(connection: socket.socket) -> None:
        receive(connection)
        asked.append(len(asked) + 1)
        if len(asked) == 1:
            connection.sendall(answer)  # and closes the connection

    async def twice(url: str) -> None:
        await acall(url)
        await asyncio.sleep(0.2)
        await acall(url)

    with scripted(script) as url, pytest.raises(ProviderAPIError, match="broke off"):
        if way is acall:
            asyncio.run(twice(url))
        else:
            call(url)
            time.sleep(0.2)
            call(url)
    assert asked == [1, 2]


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("way", [call, acall], ids=["sync", "asyncio"])
def test_request_on_a_closing_idle_connection_is_repeated_once(
    way: Callable[[str], str], end: Callable[[socket.socket], None]
) -> None:
    """A request sent on an idle connection as it closes is repeated once, on a new one."""
    asked: list[int] = []

    async def twice(url: str) -> None:
        await models.acall(MODEL, "hi", base_url=url, api_key=KEY)
        await models.acall(MODEL, "hi", base_url=url, api_key=KEY)

    with scripted(closing_at_the_second(end, asked)) as url:
        if way is acall:
            asyncio.run(twice(url))
        else:
            call(url)
            call(url)
    assert asked == [1, 1, 2]


@pytest.mark.parametrize("way", [call, acall], ids=["sync", "asyncio"])
def test_request_on_a_closing_idle_connection_to_a_distant_server_is_repeated(
    way: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close of an idle connection may be noticed as late as the first round trip took."""
    connect = httpcore.SyncBackend.connect_tcp
    aconnect = httpcore.AnyIOBackend.connect_tcp  # type: ignore[union-attr] - anyio is installed

    def connect_slowly(*args: Any, **options: Any) -> Any:
        time.sleep(0.9)
        return connect(*args, **options)

    async def aconnect_slowly(*args: Any, **options: Any) -> Any:
        await asyncio.sleep(0.9)
        return await aconnect(*args, **options)

    def end_late(connection: socket.socket) -> None:
        time.sleep(0.4)
        connection.close()

    async def twice(url: str) -> None:
        await acall(url)
        await acall(url)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_slowly)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", aconnect_slowly)
    asked: list[int] = []
    with scripted(closing_at_the_second(end_late, asked)) as url:
        if way is acall:
            asyncio.run(twice(url))
        else:
            call(url)
            call(url)
    assert asked == [1, 1, 2]


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("way", [call, acall], ids=["sync", "asyncio"])
def test_request_that_breaks_after_a_round_trip_is_not_repeated(
    way: Callable[[str], str], end: Callable[[socket.socket], None]
) -> None:
    """A request that breaks off after a round trip is not repeated: it may have been billed."""

    def end_late(connection: socket.socket) -> None:
        time.sleep(1.3)  # a busy machine may take a second for the first round trip
        end(connection)

    async def twice(url: str) -> None:
        await acall(url)
        await acall(url)

    asked: list[int] = []
    with (
        scripted(closing_at_the_second(end_late, asked)) as url,
        pytest.raises(ProviderAPIError, match=r"connection|broke off"),
    ):
        if way is acall:
            asyncio.run(twice(url))
        else:
            call(url)
            call(url)
    assert asked == [1, 1]


# --- addresses ----------------------------------------------------------------------------------


# httpcore leaves a Unix socket that failed to connect to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@every_way
def test_unix_socket(way: Callable[..., str], tmp_path: Path) -> None:
    """A base URL can name a Unix socket; consecutive calls share a connection to it."""
    with serving(answering, host=str(tmp_path / "model server")) as server:
        assert way(server.url) == way(server.url)
        assert server.received[0].path == "/v1/chat/completions"
        assert server.received[0].headers["host"] == "localhost"
        server.drop_idle()
    with pytest.raises(ProviderAPIError, match=r"could not connect at http\+unix://.*server up"):
        way(server.url)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # as above
def test_refusing_unix_socket_is_not_said_to_be_behind_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket is never reached through a proxy, and its error names none."""
    for variable in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    address = f"http+unix://{str(tmp_path / 'none').replace('/', '%2F')}"
    with pytest.raises(ProviderAPIError, match=r"^(?!.*(?i:proxy)).*is the server up"):
        call(address)
    gc.collect()  # while the warning is ignored


def test_response_headers_are_normalised() -> None:
    """Header names are in lower case, repeated ones are joined, and a value may be UTF-8."""
    as_sent = "Zürich".encode().decode("latin-1")  # http.server writes latin-1
    headers = {"X-Place": as_sent, "X-Limit": "1", "x-limit": "2"}
    with serving(lambda _: Reply(WHOLE, headers=headers)) as server:
        response = models("gpt-4", "Hello", base_url=f"{server.url}/v1", api_key=KEY)
    assert response.headers["x-place"] == "Zürich"
    assert response.headers["x-limit"] == "1, 2"


@every_way
def test_ipv6_address(way: Callable[..., str]) -> None:
    """A base URL can name an IPv6 address."""
    with serving(answering, host="::1") as server:
        assert way(server.url)
        assert server.received[0].headers["host"] == f"[::1]:{server.port}"


# --- latency ------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaited", [False, True])
def test_first_chunk_passes_through_at_once(awaited: bool) -> None:
    """Each chunk reaches the caller before the server has sent the next one."""
    read = threading.Semaphore(0)
    order: list[str] = []
    first, second, *rest = events("Once", " upon")

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + first)
        assert read.acquire(timeout=5)
        order.append("sent the second")
        connection.sendall(second + b"".join(rest))

    def take(text: str) -> None:
        order.append(f"read {text!r}")
        read.release()

    async def aread(url: str) -> None:
        async for chunk in models.astream(MODEL, "Hi", base_url=f"{url}/v1", api_key=KEY):
            take(chunk.text)

    with scripted(script) as url:
        if awaited:
            asyncio.run(aread(url))
        else:
            for chunk in models.stream(MODEL, "Hi", base_url=f"{url}/v1", api_key=KEY):
                take(chunk.text)
    assert order == ["read 'Once'", "sent the second", "read ' upon'"]


# --- requests as sent, and as tests see them ----------------------------------------------------


@every_way
def test_request_has_the_required_headers(way: Callable[..., str]) -> None:
    """A call is one POST with the required headers; extra_headers= can replace any of them."""
    with serving(answering) as server:
        way(server.url)
        way(server.url, extra_headers={"User-Agent": "mine", "x-team": "a"})
    first, second = server.received
    assert (first.method, first.path) == ("POST", "/v1/chat/completions")
    assert first.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "user-agent": "ember",
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
        "content-length": str(len(first.body)),
    }
    assert second.headers == first.headers | {"user-agent": "mine", "x-team": "a"}


def test_cookies_are_not_kept() -> None:
    """Cookies are not sent with later calls, since all accounts share the client."""
    with serving(lambda received: Reply(WHOLE, headers={"set-cookie": "a=1"})) as server:
        call(server.url)
        call(server.url)
        asyncio.run(acall(server.url))
    assert not [received for received in server.received if "cookie" in received.headers]
    assert not connections.client().cookies


@pytest.mark.parametrize("way", PLAIN.values(), ids=PLAIN)
def test_calls_go_through_httpx_transports(
    way: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All calls go through the public method of httpx's own transports."""
    seen: list[httpx.Request] = []

    def answered(self: object, request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=WHOLE)

    async def awaited(self: object, request: httpx.Request) -> httpx.Response:
        return answered(self, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answered)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", awaited)
    assert way("http://127.0.0.1:9") == "Hello!"
    (request,) = seen
    assert str(request.url) == "http://127.0.0.1:9/v1/chat/completions"
    assert json.loads(request.content)["messages"] == [{"role": "user", "content": "Hello"}]


def request_to(url: str, **more: Any) -> transport.Request:
    """A request of the transport, made without a provider."""
    return transport.Request(url, {}, b"{}", transport.Timeout(), "openai", MODEL, **more)


def test_server_in_this_process_is_started_by_a_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server in this process is started by a real connection, not by a replayed answer."""
    asked: list[str] = []
    with serving() as server:

        def address() -> tuple[str, int]:
            asked.append("address")
            return "127.0.0.1", server.port

        with monkeypatch.context() as patched:
            patched.setattr(
                httpx.HTTPTransport, "handle_request", lambda self, request: httpx.Response(200)
            )
            transport.send(request_to("http://late.invalid/", address=address))
            assert asked == []
        reply = transport.send(request_to("http://late.invalid/", address=address))
        assert reply.status == 200
        assert server.received[0].headers["host"] == "late.invalid"
    assert asked


def test_server_that_cannot_be_started_raises_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error of a server that cannot be started passes through httpx unchanged."""

    def address() -> NoReturn:
        raise ModelProviderError("install it")

    with pytest.raises(ModelProviderError, match="install it"):
        transport.send(request_to("http://later.invalid/", address=address))


def test_plain_http_reads_no_trust_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call over plain http does not load certificates, which takes 18 ms."""

    def load(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("loaded")

    monkeypatch.setattr(trust, "_loaded", None)
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with serving(answering) as server:
        assert call(server.url) == "Hello!"
