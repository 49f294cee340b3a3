"""Detect changes of `os.environ` by the audit events that they raise.

Reading the environment with each call would take longer than comparing the call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "EVENTS",
    "before_price_change",
    "note_change",
    "placeholders_only",
    "sets_prices",
    "version",
    "watch",
]

EVENTS = frozenset({"os.putenv", "os.unsetenv"})
"""The audit events for which `note_change` must be called."""
_PRICES = ("EMBER_COST_", "EMBER_MODEL_COSTS_JSON", "EMBER_PRICES")
before_price_change: set[Callable[[], object]] = set()
"""Called before a variable that sets prices changes."""

_thread = threading.local()
_changes: int | None = None
_last = 0.0
_SETTLES = 0.05  # seconds; the event is raised before the change is made
# pytest sets it in each phase of each test; it holds the test's name.
_OF_PYTEST = "PYTEST_CURRENT_TEST" if os.name == "nt" else b"PYTEST_CURRENT_TEST"


def watch() -> None:
    """Declare that `note_change` is called for each change from now on."""
    global _changes
    _changes = _changes or 0


def note_change(_event: str, arguments: tuple[Any, ...]) -> None:
    """Handle an audit event: a variable is being set or deleted."""
    global _changes, _last
    if arguments[0] != _OF_PYTEST and not getattr(_thread, "sets_placeholders", False):
        _changes, _last = (_changes or 0) + 1, time.monotonic()
        if sets_prices((os.fsdecode(arguments[0]),)):
            for call in tuple(before_price_change):
                call()


@lru_cache(maxsize=16)
def sets_prices(variables: tuple[str, ...]) -> bool:
    """Return whether variables of these names set prices."""
    return any(name.startswith(_PRICES) for name in variables)


@contextmanager
def placeholders_only() -> Generator[None]:
    """Count no changes of this thread inside the block, which sets or deletes placeholders."""
    _thread.sets_placeholders = True
    try:
        yield
    finally:
        _thread.sets_placeholders = False


def version() -> tuple[int, int] | None:
    """Return a value that is equal while nothing changes; None if that is unknown."""
    # A test may have replaced os.environ with another mapping, which raises no event.
    is_own = type(os.environ).__module__ == os.__name__
    if _changes is None or not is_own or time.monotonic() - _last < _SETTLES:
        return None
    return _changes, id(os.environ)
