"""Ends a test that waits for what will never come: for a thread or a process that met a miss.

A miss is no `Exception`, so it ends the worker of a `multiprocessing.Pool`, or the thread that
empties a queue, and the code that waits for them would wait for ever.
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

__all__ = ["StandstillWatch", "call_process", "listen", "listen_no_longer"]

_PATIENCE = 3.0  # seconds that the main thread may stand at one instruction after a failure
_LIMIT = 60.0  # seconds that it may go on after a failure in any case
_STEP = 0.1

# Nobody uses it and, without a handler, it does nothing: it may come too late.
_CALL = getattr(signal, "SIGURG", None)
_handler: Callable[[int, FrameType | None], None] | None = None


class StandstillWatch:
    """Looks at the main thread from the first failure on, until `end`."""

    def __init__(self) -> None:
        self.interrupted = False
        self._begun = False
        self._lock = threading.RLock()  # the handler of a signal may begin it in the midst of it
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Something has failed."""
        with self._lock:
            if self._begun or self._over.is_set():
                return
            self._begun = True
            self._thread = threading.Thread(
                target=self._watch, name="ember-standstill", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """The test is over: interrupt nothing any more."""
        with self._lock:
            self._over.set()
        if self._thread is not None:
            self._thread.join()

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
            # What waits for a lock goes on waiting unless a real signal comes.
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)


def listen(called: Callable[[], None]) -> None:
    """Have a function called when a forked process says that it failed."""
    global _handler
    if _CALL is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(_CALL) is signal.SIG_DFL:

        def handle(_number: int, _frame: FrameType | None) -> None:
            called()

        _handler = handle
        signal.signal(_CALL, handle)


def listen_no_longer() -> None:
    """Take the handler out, unless somebody has replaced it meanwhile."""
    global _handler
    if _CALL is None or _handler is None:
        return
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(_CALL) is _handler
    ):
        signal.signal(_CALL, signal.SIG_DFL)
    _handler = None


def call_process(pid: int) -> None:
    """Tell the process that a test runs in that one of those it forked has failed."""
    if _CALL is not None:
        try:
            os.kill(pid, _CALL)
        except OSError:
            return  # it is gone
