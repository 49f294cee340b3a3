"""A caller's own time: what passes, and what it slept without waiting (`no_sleep`)."""

from __future__ import annotations

import time
from contextvars import ContextVar

__all__ = ["now", "skip"]

# A number for each thread and task: with one for all, two tasks that wait at the same time would
# seem to have waited for each other's seconds as well.
_skipped: ContextVar[float] = ContextVar("ember_testing_skipped", default=0.0)


def now() -> float:
    """Seconds on a clock that goes on with every wait, whether it was waited for or left out."""
    return time.monotonic() + _skipped.get()


def skip(seconds: float) -> None:
    """Count a wait that was left out, for the thread or task that wanted it."""
    _skipped.set(_skipped.get() + seconds)
