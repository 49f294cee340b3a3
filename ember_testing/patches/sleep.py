"""Skip the waits between retries, only on request."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ember_testing.patches.patch import Patch

__all__ = [
    "NoSleep",
    "Skip",
    "flow",
    "no_sleep",
    "note_call",
    "skips",
    "wait",
    "wait_async",
    "watch",
]

# Most waits in a row without a call in between; a task with more is a clock, not a retry.
_MOST_IN_A_ROW = 10
_CHANGE = threading.RLock()
_active: list[NoSleep] = []
_patches: dict[str, Patch] = {}
_watchers: list[Callable[[float], bool]] = []
# How many waits of a thread or task were skipped since its last call.
_in_a_row: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_inside: ContextVar[bool] = ContextVar("ember_testing_no_sleep", default=False)
# Set while the toolkit itself waits for a slow answer or a recorded pause.
_own: ContextVar[bool] = ContextVar("ember_testing_waits", default=False)


class Skip(NamedTuple):
    """A wait that was skipped."""

    at: float  # by `time.monotonic()`
    seconds: float
    flow: object  # the thread or task that called `sleep`


_skips: deque[Skip] = deque(maxlen=10_000)


class NoSleep:
    """The waits that were skipped.

    Attributes:
        waits: Seconds of each wait, in order.
        thread: The thread that entered the block.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.thread = threading.current_thread()

    @property
    def seconds(self) -> float:
        """The sum of all waits."""
        return sum(self.waits)

    def __repr__(self) -> str:
        return f"NoSleep({len(self.waits)} waits, {self.seconds:g} s)"


@contextmanager
def no_sleep() -> Generator[NoSleep]:
    """Make `sleep` of time, asyncio, anyio and trio return at once inside the block.

    So do retries that use them: tenacity, stamina, backoff, the vendors' SDKs. While a cassette
    records, waits are kept because the provider asked for them. `await asyncio.sleep(...)` still
    lets other tasks run. A function that was imported by name before the block (`from time import
    sleep`) and `Event.wait(timeout)` wait as usual. So does code other than the code under test: a
    thread that neither started in the block nor called a model in it, and a task that waits again
    and again without a call in between, such as a heartbeat.

    Yields:
        The waits that were skipped, for assertions: `waits.seconds`.
    """
    waits = NoSleep()
    with _CHANGE:
        if not _active:
            _install()
        _active.append(waits)
    inside = _inside.set(True)
    try:
        yield waits
    finally:
        with suppress(ValueError):  # the block ends in another context than it started in
            _inside.reset(inside)
        with _CHANGE:
            _active.remove(waits)
            if not _active:
                for patch in _patches.values():
                    patch.uninstall()


def watch(watcher: Callable[[float], bool]) -> None:
    """Call a function before each wait, which returns whether it may be skipped."""
    _watchers.append(watcher)


def flow() -> Any:
    """Return the current task in an event loop, else the current thread."""
    task: Any = None
    with suppress(RuntimeError):  # no event loop here
        task = asyncio.current_task()
    if task is None and (trio := sys.modules.get("trio")) is not None:
        with suppress(RuntimeError):
            task = trio.lowlevel.current_task()
    return task or threading.current_thread()


def note_call() -> None:
    """Record a call of this thread or task: its next waits are retries."""
    if _active:
        _in_a_row[flow()] = 0


def skips() -> list[Skip]:
    """Return the latest waits that were skipped."""
    return [*_skips]


def wait(seconds: float) -> None:
    """Wait even if waits are skipped."""
    own = _own.set(True)
    try:
        time.sleep(seconds)
    finally:
        _own.reset(own)


async def wait_async(seconds: float) -> None:
    """Wait in an event loop even if waits are skipped."""
    import anyio  # late: a dependency of httpx, needed only for slow answers

    own = _own.set(True)
    try:
        await anyio.sleep(seconds)
    finally:
        _own.reset(own)


def _install() -> None:
    for name, instant in _INSTANT.items():
        # A library that is not imported cannot be sleeping.
        if name not in _patches and (module := sys.modules.get(name)) is not None:
            _patches[name] = Patch(module, "sleep", instant)
    for patch in _patches.values():
        patch.install()


def _is_skipped(seconds: float) -> bool:
    """Record a wait and return True, unless it must be kept."""
    if not _active or _own.get() or seconds <= 0 or not _is_retry(current := flow()):
        return False
    if not all(watcher(seconds) for watcher in _watchers):
        return False
    _active[-1].waits.append(seconds)
    _skips.append(Skip(time.monotonic(), seconds, current))
    return True


def _is_retry(current: Any) -> bool:
    """Return whether the waiting code may be under test and is not a clock."""
    thread = threading.current_thread()
    mine = any(thread is block.thread for block in _active)
    if mine and current is thread:
        return True
    count = _in_a_row.get(current)
    if count is None and not mine and not _inside.get():
        return False
    _in_a_row[current] = (count or 0) + 1
    return _in_a_row[current] <= _MOST_IN_A_ROW


def _instant(original: Callable[..., Any]) -> Callable[..., Any]:
    def sleep(seconds: float, /) -> None:
        if not _is_skipped(seconds):
            original(seconds)

    return sleep


def _awaited_instant(original: Callable[..., Any]) -> Callable[..., Any]:
    async def sleep(delay: float, *arguments: Any, **named: Any) -> Any:
        return await original(0 if _is_skipped(delay) else delay, *arguments, **named)

    return sleep


_INSTANT: Mapping[str, Callable[[Any], Any]] = {
    time.__name__: _instant,
    asyncio.__name__: _awaited_instant,
    "anyio": _awaited_instant,
    "trio": _awaited_instant,
}
