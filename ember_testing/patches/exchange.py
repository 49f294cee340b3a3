"""A request on its way: who is asked about it, and what is kept of it where it is sent."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ember_testing.patches import worker
from ember_testing.patches.sleep import note_call, wait, wait_async
from ember_testing.wires.response import Broken, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from ember_testing.wires.body import Headers

__all__ = [
    "Answerer",
    "Exchange",
    "Later",
    "answer_of",
    "answer_of_async",
    "answerers",
    "asked",
    "give_up",
    "is_sending",
    "sending",
]


_MOST_TIMES = 64
_change = threading.Lock()
_times: dict[datetime, int] = {}  # how many calls were sent at the same time


def _now() -> datetime:
    """The time, a microsecond later for each call before it where a test has stopped the clock.

    No two calls of a process have the same, which tells them apart.
    """
    now = datetime.now(timezone.utc)
    with _change:
        before = _times.pop(now, 0)
        _times[now] = before + 1
        if len(_times) > _MOST_TIMES:
            del _times[next(iter(_times))]
    return now + timedelta(microseconds=before)


class Exchange:
    """A call that is sent and kept: its request, the pieces of its response, how it ends.

    Args:
        request: As it was sent.
        keep: Gets the exchange once, when it is over; in a thread of its own where an event loop
            would have to wait for it.

    Attributes:
        recorded_at: When it was sent, ISO 8601, UTC.
        status: Of the response; None before its head has come.
        headers: Of the response, as they came.
        http_version: Such as `HTTP/1.1`.
        reason: The words behind the status.
        headers_after: Seconds until the head came.
        chunks: Seconds until each piece of the body came, and its bytes.
        outcome: `complete`, `closed`, `cut`, `failed` or `cancelled`; `unsent` where nothing has
            reached the network, and nothing is kept; "" until it is over.
        error: What broke it.
        elapsed: Seconds until it was over.
    """

    def __init__(self, request: Request, keep: Callable[[Exchange], None]) -> None:
        self.request = request
        self._keep = keep
        self._started = time.perf_counter()
        self.recorded_at = _now().isoformat(timespec="microseconds")
        self.status: int | None = None
        self.headers: Headers = ()
        self.http_version = ""
        self.reason = ""
        self.headers_after: float | None = None
        self.chunks: list[tuple[float, bytes]] = []
        self.outcome = ""
        self.error: Broken | None = None
        self.elapsed = 0.0

    def head(self, status: int, headers: Headers, http_version: str, reason: str) -> None:
        """The response has begun."""
        self.headers_after = time.perf_counter() - self._started
        self.status, self.headers = status, headers
        self.http_version, self.reason = http_version, reason

    def piece(self, data: bytes) -> None:
        """A piece of the response has come."""
        self.chunks.append((time.perf_counter() - self._started, data))

    def finish(self, outcome: str, error: Broken | None = None) -> None:
        """The call is over; the first of several ends counts.

        Args:
            outcome: `complete`, `closed`, `cut`, `failed` or `unsent`; closed before the response's
                head is `cancelled`.
            error: What broke it, by httpx's names.
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
        """The call is over, and it is kept before its caller goes on."""
        self.finish(outcome)
        if not worker.is_idle():
            await worker.run(_nothing)


def _nothing() -> None:
    """What stands behind all jobs that were there before."""


class Later(NamedTuple):
    """There is no answer yet: another process is sending the same request.

    Args:
        seconds: How long to wait.
        ask: Whom to ask then.
    """

    seconds: float
    ask: Callable[[], Response | Exchange | Later]


class Answerer(NamedTuple):
    """Answers requests in the place of the network.

    Args:
        wants: Whether a request to this URL may be for it; asked before the body is read.
        answer: Gets the request; gives the response, an exchange to send it and keep what comes,
            None to have the next one asked, or when to ask again.
        answer_async: The same in an event loop; None where `answer` touches no file.
    """

    wants: Callable[[str], bool]
    answer: Callable[[Request], Response | Exchange | Later | None]
    answer_async: Callable[[Request], Awaitable[Response | Exchange | Later | None]] | None = None


answerers: list[Answerer] = []
"""In the order in which they are asked; `transport.install` adds one."""

# The request on its way out. It passes more than one seam (urllib3 sends through http.client), or
# the method of an earlier block in somebody's wrapper that outlived it; it is asked about once.
_sent: ContextVar[tuple[str, str] | None] = ContextVar("ember_testing_sent", default=None)


def asked(method: str, url: str) -> list[Answerer]:
    """Whom to ask about a request, before its body is read."""
    if not answerers or _sent.get() == (method, url):
        return []
    return [each for each in answerers if each.wants(url)]


def answer_of(asked: list[Answerer], request: Request) -> Response | Exchange | None:
    """What the first of them says that says something; None to send the request unseen."""
    __tracebackhide__ = True  # a miss is told without the way it came
    note_call()
    answer: Response | Exchange | Later | None = None
    for each in asked:
        if (answer := each.answer(request)) is not None:
            break
    while isinstance(answer, Later):
        wait(answer.seconds)
        answer = answer.ask()
    return answer


async def answer_of_async(asked: list[Answerer], request: Request) -> Response | Exchange | None:
    """The same in an event loop."""
    __tracebackhide__ = True
    note_call()
    answer: Response | Exchange | Later | None = None
    for each in asked:
        if each.answer_async is not None:
            answer = await each.answer_async(request)
        else:
            answer = each.answer(request)
        if answer is not None:
            break
    while isinstance(answer, Later):
        await wait_async(answer.seconds)
        answer = await worker.run(answer.ask, give_up)
    return answer


def give_up(answer: Response | Exchange | Later | None) -> None:
    """The caller was cancelled before it knew: a replay will find that there was such a call."""
    if isinstance(answer, Exchange):
        answer.finish("closed")


def is_sending() -> bool:
    """Whether the code that runs now is a library's that sends a request."""
    return _sent.get() is not None


@contextmanager
def sending(method: str, url: str) -> Generator[None]:
    """Ask nobody about this request inside of the block."""
    sent = _sent.set((method, url))
    try:
        yield
    finally:
        _sent.reset(sent)
