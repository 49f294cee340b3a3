"""`no_sleep`: skipping retry waits in a replay."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import pytest
import tenacity
import trio

import ember_testing
from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember_testing.faults import rate_limit, slow
from tests.loopback import Received, Reply, serving

LONG = 30.0
"""Seconds; a test that really waited this long would be noticed."""


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
    """Sleep functions, and retries based on them, return at once, and are restored afterwards."""
    before = time.sleep, asyncio.sleep, anyio.sleep, trio.sleep
    started = time.monotonic()
    with ember_testing.no_sleep() as waits:
        WAYS[way]()
    assert time.monotonic() - started < LONG / 2
    assert waits.waits == [LONG]
    assert repr(waits) == "NoSleep(1 waits, 30 s)"
    assert (time.sleep, asyncio.sleep, anyio.sleep, trio.sleep) == before


def test_other_tasks_still_run_while_one_sleeps() -> None:
    """`asyncio.sleep` still yields to other tasks."""

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
    """A recording waits as the provider asks; the replay takes no time."""
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
    """The summary says how many seconds were skipped."""
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


class TestWhatIsNoRetry:
    """Only retries of the code under test are skipped."""

    @staticmethod
    def turns(during: Callable[[Callable[[], None]], None]) -> int:
        """Return the turns of a loop with sleeps of 0.05 s beyond those that fit the time."""
        count, over = 0, threading.Event()

        def beat() -> None:
            nonlocal count
            while not over.is_set():
                count += 1
                time.sleep(0.05)

        started = time.monotonic()
        during(beat)
        over.set()
        return count - int((time.monotonic() - started) / 0.05)

    @pytest.mark.parametrize("started", ["before", "inside"])
    def test_thread_that_calls_no_model_really_sleeps(self, started: str) -> None:
        """A thread that calls no model really sleeps, whenever it was started."""

        def during(beat: Callable[[], None]) -> None:
            thread = threading.Thread(target=beat, daemon=True)
            if started == "before":
                thread.start()
            with ember_testing.no_sleep() as waits:
                if started == "inside":
                    thread.start()
                time.sleep(LONG)
                threading.Event().wait(0.2)
            assert waits.waits == [LONG]

        assert self.turns(during) <= 2

    def test_task_that_only_waits_soon_really_sleeps(self) -> None:
        """A task that only waits repeatedly is a clock: its waits are soon real again."""
        turns = 0

        async def beat() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.05)

        async def both() -> None:
            nonlocal turns
            task = asyncio.create_task(beat())
            started = time.monotonic()
            while time.monotonic() - started < 0.2:
                await asyncio.to_thread(threading.Event().wait, 0.05)
            task.cancel()
            turns -= int((time.monotonic() - started) / 0.05)

        with ember_testing.no_sleep():
            asyncio.run(both())
        assert turns <= 12

    def test_waits_of_retries_in_a_pool_are_skipped(self) -> None:
        """Waits of a thread that calls a model are retries, whenever it was started."""

        def ask() -> None:
            for _ in range(20):
                with pytest.raises(ProviderAPIError):
                    models("gpt-4", "hi")
                time.sleep(LONG)

        with ember_testing.fake_model() as fake, ThreadPoolExecutor(1) as pool:
            fake("gpt-4", lambda call: rate_limit())
            pool.submit(time.monotonic).result()  # starts the thread before the block
            with ember_testing.no_sleep() as waits:
                pool.submit(ask).result()
        assert waits.waits == [LONG] * 20

    def test_delay_of_a_slow_fake_is_not_skipped(self) -> None:
        """The delay of a slow fake answer is not skipped."""
        answer = slow(0.05, answer="Paris")
        with ember_testing.fake_model("gpt-4", answer), ember_testing.no_sleep() as waits:
            started = time.monotonic()
            assert models("gpt-4", "hi").text == "Paris"
            assert time.monotonic() - started >= 0.05
            asyncio.run(asyncio.sleep(LONG))
        assert waits.waits == [LONG]
