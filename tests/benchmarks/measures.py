"""What is measured of a client; each measure prints one number, from a process of its own.

python measures.py NAME CLIENT
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients import CLIENTS, PROMPT

Clock = Callable[[], float]


def _sync(who: str) -> Callable[[], Any]:
    make = CLIENTS[who].sync
    assert make is not None
    return make()


LONGEST = 2.0
"""Seconds that a measure of one call goes on: a slow client is called less often."""


def median_of(call: Callable[[], Any], count: int, clock: Clock) -> float:
    """Microseconds of a warm call."""
    for _ in range(count // 30 + 1):
        call()
    times: list[float] = []
    until = time.perf_counter() + LONGEST
    while len(times) < count and time.perf_counter() < until:
        started = clock()
        call()
        times.append(clock() - started)
    return statistics.median(times) * 1e6


def streamed(who: str, clock: Clock) -> float:
    """Microseconds of one streamed answer."""
    make = CLIENTS[who].streamed
    assert make is not None
    return median_of(make(), 60, clock)


def with_threads(who: str, threads: int, calls: int, clock: Clock) -> float:
    """Seconds a call, with so many threads at work."""
    call, each = _sync(who), max(1, calls // threads)
    gate = threading.Barrier(threads + 1)

    def work() -> None:
        call()
        gate.wait()
        gate.wait()
        for _ in range(each):
            call()

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    gate.wait()
    started = clock()
    gate.wait()
    for thread in running:
        thread.join()
    return (clock() - started) / (threads * each)


def at_once(who: str, tasks: int, calls: int, clock: Clock) -> float:
    """Seconds a call, with so many tasks of one event loop at work."""
    make = CLIENTS[who].awaited
    assert make is not None

    async def main() -> float:
        call = make()

        async def work(each: int) -> None:
            for _ in range(each):
                await call()

        async def all_of(each: int) -> None:
            await asyncio.gather(*(work(each) for _ in range(tasks)))

        each = max(1, calls // tasks)
        await all_of(1)
        started = clock()
        await all_of(each)
        return (clock() - started) / (each * tasks)

    return asyncio.run(main())


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(who: str, calls: int = 1000) -> float:
    """Megabytes after so many calls."""
    call = _sync(who)
    for _ in range(calls):
        call()
    return resident()


def growth(calls: int) -> float:
    """Megabytes that Ember grows by from its thousandth call on."""
    call = _sync("ember")
    for _ in range(1000):
        call()
    before = resident()
    for _ in range(calls):
        call()
    return resident() - before


def growth_of_names() -> float:
    """Kilobytes that each of a thousand model names keeps."""
    from ember.api import models

    for n in range(1000):
        models(f"gpt-4-number-{n % 10}", PROMPT)
    gc.collect()
    before = resident()
    for n in range(1000):
        models(f"gpt-4-other-{n}", PROMPT)
    gc.collect()
    return resident() - before


def dispatch(threads: int) -> float:
    """Calls a second through a registry whose provider does nothing."""
    from ember.api.models import ModelRegistry
    from ember.api.models.providers import BaseProvider, register_provider
    from ember.api.models.schemas import ChatResponse, UsageStats

    answer = ChatResponse("yes", UsageStats(1, 1, cost=0.0), "m", "null")

    class Null(BaseProvider):
        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            return answer

    register_provider("null", Null)
    registry = ModelRegistry()
    each = 320_000 // threads

    def work() -> None:
        for _ in range(each):
            registry.invoke_model("null/m", PROMPT)

    running = [threading.Thread(target=work) for _ in range(threads)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return each * threads / (time.perf_counter() - started)


def kept_memory(who: str) -> float:
    """Objects known to the garbage collector that a kept result holds, its raw body included."""
    call = _sync(who)
    for _ in range(2000):
        call()
    gc.collect()
    before = len(gc.get_objects())
    results = [call() for _ in range(1000)]
    gc.collect()
    held = (len(gc.get_objects()) - before) / 1000
    del results
    return held


def leaked(who: str) -> float:
    """Objects that stay for each call whose result is dropped."""
    call = _sync(who)
    for _ in range(2000):
        call()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        call()
    gc.collect()
    return (len(gc.get_objects()) - before) / 1000


def calls_of(who: str, calls: int) -> int:
    """How many of so many calls are made: the vendors' packages take several times longer."""
    return calls if who in ("ember", "httpx", "transport") else calls // 8


WALL, CPU = time.perf_counter, time.process_time
MEASURES: dict[str, Callable[[str], float]] = {
    "sync": lambda who: median_of(_sync(who), 3000, WALL),
    "tls": lambda who: median_of(_sync(who), 2000, WALL),
    "async": lambda who: at_once(who, 1, 2000, CPU) * 1e6,
    "threads": lambda who: 1 / with_threads(who, 128, calls_of(who, 3200), WALL),
    "async-200": lambda who: 1 / at_once(who, 200, calls_of(who, 2000), WALL),
    "stream": lambda who: streamed(who, WALL),
    "stream-cpu": lambda who: streamed(who, CPU),
    "memory": memory,
    "memory-100k": lambda who: growth(99_000),
    "memory-names": lambda who: growth_of_names(),
    "kept": kept_memory,
    "leaked": leaked,
    "dispatch-1": lambda who: dispatch(1),
    "dispatch-32": lambda who: dispatch(32),
    # Cost by calls in flight, for the plot.
    **{
        f"threads-{n}-cpu": lambda who, n=n: with_threads(who, n, calls_of(who, 2000), CPU) * 1e6
        for n in (1, 8, 32, 128)
    },
    **{
        f"tasks-{n}-cpu": lambda who, n=n: at_once(who, n, calls_of(who, 2000), CPU) * 1e6
        for n in (1, 10, 100, 200, 1000)
    },
}

if __name__ == "__main__":
    name, client = sys.argv[1:]
    print(MEASURES[name](client))
