"""While a cassette records, what goes out beside the recorder is told, one line a test."""

# ruff: noqa: SIM117, PT031 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import asyncio
import socket
import sys
import types
import urllib.request
import warnings
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing import RecordingWarning
from tests.loopback import Loopback, echo, serving


def by_socket(server: Loopback) -> None:
    """A plain socket of this module."""
    socket.create_connection(("127.0.0.1", server.port)).close()


def by_asyncio(server: Loopback) -> None:
    """An event loop's own connection."""

    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())


def by_library(server: Loopback) -> None:
    """A package that connects for its caller."""
    module = types.ModuleType("somedriver.wire")
    exec("import socket\ndef connect(at): socket.create_connection(at).close()", vars(module))
    module.connect(("127.0.0.1", server.port))


@pytest.mark.parametrize(
    ("way", "name"),
    [(by_socket, "tests"), (by_asyncio, "tests"), (by_library, "somedriver")],
)
def test_a_connection_beside_the_recorder_is_told_once(path: Path, way: object, name: str) -> None:
    """Host, port and the package whose code connects; the recorded call beside it is not."""
    assert callable(way)
    with serving(echo) as server:
        with pytest.warns(RecordingWarning) as caught:
            with ember_testing.cassette(path, record="new"):
                way(server)
                way(server)
                httpx.get(server.url)
    (warning,) = caught
    assert f"not recorded: connections to 127.0.0.1:{server.port} by {name};" in str(
        warning.message
    )
    assert str(warning.message).count("127.0.0.1") == 1


def by_aiohttp(url: str) -> None:
    """Which asks an event loop for its connection."""
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            await response.read()

    asyncio.run(get())


def by_httpx_awaited(url: str) -> None:
    """Which races its connections in tasks."""

    async def get() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(url.replace("127.0.0.1", "localhost"))

    asyncio.run(get())


@pytest.mark.parametrize(
    "way",
    [httpx.get, by_httpx_awaited, by_aiohttp, lambda url: urllib.request.urlopen(url).close()],
    ids=["httpx", "httpx awaited", "aiohttp", "urllib"],
)
def test_what_is_recorded_is_not_told(path: Path, way: object) -> None:
    """No seam's own connection counts as one beside the recorder."""
    assert callable(way)
    with serving(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        with ember_testing.cassette(path, record="new") as cassette:
            way(server.url)
            assert len(cassette.recorded) == 1


def test_what_a_replay_allows_is_not_told(path: Path) -> None:
    """A database that `allow_hosts=` or `allow_loopback=True` lets through is nobody's news."""
    with serving(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        with ember_testing.cassette(path, record="new", allow_hosts=["127.0.0.1"]):
            by_socket(server)
        with ember_testing.cassette(path, record="new", allow_loopback=True):
            by_socket(server)


def test_libraries_with_sockets_of_their_own_are_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it records or replays, a test that has loaded libpq or gRPC is told what that is."""
    monkeypatch.setitem(sys.modules, "psycopg2._psycopg", types.ModuleType("_psycopg"))
    with pytest.warns(RecordingWarning, match=r"no guard sees: libpq \(psycopg2\); .*remains open"):
        with ember_testing.cassette(path):
            pass
