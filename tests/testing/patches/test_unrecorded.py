"""While a cassette records, unrecorded connections are reported, one line per test."""

# ruff: noqa: SIM117, PT031 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import asyncio
import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
import types
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing import RecordingWarning
from tests.loopback import Loopback, echo, serving


def by_socket(server: Loopback) -> None:
    """Connect with a plain socket of this module."""
    socket.create_connection(("127.0.0.1", server.port)).close()


def by_asyncio(server: Loopback) -> None:
    """Connect with an event loop."""

    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())


def by_library(server: Loopback) -> None:
    """Connect with a package."""
    module = types.ModuleType("somedriver.wire")
    exec("import socket\ndef connect(at): socket.create_connection(at).close()", vars(module))
    module.connect(("127.0.0.1", server.port))


@pytest.mark.parametrize(
    ("way", "name"),
    [(by_socket, "tests"), (by_asyncio, "tests"), (by_library, "somedriver")],
)
def test_unrecorded_connection_is_reported_once(path: Path, way: object, name: str) -> None:
    """Host, port and connecting package are reported; the recorded call is not."""
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
    """Call with aiohttp, which connects through the event loop."""
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            await response.read()

    asyncio.run(get())


def by_httpx_awaited(url: str) -> None:
    """Call with async httpx, which races its connections in tasks."""

    async def get() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(url.replace("127.0.0.1", "localhost"))

    asyncio.run(get())


@pytest.mark.parametrize(
    "way",
    [httpx.get, by_httpx_awaited, by_aiohttp, lambda url: urllib.request.urlopen(url).close()],
    ids=["httpx", "httpx awaited", "aiohttp", "urllib"],
)
def test_recorded_connection_is_not_reported(path: Path, way: object) -> None:
    """The connections that a seam makes are not reported as unrecorded."""
    assert callable(way)
    with serving(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        with ember_testing.cassette(path, record="new") as cassette:
            way(server.url)
            assert len(cassette.recorded) == 1


def test_allowed_connection_is_not_reported(path: Path) -> None:
    """Hosts of `allow_hosts=`, `allow_loopback=True` or `ignore_hosts=` are not reported."""
    with serving(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        with ember_testing.cassette(path, record="new", allow_hosts=["127.0.0.1"]):
            by_socket(server)
        with ember_testing.cassette(path, record="new", allow_loopback=True):
            by_socket(server)
        with ember_testing.cassette(path, record="new", ignore_hosts=["127.0.0.0/8"]):
            by_socket(server)


def test_libraries_with_sockets_of_their_own_are_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that has loaded libpq or gRPC is warned in a replay as well as in a recording."""
    monkeypatch.setitem(sys.modules, "psycopg2._psycopg", types.ModuleType("_psycopg"))
    with pytest.warns(RecordingWarning, match=r"no guard sees: libpq \(psycopg2\); .*remains open"):
        with ember_testing.cassette(path):
            pass


CHILD = "import urllib.request as u; u.urlopen('{}')"


def child(url: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Request a URL in a child process."""
    command = [sys.executable, "-c", CHILD.format(url)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def system(url: str) -> None:
    """Request a URL in a child process with the C library's environment."""
    os.system(f"{sys.executable} -c {shlex.quote(CHILD.format(url))} 2>/dev/null")


@pytest.mark.skipif(sys.platform == "win32", reason="children are started elsewise")
@pytest.mark.parametrize("way", [child, system])
def test_connection_of_a_child_process_is_reported_once(
    path: Path, way: Callable[[str], object]
) -> None:
    """Host and port that a child requests are reported once; a local server is not."""
    with serving(echo) as server, pytest.warns(RecordingWarning) as caught:
        with ember_testing.cassette(path, record="new"):
            way("https://provider.invalid/v1")
            way("https://provider.invalid/v2")
            way("http://other.invalid:81/")
            way(server.url)
    assert len(server.received) == 1
    (warning,) = caught
    assert (
        "not recorded: connections to provider.invalid:443 by a child process, other.invalid:81 by "
        "a child process; a replay refuses them" in str(warning.message)
    )


def test_allowed_connection_of_a_child_process_is_not_reported(path: Path) -> None:
    """Nothing is reported for `allow_hosts=`, `ignore_hosts=`, `allow_subprocess=True`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        for arguments in (
            {"allow_hosts": ["*.invalid"]},
            {"ignore_hosts": ["provider.invalid"]},
            {"allow_subprocess": True},
        ):
            with ember_testing.cassette(path, record="new", **arguments):  # type: ignore[arg-type]  # any
                child("https://provider.invalid/v1")


def test_child_process_keeps_its_own_proxy(path: Path) -> None:
    """While recording, a child's own proxy settings are not changed."""
    with serving(echo) as server, ember_testing.cassette(path, record="new"):
        child("http://provider.invalid/v1", {**os.environ, "http_proxy": server.url})
    assert [request.headers["host"] for request in server.received] == ["provider.invalid"]


def twice(port: int) -> None:
    """Connect twice to the same port."""
    for _ in range(2):
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_connection_of_a_forked_process_is_reported(path: Path) -> None:
    """A plain socket of a forked process is reported like one of the test itself."""
    with serving(echo) as server, pytest.warns(RecordingWarning) as caught:
        with ember_testing.cassette(path, record="new"):
            process = multiprocessing.get_context("fork").Process(target=twice, args=(server.port,))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the server's threads
                process.start()
            process.join()
    (warning,) = caught
    assert f"not recorded: connections to 127.0.0.1:{server.port} by tests;" in str(warning.message)


def test_child_process_reaches_its_hosts_after_the_recording(path: Path) -> None:
    """A child such as a fixture's server can still use the same proxy after the test."""
    code = "import sys, urllib.request as u; sys.stdin.read()\n" + CHILD.format("http://x.invalid/")
    with ember_testing.cassette(path, record="new"):
        late = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        _, errors = late.communicate()
    assert "HTTP Error 502: x.invalid:80 cannot be reached" in errors
