"""One thread that reads and writes files for event loops, which must not block on a disk.

Jobs run in the order of submission, so that the n-th of several identical requests is counted as
the n-th.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["drain", "in_event_loop", "is_idle", "run", "submit"]

_Result = TypeVar("_Result")


def _nothing() -> None:
    """Do nothing: the default for `after`."""


class _Worker:
    """The thread, started with the first job; a forked process starts its own."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], object], Callable[[], object]]] = SimpleQueue()
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None
        self.pending: deque[None] = deque()  # one item per unfinished job; needs no lock

    def submit(self, job: Callable[[], object], after: Callable[[], object] = _nothing) -> None:
        self.pending.append(None)
        self._jobs.put((job, after))
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="ember-files")
                    self._thread.daemon = True
                    self._thread.start()

    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _work(self) -> None:
        while True:
            job, after = self._jobs.get()
            try:
                job()
            except BaseException:  # a bug of the toolkit; the jobs after it must still run
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
            self.pending.popleft()
            after()
            del job, after  # free what they refer to before waiting for the next job


_worker = _Worker()


def _after_fork() -> None:
    global _worker
    _worker = _Worker()  # unfinished jobs belong to the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_event_loop() -> bool:
    """Return whether the current code would block an event loop of asyncio or trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _trio() is not None
    return True


def _trio() -> Any:
    """Return the module trio if its loop runs in this thread."""
    if (trio := sys.modules.get("trio")) is None:
        return None
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return trio


def is_idle() -> bool:
    """Return whether all submitted jobs are done."""
    return not _worker.pending


def submit(job: Callable[[], None]) -> None:
    """Run a job after all jobs submitted before; it must not raise."""
    _worker.submit(job)


def drain() -> None:
    """Wait until all jobs submitted so far are done."""
    if is_idle() or _worker.is_own_thread():
        return
    over = threading.Event()
    _worker.submit(_nothing, over.set)
    over.wait()


async def run(
    job: Callable[[], _Result], undo: Callable[[_Result], None] = lambda _: None
) -> _Result:
    """Run a job outside the event loop; return its result or raise its exception.

    Args:
        job: The job.
        undo: Called with the result if the waiting task was cancelled.
    """
    __tracebackhide__ = True
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        if (trio := _trio()) is None:  # the coroutine runs without an event loop
            return job()
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        return await _awaited(job, undo, event.wait, lambda: token.run_sync_soon(event.set))
    done = loop.create_future()

    def resolve() -> None:
        if not done.done():
            done.set_result(None)

    async def wait() -> None:
        await done

    return await _awaited(job, undo, wait, lambda: loop.call_soon_threadsafe(resolve))


async def _awaited(
    job: Callable[[], _Result],
    undo: Callable[[_Result], None],
    wait: Callable[[], Any],
    wake: Callable[[], object],
) -> _Result:
    __tracebackhide__ = True
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(job())
        except BaseException as error:  # raised again in the waiting task
            errors.append(error)

    def tell() -> None:
        try:
            wake()
        except RuntimeError:  # the loop is closed
            abandon()

    def abandon() -> None:
        for result in results:
            undo(result)
        results.clear()

    _worker.submit(work, tell)
    try:
        await wait()
    except BaseException:  # cancelled
        submit(abandon)
        raise
    if errors:
        raise errors[0]
    return results[0]
