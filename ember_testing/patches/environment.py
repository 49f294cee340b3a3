"""Detect changes of `os.environ` by the audit events that they raise.

Reading the environment with each call would take longer than comparing the call.
"""

from __future__ import annotations

import os
import threading
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
# Values by variable that were announced and not yet seen: an event is raised before its change.
_announced: dict[Any, Any] = {}
# pytest sets it in each phase of each test; it holds the test's name.
_OF_PYTEST = "PYTEST_CURRENT_TEST" if os.name == "nt" else b"PYTEST_CURRENT_TEST"


def watch() -> None:
    """Declare that `note_change` is called for each change from now on."""
    global _changes
    _changes = _changes or 0


def note_change(_event: str, arguments: tuple[Any, ...]) -> None:
    """Handle an audit event: a variable is being set or deleted."""
    global _changes
    name, *values = arguments  # no value if it is being deleted
    if name != _OF_PYTEST and not getattr(_thread, "sets_placeholders", False):
        _announced[name] = values[0] if values else None
        _changes = (_changes or 0) + 1
        if sets_prices((os.fsdecode(name),)):
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
    changes = _changes  # before the check below, which may be late for a further change
    if changes is None or not is_own or not _all_made():
        return None
    return changes, id(os.environ)


def _all_made() -> bool:
    """Return whether `os.environ` has each announced change; one by `os.putenv` it never has."""
    if not _announced:
        return True
    present: Any = os.environ if os.name == "nt" else os.environb
    for name, value in tuple(_announced.items()):
        if present.get(name) != value:
            return False
        if _announced.get(name) == value:
            _announced.pop(name, None)
    return not _announced
