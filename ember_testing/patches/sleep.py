"""Retry waits that need not be waited for again; offered, never silent."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ember_testing.patches.clock import skip
from ember_testing.patches.transport import innermost

if TYPE_CHECKING:
    from types import ModuleType

_CHANGE = threading.RLock()
_SYNC, _AWAITED = ("time",), ("asyncio", "anyio", "trio")
_active: list[NoSleep] = []
_originals: dict[str, Callable[..., Any]] = {}


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
                _take_out()


def _put_in() -> None:
    for name in (*_SYNC, *_AWAITED):
        module = _module(name)
        if module is not None:
            original: Callable[..., Any] = module.sleep
            _originals[name] = original
            module.sleep = _instant(original) if name in _SYNC else _awaited_instant(original)  # type: ignore[attr-defined]  # a module's own function


def _take_out() -> None:
    for name, original in _originals.items():
        importlib.import_module(name).sleep = original  # type: ignore[attr-defined]  # as above
    _originals.clear()


def _module(name: str) -> ModuleType | None:
    """A module that a program may sleep with: one that nobody has loaded, nobody uses."""
    return importlib.import_module(name) if name in ("time", "asyncio") else sys.modules.get(name)


def _left_out(seconds: float) -> bool:
    """Note a wait, unless a cassette records."""
    session = innermost()
    if not _active or seconds <= 0 or (session is not None and session.record):
        return False
    _active[-1].waits.append(seconds)
    skip(seconds)  # a fake's verdict takes it for waited
    if session is not None:
        session.tally.waits += seconds
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
