"""`no_sleep`: retry waits that a replay need not wait for again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest
import tenacity
import trio

import ember_testing
from tests.loopback import Received, Reply, serving

LONG = 30.0
"""Seconds; a test that waited for them would be noticed."""


WAYS: dict[str, Callable[[], object]] = {
    "time": lambda: time.sleep(LONG),
    "asyncio": lambda: asyncio.run(asyncio.wait_for(_asyncio(), 5)),
    "anyio": lambda: anyio.run(_anyio),
    "anyio on trio": lambda: anyio.run(_anyio, backend="trio"),
    "trio": lambda: trio.run(_trio),
    "tenacity": lambda: _retried(),
    "tenacity awaited": lambda: asyncio.run(_retried_awaited()),
    "tenacity on trio": lambda: trio.run(_retried_awaited),
}


async def _asyncio() -> None:
    assert await asyncio.sleep(LONG, "result") == "result"


async def _anyio() -> None:
    await anyio.sleep(LONG)


async def _trio() -> None:
    await trio.sleep(LONG)


def _retrying() -> tenacity.Retrying:
    return tenacity.Retrying(wait=tenacity.wait_fixed(LONG), stop=tenacity.stop_after_attempt(2))


def _retried() -> None:
    for attempt in _retrying():
        with attempt:
            assert attempt.retry_state.attempt_number == 2


async def _retried_awaited() -> None:
    waits = tenacity.wait_fixed(LONG)
    async for attempt in tenacity.AsyncRetrying(wait=waits, stop=tenacity.stop_after_attempt(2)):
        with attempt:
            assert attempt.retry_state.attempt_number == 2


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_wait_returns_at_once_and_is_counted(way: str) -> None:
    """The libraries' own sleeps and the retries upon them; afterwards they are the old ones."""
    before = time.sleep, asyncio.sleep, anyio.sleep, trio.sleep
    started = time.monotonic()
    with ember_testing.no_sleep() as waits:
        WAYS[way]()
    assert time.monotonic() - started < LONG / 2
    assert waits.waits == [LONG]
    assert repr(waits) == "NoSleep(1 waits, 30 s)"
    assert (time.sleep, asyncio.sleep, anyio.sleep, trio.sleep) == before


def test_other_tasks_still_run_while_one_sleeps() -> None:
    """`asyncio.sleep` stays a point where others take their turn."""

    async def turns() -> list[str]:
        order: list[str] = []

        async def work(name: str) -> None:
            for _ in range(2):
                order.append(name)
                await asyncio.sleep(LONG)

        await asyncio.gather(work("a"), work("b"))
        return order

    with ember_testing.no_sleep():
        assert asyncio.run(turns()) == ["a", "b", "a", "b"]


def test_a_recording_waits_and_its_replay_does_not(tmp_path: Path) -> None:
    """While a provider is really asked its wish is kept; the replay is told apart by its time."""
    replies = [Reply(b"{}", status=429, headers={"retry-after": "1"}), Reply(b"{}")]

    def patient(url: str) -> int:
        for _ in range(2):
            answer = httpx.post(url, json={"q": 1})
            if answer.status_code == 429:
                time.sleep(0.2 * float(answer.headers["retry-after"]))
        return answer.status_code

    def answer(request: Received) -> Reply:
        return replies.pop(0)

    path = tmp_path / "c.sqlite"
    with serving(answer) as server, ember_testing.no_sleep() as waits:
        with ember_testing.cassette(path, record="new", record_errors=True):
            started = time.monotonic()
            assert patient(server.url) == 200
            assert time.monotonic() - started >= 0.2
        assert waits.waits == []
        with ember_testing.cassette(path):
            assert patient("http://127.0.0.1:1") == 200
        assert waits.waits == [0.2]


def test_the_fixture_gives_the_waits_and_the_summary_tells_them(
    run: Callable[..., pytest.RunResult],
) -> None:
    """Offered, never silent: the line at the end says how much was left out."""
    result = run(
        """
import time, pytest
@pytest.mark.ember_replay
def test_one(no_sleep):
    time.sleep(50)
    assert no_sleep.seconds == 50
"""
    )
    result.stdout.fnmatch_lines(["*50.0 s of waits left out*", "1 passed*"])
