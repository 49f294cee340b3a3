"""`ignore_hosts`: side calls that are neither recorded nor replayed and do not fail the test."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing import NetworkBlocked
from tests.loopback import serving
from tests.testing.chat import ask, chat, client, post

NAME = "http://telemetry.example.com/v1"


def test_an_ignored_host_is_refused_in_a_replay(path: Path) -> None:
    """Sync, async and in urllib a call gets a connection error, and the test does not fail."""

    async def awaited() -> None:
        async with httpx.AsyncClient(verify=False) as sender:
            await sender.get(NAME)

    with serving(chat) as server, ember_testing.cassette(path, record="new"):
        ask(server.url, "Paris")
    with ember_testing.cassette(path, ignore_hosts=["*.example.com", "203.0.113.0/24"]) as calls:
        for url in (NAME, "http://203.0.113.7/"):
            with client() as sender, pytest.raises(httpx.ConnectError, match="ignore_hosts"):
                sender.get(url)
        with pytest.raises(httpx.ConnectError):
            asyncio.run(awaited())
        with pytest.raises(urllib.error.URLError) as error:
            urllib.request.urlopen(NAME)
        assert isinstance(error.value.reason, ConnectionRefusedError)
        ask(server.url, "Paris")
        assert len(calls.played) == 1
    with (
        pytest.raises(NetworkBlocked),
        ember_testing.cassette(path, ignore_hosts=["*.example.com"]),
    ):
        socket.create_connection(("203.0.113.7", 80))


def test_an_ignored_host_is_reached_but_not_recorded(path: Path) -> None:
    """While recording, the call is sent but not recorded or reported."""
    with serving() as server:
        with ember_testing.cassette(path, record="new", ignore_hosts=["127.0.0.1"]) as calls:
            post(server.url, {"q": 1})
            urllib.request.urlopen(server.url, data=b"{}").close()
            assert not calls.recorded
        assert len(server.received) == 2
        with (
            ember_testing.cassette(path, ignore_hosts=["127.0.0.1"]),
            pytest.raises(httpx.ConnectError),
        ):
            post(server.url, {"q": 1})
        assert len(server.received) == 2


def test_ignored_hosts_of_ini_and_marker_are_joined(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """Hosts of both are ignored; a call to a third host fails the test."""
    pytester.makeini("[pytest]\nember_ignore_hosts = a.example.com")
    result = run("""
import httpx, pytest
@pytest.mark.ember_replay(ignore_hosts=["b.example.com"])
@pytest.mark.parametrize("host", ["a", "b", "c"])
def test_it(host):
    with httpx.Client(verify=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://{host}.example.com/")
""")
    result.assert_outcomes(passed=2, failed=1)


def test_wide_fixture_ignores_the_hosts_of_all_its_tests(
    run: Callable[..., pytest.RunResult],
) -> None:
    """The hosts ignored by any test that uses the fixture are ignored, whichever runs first."""
    run("""
import httpx, pytest
@pytest.fixture(scope="module")
def value():
    for host in ("a", "b"):
        with httpx.Client(verify=False) as client, pytest.raises(httpx.ConnectError):
            client.get(f"http://{host}.example.com/")
@pytest.mark.ember_replay(ignore_hosts=["a.example.com"])
def test_a(value): pass
@pytest.mark.ember_replay(ignore_hosts=["b.example.com"])
def test_b(value): pass
""").assert_outcomes(passed=2)


def test_invalid_ignored_host_is_refused() -> None:
    """An invalid host is an error that names the argument."""
    with (
        pytest.raises(ValueError, match="ignore_hosts"),
        ember_testing.cassette("a.sqlite", ignore_hosts=["http://x"]),
    ):
        pass
