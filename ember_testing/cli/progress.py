"""A progress bar on a terminal, for work on many cassettes or on many calls of one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import click

__all__ = ["progress", "progress_of_calls"]

T = TypeVar("T")
_MANY_FILES = 20
_MANY_CALLS = 1000
_is_shown = False  # a second bar would overwrite the first


def progress(items: Sequence[T], label: str, many: int = _MANY_FILES) -> Iterator[T]:
    """Iterate over items; if there are many, with a progress bar on stderr if it is a terminal."""
    global _is_shown
    if _is_shown or len(items) < many or not sys.stderr.isatty():
        yield from items
        return
    _is_shown = True
    try:
        with click.progressbar(items, label=label, file=sys.stderr) as bar:
            yield from bar
    finally:
        _is_shown = False


def progress_of_calls(calls: Sequence[T], label: str) -> Iterator[T]:
    """Iterate over the calls of a cassette in the same way, unless a bar is shown already."""
    return progress(calls, label, _MANY_CALLS)
