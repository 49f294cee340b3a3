"""Timeouts hold however slowly a server sends: each server here would go on for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from tests.loopback import receive, reset, scripted
from tests.ways import ALL, KEY, PLAIN, STREAMED, completion, events

# httpx leaves its generators to the garbage collector if a body ends early, and trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

Way = Callable[..., str]
Ways = Mapping[str, Way]
Script = Callable[[socket.socket], None]

SECONDS = 0.4
# How late a timeout may be on an idle machine.
LATE = 0.1 * SECONDS

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
WHOLE = json.dumps(completion()).encode()
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
COMMENT = b": keep waiting\n\n"
ROLE = b'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
IN_PROGRESS = (
    b'data: {"type":"response.in_progress","response":{"status":"in_progress","output":[],'
    b'"tools":[{"type":"function","name":"f"}],"usage":null}}\n\n'
)


def dripping(*begun: bytes, then: bytes, pause: float = 0.1) -> Script:
    """A server that sends some bytes first, then repeats others for ever."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        for piece in begun:
            connection.sendall(piece)
        over = time.monotonic() + 3
        while time.monotonic() < over:
            connection.sendall(then)
            time.sleep(pause)

    return script


def at_once(ways: Ways, url: str, **params: Any) -> list[str]:
    """The answers of concurrent calls, one in each way."""
    with ThreadPoolExecutor(len(ways)) as pool:
        running = [pool.submit(way, url, **params) for way in ways.values()]
        return [future.result() for future in running]


def lateness(call: Callable[[], object]) -> float:
    """Seconds by which a call exceeds its timeout."""
    started = time.monotonic()
    call()
    return time.monotonic() - started - SECONDS


def timed_out(
    ways: Ways, url: str, allowed: float = LATE, phase: str = "", **params: Any
) -> list[ProviderAPIError]:
    """The errors of calls in each of these ways, all of which time out promptly, in this phase.

    A busy machine delays any wait: plain waits run alongside the calls, and their delay is
    allowed. A delay with another cause would occur on each attempt, and so would another phase.
    """

    def failing(way: Way) -> ProviderAPIError:
        with pytest.raises(ProviderAPIError) as caught:
            way(url, **params)
        assert caught.value.error_type == "timeout", str(caught.value)
        assert "cancel" not in str(caught.value).lower()
        return caught.value

    def timed(way: Way) -> float:
        return lateness(lambda: errors.append(failing(way)))

    def waiting(_: Way) -> float:
        return lateness(lambda: asyncio.run(asyncio.sleep(SECONDS)))

    found: list[tuple[float, float, set[str]]] = []
    with ThreadPoolExecutor(2 * len(ways)) as pool:
        for _ in range(4):
            errors: list[ProviderAPIError] = []
            waits = pool.map(waiting, ways.values())
            late = list(pool.map(timed, ways.values()))
            assert min(late) > -LATE
            phases = {error.context["phase"] for error in errors}
            found.append((max(late), max(waits), phases))
            if max(late) <= allowed + 2 * found[-1][1] and (not phase or phases == {phase}):
                return errors
    pytest.fail(f"late by these seconds, where plain waits are by those, and phases: {found}")


# A gzip stream whose blocks are empty: each decodes to nothing.
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
UNFINISHED: dict[str, Script] = {
    "head": dripping(HEAD + b"x-slow: ", then=b"a"),
    "status-line": dripping(then=b"H", pause=0.2),
    "103s": dripping(then=b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    "103s-at-once": dripping(then=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10, pause=0),
    "100s": dripping(then=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk-size": dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n", then=b"0"),
    "chunk-extension": dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n1;x=", then=b"y"),
    "gzip-name": dripping(
        HEAD + b"content-encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03", then=b"n"
    ),
    "gzip-blocks": dripping(
        HEAD + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], then=EMPTY_BLOCK
    ),
}


@pytest.mark.parametrize("timeout", [SECONDS, {"read": SECONDS}], ids=["seconds", "read"])
@pytest.mark.parametrize("script", UNFINISHED.values(), ids=UNFINISHED)
def test_bytes_without_an_answer_are_a_read_timeout(script: Script, timeout: object) -> None:
    """A server that sends bytes but no part of an answer runs into the read timeout."""
    with scripted(script) as url:
        errors = timed_out(ALL, url, timeout=timeout)
    for error in errors:
        assert "timeout=" in str(error)


