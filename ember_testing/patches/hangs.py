"""Interrupt a test that waits forever for a thread or process that a miss has ended.

A miss is not an `Exception`, so it ends the worker of a `multiprocessing.Pool`, or the thread that
consumes a queue, and the code that waits for it would wait forever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["HangWatch", "ignore_forks", "signal_failure", "watch_forks"]

_PATIENCE = 3.0  # seconds that the main thread may stay at one instruction after a failure
_LIMIT = 60.0  # seconds after a failure until an interrupt in any case
_STEP = 0.1

# Hardly any program uses this signal. Without a handler it does nothing, so it may come too late.
_SIGNAL = getattr(signal, "SIGURG", None)
_handler: Callable[[int, FrameType | None], None] | None = None


class HangWatch:
    """Watches the main thread, where it is made, from the first failure until `end`."""

    def __init__(self) -> None:
        self.interrupted = False
        self._begun = False
        self._lock = threading.RLock()  # reentrant: a signal handler may call begin()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        # As in `pytest &` of a shell script: no interrupt would arrive.
        self._is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self._is_ignored and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt

    def begin(self) -> None:
        """Start watching after the first failure."""
        with self._lock:
            if self._begun or self._over.is_set():
                return
            self._begun = True
            self._thread = threading.Thread(
                target=self._watch, name="ember-hang-watch", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """Stop watching: the test is over."""
        with self._lock:
            self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_ignored and signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _watch(self) -> None:
        main = threading.main_thread().ident or 0
        began = since = time.monotonic()
        before: tuple[int, int] | None = None
        while not self._over.wait(_STEP):
            frame = sys._current_frames().get(main)  # pyright: ignore[reportPrivateUsage]  # documented
            place = (id(frame), frame.f_lasti) if frame else None
            del frame
            now = time.monotonic()
            if place != before:
                before, since = place, now
            elif now - since >= _PATIENCE or now - began >= _LIMIT:
                break
        with self._lock:
            if self._over.is_set():
                return
            self.interrupted = True
            # Only a real signal interrupts a thread that waits for a lock.
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)


def watch_forks(called: Callable[[], None]) -> None:
    """Call a function when a forked process reports a failure."""
    global _handler
    if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(_SIGNAL) is signal.SIG_DFL:

        def handle(_number: int, _frame: FrameType | None) -> None:
            called()

        _handler = handle
        signal.signal(_SIGNAL, handle)


def ignore_forks() -> None:
    """Remove the handler, unless it has been replaced meanwhile."""
    global _handler
    if _SIGNAL is None or _handler is None:
        return
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(_SIGNAL) is _handler
    ):
        signal.signal(_SIGNAL, signal.SIG_DFL)
    _handler = None


def signal_failure(pid: int) -> None:
    """Tell the process that runs the test that a process it forked has failed."""
    if _SIGNAL is not None:
        try:
            os.kill(pid, _SIGNAL)
        except OSError:
            return  # the process has ended
