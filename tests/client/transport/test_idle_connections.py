"""Idle connections: how many are kept, for how long, and what happens without free descriptors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ember.api.exceptions import ModelProviderError
from tests.loopback import Received, Reply, serving
from tests.ways import WHOLE, acall, answering, call, events


def together(calls: int) -> Callable[[Received], Reply]:
    """Answer calls only when so many are in flight, each on a connection of its own."""
    gate = threading.Barrier(calls)

    def answer(received: Received) -> Reply:
        gate.wait(20)
        return Reply(WHOLE)

    return answer


def test_idle_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst, the number of idle connections is limited."""
    monkeypatch.setenv("EMBER_MAX_IDLE_CONNECTIONS", "2")
    with serving(together(6)) as server, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: call(server.url), range(6)))
        assert server.connections == 6
        assert server.settles_at(2)


def test_connections_of_a_burst_are_kept() -> None:
    """All connections of a burst are kept, so that the next one opens none."""
    burst = 120

    async def two_bursts(url: str) -> None:
        for _ in range(2):
            await asyncio.gather(*(acall(url) for _ in range(burst)))

    with serving(together(burst)) as server:
        asyncio.run(two_bursts(server.url))
        assert (server.connections, len(server.received)) == (burst, 2 * burst)


def test_idle_connections_leave_half_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections to one server are at most half the files that the process may open."""
    monkeypatch.setattr(os, "sysconf", {"SC_OPEN_MAX": 7}.__getitem__)
    with serving(together(6)) as server, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: call(server.url), range(6)))
        assert server.settles_at(3)


@pytest.mark.parametrize("way", [call, acall], ids=["sync", "asyncio"])
def test_a_burst_to_another_server_closes_idle_connections(
    way: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New connections replace idle ones to another server, down to a quarter of the files."""
    monkeypatch.setattr(os, "sysconf", {"SC_OPEN_MAX": 16}.__getitem__)

    def sync_bursts() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, [first.url] * 8))
            list(pool.map(call, [second.url] * 8))
        assert first.settles_at(4)
        assert second.settles_at(8)

    async def async_bursts() -> None:
        await asyncio.gather(*(acall(first.url) for _ in range(8)))
        await asyncio.gather(*(acall(second.url) for _ in range(8)))
        assert first.settles_at(4)
        assert second.settles_at(8)

    with serving(together(8)) as first, serving(together(8)) as second:
        asyncio.run(async_bursts()) if way is acall else sync_bursts()


def test_idle_connections_to_another_server_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to a server that is called no more are closed when calls go on elsewhere."""
    monkeypatch.setenv("EMBER_KEEPALIVE_SECONDS", "0.2")
    with serving(together(3)) as left, serving(answering) as other, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: call(left.url), range(3)))
        assert left.settles_at(3)
        time.sleep(0.3)
        call(other.url)
        assert left.settles_at(0)


def test_idle_connections_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has been idle too long is closed when another becomes idle."""
    monkeypatch.setenv("EMBER_KEEPALIVE_SECONDS", "0.2")
    gate = threading.Barrier(3)

    def together(received: Received) -> Reply:
        gate.wait(5)
        return Reply(WHOLE)

    with serving(together) as server, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: call(server.url), range(3)))
        assert server.settles_at(3)
        gate = threading.Barrier(1)
        time.sleep(0.3)
        call(server.url)
        call(server.url)
        assert server.settles_at(1)


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
@pytest.mark.parametrize("variable", ["EMBER_KEEPALIVE_SECONDS", "EMBER_MAX_IDLE_CONNECTIONS"])
def test_malformed_keep_alive_limit_names_its_variable(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is not a number is an error that names it, before anything is sent."""
    monkeypatch.setenv(variable, text)
    with serving() as server:
        with pytest.raises(ModelProviderError, match=f"{variable}='{text}' is not a number"):
            call(server.url)
        assert not server.received


def test_keep_alive_of_zero_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 0 seconds, a connection is closed after its call."""
    monkeypatch.setenv("EMBER_KEEPALIVE_SECONDS", "0")
    with serving(answering) as server:
        call(server.url)
        assert server.settles_at(0)
        call(server.url)
        assert server.connections == 2


def test_without_free_descriptors_a_call_raises_its_own_error() -> None:
    """If no more files can be opened, the call says so, though it is the first one to fail."""
    pytest.importorskip("resource", reason="Windows has no limit to set")
    script = """
import os, resource, sys
from ember.api import models
from ember.api.exceptions import ProviderAPIError
call = lambda: models("gpt-4o", "hi", base_url=sys.argv[1], api_key="sk-none")
call()
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
files = []
try:
    while True:
        files.append(os.dup(0))
except OSError:
    pass
try:
    call()
except ProviderAPIError as error:
    print(error.error_type, error)
"""
    closing = {"connection": "close"}
    with serving(lambda received: Reply(WHOLE, headers=closing)) as server:
        command = [sys.executable, "-c", script, server.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("connection openai: could not connect"), ended.stderr
    assert "Too many open files" in ended.stdout


def test_an_answer_is_kept_if_no_descriptor_is_free_for_its_prices() -> None:
    """If the price files cannot be opened, the error has the answer, which is paid for."""
    pytest.importorskip("resource", reason="Windows has no limit to set")
    script = """
import os, resource, sys
from ember.api import models
from ember.api.exceptions import ModelProviderError
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
try:
    with models.stream("gpt-4o", "hi", base_url=sys.argv[1], api_key="sk-none") as stream:
        next(stream)
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
        list(stream)
except ModelProviderError as error:
    print(error.context["response"].text, stream.response.text, error)
"""
    with serving(lambda received: Reply(pieces=events("Once", " upon"))) as server:
        command = [sys.executable, "-c", script, server.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("Once upon Once upon no prices can be read"), ended.stderr
