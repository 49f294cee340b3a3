"""Retry waits that need not be waited for again; offered, never silent."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ember_testing.patches.patch import Patch

__all__ = ["NoSleep", "no_sleep", "now", "wait", "wait_async", "watch"]

_CHANGE = threading.RLock()
_active: list[NoSleep] = []
_patches: dict[str, Patch] = {}
_watchers: list[Callable[[float], bool]] = []
# Seconds that a thread or task slept without waiting. With one number for all, two tasks that wait
# at the same time would seem to have waited for each other's seconds as well.
_skipped: ContextVar[float] = ContextVar("ember_testing_skipped", default=0.0)
# Set while the toolkit itself waits, for a slow answer or a recorded pause.
_own: ContextVar[bool] = ContextVar("ember_testing_waits", default=False)


class NoSleep:
    """The waits that were left out.

    Attributes:
        waits: Seconds of each, in their order.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []

    @property
    def seconds(self) -> float:
        """All of them together."""
        return sum(self.waits)

    def __repr__(self) -> str:
        return f"NoSleep({len(self.waits)} waits, {self.seconds:g} s)"


@contextmanager
def no_sleep() -> Generator[NoSleep]:
    """Make `sleep` of time, asyncio, anyio and trio return at once inside the block.

    So do the waits of retries that use them: tenacity, stamina, backoff, the vendors' SDKs. While a
    cassette records, a wait is a provider's wish and is kept. `await asyncio.sleep(...)` still lets
    other tasks run. A function that was imported by name before the block (`from time import
    sleep`) and an `Event.wait(timeout)` wait as ever.

    Yields:
        The waits that were left out, for assertions: `waits.seconds`.
    """
    waits = NoSleep()
    with _CHANGE:
        if not _active:
            _put_in()
        _active.append(waits)
    try:
        yield waits
    finally:
        with _CHANGE:
            _active.remove(waits)
            if not _active:
                for patch in _patches.values():
                    patch.take_out()


def watch(watcher: Callable[[float], bool]) -> None:
    """Ask about each wait from now on whether it may be left out."""
    _watchers.append(watcher)


def now() -> float:
    """Seconds on a clock that goes on with every wait, whether it was waited for or left out."""
    return time.monotonic() + _skipped.get()


def wait(seconds: float) -> None:
    """Wait, whatever is left out meanwhile."""
    own = _own.set(True)
    try:
        time.sleep(seconds)
    finally:
        _own.reset(own)


async def wait_async(seconds: float) -> None:
    """The same in an event loop."""
    import anyio  # late: httpx's own dependency, needed for slow answers only

    own = _own.set(True)
    try:
        await anyio.sleep(seconds)
    finally:
        _own.reset(own)


def _put_in() -> None:
    for name, instant in _INSTANT.items():
        # A library that is not loaded is not slept with.
        if name not in _patches and (module := sys.modules.get(name)) is not None:
            _patches[name] = Patch(module, "sleep", instant)
    for patch in _patches.values():
        patch.put_in()


def _left_out(seconds: float) -> bool:
    """Note a wait, unless it is to be kept."""
    if not _active or _own.get() or seconds <= 0:
        return False
    if not all(watcher(seconds) for watcher in _watchers):
        return False
    _active[-1].waits.append(seconds)
    _skipped.set(_skipped.get() + seconds)  # a fake's verdict takes it for waited
    return True


def _instant(original: Callable[..., Any]) -> Callable[..., Any]:
    def sleep(seconds: float, /) -> None:
        if not _left_out(seconds):
            original(seconds)

    return sleep


def _awaited_instant(original: Callable[..., Any]) -> Callable[..., Any]:
    async def sleep(delay: float, *arguments: Any, **named: Any) -> Any:
        return await original(0 if _left_out(delay) else delay, *arguments, **named)

    return sleep


_INSTANT: Mapping[str, Callable[[Any], Any]] = {
    time.__name__: _instant,
    asyncio.__name__: _awaited_instant,
    "anyio": _awaited_instant,
    "trio": _awaited_instant,
}