@pytest.mark.parametrize(
    "script",
    [
        dripping(HEAD + b"\r\n", then=b" "),
        dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n", then=b"1\r\n \r\n"),
        dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", then=b"x: y\r\n"),
    ],
    ids=["bytes", "chunks", "trailers"],
)
def test_total_limits_a_slow_body(script: Script) -> None:
    """A body that arrives slowly, each piece in time, ends at the total timeout."""
    with scripted(script) as url:
        errors = timed_out(PLAIN, url, timeout={"read": 30, "total": SECONDS})
    for error in errors:
        assert f"no whole answer within {SECONDS} s" in str(error)
        assert (error.context["phase"], error.retryable) == ("read", True)


def test_total_limits_a_request_that_is_read_slowly() -> None:
    """A server that reads a long request slowly runs into the total timeout."""

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        over = time.monotonic() + 3
        while time.monotonic() < over and connection.recv(20_000):
            time.sleep(0.1)
        reset(connection)

    bounds = {"read": 30, "total": SECONDS}
    with scripted(script) as url:
        # All the calls encode their 8 MB, one after the other, before the first one is sent.
        errors = timed_out(ALL, url, LATE + 0.3, prompt="x" * 8_000_000, timeout=bounds)
    for error in errors:
        assert error.context["phase"] == "write"


@contextlib.contextmanager
def full_server() -> Generator[str]:
    """A server that accepts no connection; yields its URL."""
    with socket.socket() as listener, contextlib.ExitStack() as filling:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = filling.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("timeout", [{"total": SECONDS}, {"connect": SECONDS}, SECONDS])
def test_connection_that_is_not_accepted_times_out(timeout: object) -> None:
    """The total timeout limits connecting, as does the connect timeout."""
    with full_server() as url:
        errors = timed_out(ALL, url, timeout=timeout)
    for error in errors:
        assert error.context["phase"] == "connect"


