"""Whether the environment has changed: each change of `os.environ` raises an audit event.

To read the environment with each call would take longer than to compare the call.
"""

from __future__ import annotations

import os
import time

__all__ = ["EVENTS", "note_change", "version", "watch"]

EVENTS = frozenset({"os.putenv", "os.unsetenv"})
"""The audit events of which `note_change` is to be told."""

_changes: int | None = None
_last = 0.0
_SETTLES = 0.05  # seconds; the event is raised before the change is made


def watch() -> None:
    """Somebody tells of changes from now on."""
    global _changes
    _changes = _changes or 0


def note_change() -> None:
    """A variable is being set or deleted."""
    global _changes, _last
    _changes, _last = (_changes or 0) + 1, time.monotonic()


def version() -> tuple[int, int] | None:
    """Equal as long as nothing has changed; None where nobody can know."""
    # A test may have put a plain dict in the place of os.environ, which raises no event.
    if _changes is None or isinstance(os.environ, dict) or time.monotonic() - _last < _SETTLES:
        return None
    return _changes, id(os.environ)
