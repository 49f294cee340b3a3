"""Requests at the seam: ask the answerers, and collect the exchange if the request is sent."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ember_testing.patches import worker
from ember_testing.patches.sleep import note_call, wait, wait_async
from ember_testing.wires.response import NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from ember_testing.wires.body import Headers

__all__ = [
    "Answerer",
    "Exchange",
    "Later",
    "Reply",
    "answer_of",
    "answer_of_async",
    "answerers",
    "answerers_for",
    "close_abandoned",
    "is_sending",
    "sending",
]


_MOST_TIMES = 64
_change = threading.Lock()
_times: dict[datetime, int] = {}  # how many calls were sent at the same time


def _now() -> datetime:
    """Return the time, plus a microsecond for each earlier call at the same time.

    No two calls of a process share a time, even if a test has frozen the clock: it identifies them.
    """
    now = datetime.now(timezone.utc)
    with _change:
        before = _times.pop(now, 0)
        _times[now] = before + 1
        if len(_times) > _MOST_TIMES:
            del _times[next(iter(_times))]
    return now + timedelta(microseconds=before)


class Exchange:
    """A call that is sent and recorded: its request, the chunks of its response, how it ends.

    Args:
        request: The request as sent.
        keep: Called once with the exchange when it is over; in a separate thread if it would
            block an event loop.
    """

    def __init__(self, request: Request, keep: Callable[[Exchange], None]) -> None:
        self.request = request
        self._keep = keep
        self._started = time.perf_counter()
        self.recorded_at = _now().isoformat(timespec="microseconds")  # when it was sent
        self.status: int | None = None  # until the headers arrive
        self.headers: Headers = ()
        self.http_version = ""  # such as HTTP/1.1
        self.reason = ""
        self.headers_after: float | None = None  # seconds
        self.chunks: list[tuple[float, bytes]] = []  # with the seconds until they arrived
        # `complete`, `closed`, `cut`, `failed` or `cancelled`; `unsent` if nothing reached the
        # network, and nothing is recorded; "" until the call is over.
        self.outcome = ""
        self.error: NetworkFailure | None = None
        self.elapsed = 0.0  # seconds until it was over

    def head(self, status: int, headers: Headers, http_version: str, reason: str) -> None:
        """Record the response's status and headers."""
        self.headers_after = time.perf_counter() - self._started
        self.status, self.headers = status, headers
        self.http_version, self.reason = http_version, reason

    def piece(self, data: bytes) -> None:
        """Record a chunk of the response."""
        self.chunks.append((time.perf_counter() - self._started, data))

    def finish(self, outcome: str, error: NetworkFailure | None = None) -> None:
        """End the call; only the first end counts.

        Args:
            outcome: `complete`, `closed`, `cut`, `failed` or `unsent`; `closed` before the
                response's headers becomes `cancelled`.
            error: The error that broke it, by httpx's name.
        """
        if self.outcome:
            return
        cancelled = outcome == "closed" and self.status is None
        self.outcome, self.error = "cancelled" if cancelled else outcome, error
        self.elapsed = time.perf_counter() - self._started
        if worker.in_event_loop():
            worker.submit(partial(self._keep, self))
        else:
            self._keep(self)

    async def finish_and_keep(self, outcome: str) -> None:
        """End the call, and wait until it has been recorded."""
        self.finish(outcome)
        if not worker.is_idle():
            await worker.run(lambda: None)  # done once all earlier jobs are done


class Later(NamedTuple):
    """No answer yet: another process is sending the same request."""

    seconds: float  # to wait
    ask: Callable[[], Reply]  # called after the wait


Reply: TypeAlias = "Response | Exchange | Later"
"""A response, an exchange that sends and records the request, or a time to ask again."""


class Answerer(NamedTuple):
    """Answers requests in place of the network."""

    # Returns whether it may answer a request to this URL, before its body is read.
    accepts: Callable[[str], bool]
    # Returns None if the next answerer is to be asked.
    answer: Callable[[Request], Reply | None]
    # The same in an event loop; None if `answer` touches no file.
    answer_async: Callable[[Request], Awaitable[Reply | None]] | None = None


answerers: list[Answerer] = []
"""The answerers in the order in which they are asked; `transport.install` adds one."""

# The request being sent. It may pass more than one seam (urllib3 sends through http.client, or a
# wrapper holds a patched method of an earlier block), but answerers are asked about it once.
_sent: ContextVar[tuple[str, str] | None] = ContextVar("ember_testing_sent", default=None)


def answerers_for(method: str, url: str) -> list[Answerer]:
    """Return the answerers to ask about a request, before its body is read."""
    if not answerers or _sent.get() == (method, url):
        return []
    return [each for each in answerers if each.accepts(url)]


def answer_of(chosen: list[Answerer], request: Request) -> Response | Exchange | None:
    """Return the first answer that is not None; None to send the request unrecorded."""
    __tracebackhide__ = True  # a miss is reported without these frames
    note_call()
    answer: Reply | None = None
    for each in chosen:
        if (answer := each.answer(request)) is not None:
            break
    while isinstance(answer, Later):
        wait(answer.seconds)
        answer = answer.ask()
    return answer


async def answer_of_async(chosen: list[Answerer], request: Request) -> Response | Exchange | None:
    """Do the same as `answer_of`, in an event loop."""
    __tracebackhide__ = True
    note_call()
    answer: Reply | None = None
    for each in chosen:
        if each.answer_async is not None:
            answer = await each.answer_async(request)
        else:
            answer = each.answer(request)
        if answer is not None:
            break
    while isinstance(answer, Later):
        await wait_async(answer.seconds)
        answer = await worker.run(answer.ask, close_abandoned)
    return answer


def close_abandoned(answer: Reply | None) -> None:
    """Close the exchange of a cancelled caller, so that the recording shows the call."""
    if isinstance(answer, Exchange):
        answer.finish("closed")


def is_sending() -> bool:
    """Return whether the current code runs inside a library that sends a request."""
    return _sent.get() is not None


@contextmanager
def sending(method: str, url: str) -> Generator[None]:
    """Ask no answerer about this request inside the block."""
    sent = _sent.set((method, url))
    try:
        yield
    finally:
        _sent.reset(sent)