def test_several_addresses_share_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with several dead addresses takes no longer than one with a single address."""
    with full_server() as url:
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(url[17:])))
        monkeypatch.setattr(socket, "getaddrinfo", Mock(return_value=[address] * 3))
        errors = timed_out(ALL, url.replace("127.0.0.1", "many.invalid"), timeout=SECONDS)
    for error in errors:
        assert error.context["phase"] == "connect"


def test_first_address_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a host's addresses that answers is used, within one timeout."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))

    def both(*_: object, **__: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

    with scripted(script) as url:
        port = int(url[17:])
        monkeypatch.setattr(socket, "getaddrinfo", both)
        assert PLAIN["call"](url.replace("127.0.0.1", "two.invalid"), timeout=5) == "Hello!"


def test_name_lookup_counts_for_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout includes the name lookup."""
    answered = threading.Event()

    def silent(
        host: object, port: object, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:  # trio asks first whether the host is an address
            raise socket.gaierror(socket.EAI_NONAME, "it is none")
        answered.wait(1)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    # The call ends in time, but asyncio.run, which is measured too, waits for the lookup's thread.
    errors = timed_out(ALL, "http://slow.invalid", allowed=1 - SECONDS + LATE, timeout=SECONDS)
    for error in errors:
        assert error.context["phase"] == "connect"
    answered.set()


def test_slow_handshake_counts_for_the_connect_timeout() -> None:
    """The connect timeout includes the TLS handshake."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x40\x00")  # the header of a record that arrives slowly
        over = time.monotonic() + 3
        while time.monotonic() < over:
            connection.sendall(b"\x02")
            time.sleep(0.1)

    with scripted(script) as url:
        errors = timed_out(ALL, url.replace("http:", "https:"), timeout={"connect": SECONDS})
    for error in errors:
        assert error.context["phase"] == "connect"


# --- streams ------------------------------------------------------------------------------------


IDLE = {"pings": PING, "comments": COMMENT, "roles": ROLE, "in-progress": IN_PROGRESS}


@pytest.mark.parametrize(
    "timeout",
    [SECONDS, {"total": SECONDS}, {"read": SECONDS}, {"read": 30, "total": SECONDS}],
    ids=["seconds", "total", "read", "both"],
)
@pytest.mark.parametrize("idle", IDLE.values(), ids=IDLE)
def test_stream_of_only_keep_alive_times_out(idle: bytes, timeout: object) -> None:
    """Keep-alive events do not count: an event with content must arrive in time."""
    with scripted(dripping(STREAM_HEAD, then=idle)) as url:
        errors = timed_out(STREAMED, url, phase="stream", timeout=timeout)
    for error in errors:
        assert error.context["in_stream"]
        assert error.context["partial_text"] == ""
        assert error.retryable


@pytest.mark.parametrize("idle", IDLE.values(), ids=IDLE)
def test_stream_that_stalls_after_text_times_out(idle: bytes) -> None:
    """After some text, `read` limits the wait for more, whatever keep-alive is sent."""
    with scripted(dripping(STREAM_HEAD, events("Once")[0], then=idle)) as url:
        bounds = {"read": SECONDS, "total": SECONDS / 2}
        errors = timed_out(STREAMED, url, phase="stream", timeout=bounds)
    for error in errors:
        assert error.context["partial_text"] == "Once"
        assert not error.retryable


SAYING = {
    "text": events("a")[0],
    "reasoning": b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n',
    "tool call": (
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1",'
        b'"function":{"name":"f","arguments":"{\\"a\\""}}]}}]}\n\n'
    ),
    "usage": b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0}}\n\n',
}


@pytest.mark.parametrize("event", SAYING.values(), ids=SAYING)
def test_stream_with_content_may_outlast_every_timeout(event: bytes) -> None:
    """Events with content keep a stream going: neither `total` nor `read` ends it."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(STREAM_HEAD)
        for _ in range(8):
            connection.sendall(event)
            time.sleep(0.1)
        connection.sendall(b"".join(events("end")))

    with scripted(script) as url:
        answers = at_once(STREAMED, url, timeout={"read": 0.6, "total": 0.6})
    assert all(answer.endswith("end") for answer in answers)


def test_slow_reader_does_not_time_out() -> None:
    """The caller's time between two chunks does not count as waiting for the server."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(STREAM_HEAD + b"".join(events("Once", " upon")[:1]))
        time.sleep(0.2)
        connection.sendall(b"".join(events("Once", " upon")[1:]))

    async def read_slowly(url: str) -> list[str]:
        texts: list[str] = []
        async for chunk in models.astream("gpt-4", "Hi", base_url=url, api_key=KEY, timeout=0.4):
            texts.append(chunk.text)
            await asyncio.sleep(0.6)
        return texts

    with scripted(script) as url:
        texts: list[str] = []
        for chunk in models.stream("gpt-4", "Hi", base_url=url, api_key=KEY, timeout=0.4):
            texts.append(chunk.text)
            time.sleep(0.6)
        assert texts == asyncio.run(read_slowly(url)) == ["Once", " upon"]


def held_open(connection: socket.socket) -> None:
    """Send a whole stream without the end of the body, and keep the connection open."""
    receive(connection)
    connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for event in events("Once"):
        connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
    connection.recv(1)  # until the client closes


def broken_at_the_end(connection: socket.socket) -> None:
    """Send a whole stream, then break the connection instead of ending the body."""
    connection.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        held_open(connection)


@pytest.mark.parametrize(
    "script",
    [held_open, broken_at_the_end, dripping(STREAM_HEAD, *events("Once"), then=PING)],
    ids=["held-open", "broken", "pings"],
)
def test_complete_stream_does_not_wait_for_the_end_of_the_body(script: Script) -> None:
    """After the end marker, a connection that stays open or breaks does not lose the answer."""
    with scripted(script) as url:
        started = time.monotonic()
        answers = at_once(STREAMED, url, timeout={"read": 1, "total": 60})
    assert answers == ["Once"] * len(STREAMED)
    assert time.monotonic() - started < 2.8


def test_silent_stream_over_tls_times_out(
    server_tls: ssl.SSLContext, certificate: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over TLS, also for a record that never ends."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def script(connection: socket.socket) -> None:
        with server_tls.wrap_socket(connection, server_side=True) as secured:
            dripping(STREAM_HEAD, then=PING)(secured)

    with scripted(script) as url:
        timed_out(STREAMED, url.replace("http:", "https:"), timeout=SECONDS)
