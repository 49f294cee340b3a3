"""A verdict on how the code that calls models handled faults; pure.

Ember never retries by itself, so the caller has to honour waits, choose what to retry and handle
partial answers. The fake has seen every attempt and knows what it answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from ember.exceptions import ErrorType
from ember_testing.fakes.call import FakeCall
from ember_testing.patches.sleep import Skip

__all__ = ["Attempt", "Verdict", "judge"]

# Seconds by which a retry may be early: clocks and timers are not exact.
_TIMER_TOLERANCE = 0.02
# Seconds before which a retry does not help, if the provider did not say how long to wait.
_SHORTEST_PAUSE = 0.1
_MAX_ATTEMPTS = 10
_NOT_RETRYABLE: frozenset[ErrorType | None] = frozenset(
    {"quota", "authentication", "permission", "not_found", "invalid_request", "context_length"}
)


class Attempt(NamedTuple):
    """One request, and how the fake answered it."""

    call: FakeCall
    url: str  # "" for a custom provider
    started_at: float  # by `time.monotonic()`
    fault: ErrorType | None  # None for an answer
    retry_after: float | None  # seconds that the caller was asked to wait
    partial: str  # the text before the answer broke off
    text: str  # the text of a whole answer
    flow: object  # the thread or task that made the request

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self.call.provider}/{self.call.model}"

    def key(self) -> object:
        """Return a key that is equal for a request and its repetition, streamed or not."""
        body = self.call.body
        fields = {name: body[name] for name in body.keys() - {"stream", "stream_options"}}
        return (
            urlsplit(self.url).netloc,
            self.name,
            json.dumps(fields, sort_keys=True, default=repr),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict on the code under test.

    Args:
        complaints: One sentence for each mistake; empty if there is none.
        attempts: Number of requests.
        waits: Seconds between each fault and the next attempt of the same request, in order.
    """

    complaints: Sequence[str]
    attempts: int
    waits: Sequence[float]

    @property
    def ok(self) -> bool:
        """Whether there are no complaints."""
        return not self.complaints

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(self.complaints) or f"nothing to complain of in {self.attempts} calls"


def judge(
    attempts: Sequence[Attempt], result: object = None, skips: Sequence[Skip] = ()
) -> Verdict:
    """Return the verdict on all attempts, the code's result and the waits that were skipped."""
    complaints: list[str] = []
    waits: list[float] = []
    last: dict[object, tuple[int, Attempt]] = {}
    failed: dict[object, int] = {}
    callers = {attempt.flow for attempt in attempts}
    for number, attempt in enumerate(attempts, 1):
        key = attempt.key()
        before = last.get(key)
        last[key] = number, attempt
        if before is not None and before[1].fault is not None:
            wait = attempt.started_at - before[1].started_at
            wait += _skipped_between(before[1], attempt, skips, callers)
            waits.append(wait)
            if complaint := _retry_complaint(before, number, wait):
                complaints.append(complaint)
        failed[key] = failed.get(key, 0) + 1 if attempt.fault else 0
        if failed[key] == _MAX_ATTEMPTS + 1:
            complaints.append(
                f"{attempt.name}: {_MAX_ATTEMPTS + 1} attempts of one call failed in a row: stop "
                "after a few, and tell"
            )
    complaints += _partial_answer_complaints(last.values(), attempts, result)
    return Verdict(tuple(complaints), len(attempts), tuple(waits))


def _skipped_between(
    before: Attempt, after: Attempt, skips: Iterable[Skip], callers: set[object]
) -> float:
    """Return the seconds of the skipped waits that belong to a retry.

    Waits in a thread or task that makes other calls do not count. One that makes no calls may have
    waited for this retry: `asyncio.to_thread(time.sleep, 1)`, `asyncio.gather(asyncio.sleep(1))`;
    several of those wait at the same time, so only the longest counts.
    """
    own = 0.0
    helpers: dict[object, float] = {}
    for skip in skips:
        if before.started_at <= skip.at <= after.started_at:
            if skip.flow in (before.flow, after.flow):
                own += skip.seconds
            elif skip.flow not in callers:
                helpers[skip.flow] = helpers.get(skip.flow, 0.0) + skip.seconds
    return own + max(helpers.values(), default=0.0)


def _retry_complaint(before: tuple[int, Attempt], number: int, wait: float) -> str | None:
    first, failed = before
    again = f"call {number} repeats call {first} of {failed.name}"
    if failed.fault in _NOT_RETRYABLE:
        return f"{again}, which failed with {failed.fault}: no retry helps against that"
    if failed.retry_after is not None and wait < failed.retry_after - _TIMER_TOLERANCE:
        return (
            f"{again} after {wait:.3f} s, but that was told to wait {failed.retry_after:g} s: use "
            "the error's retry_after"
        )
    if failed.retry_after is None and wait < _SHORTEST_PAUSE:
        return (
            f"{again} after {wait:.3f} s, which failed with {failed.fault}: wait before a retry, "
            "longer each time"
        )
    return None


def _partial_answer_complaints(
    last: Iterable[tuple[int, Attempt]], attempts: Iterable[Attempt], result: object
) -> Iterator[str]:
    text = _text(result)
    # Another model's whole answer may begin like the partial one.
    for answer in sorted({each.text for each in attempts if each.text}, key=len, reverse=True):
        text = text.replace(answer, "").replace(_escaped(answer), "")
    for number, attempt in last:
        # The last attempt of a call, so no retry got the whole answer.
        partial = attempt.partial
        if partial.strip() and (partial in text or _escaped(partial) in text):
            yield (
                f"call {number} of {attempt.name} broke off ({attempt.fault}) after "
                f"{partial!r}, and the code under test took that for the answer: let the "
                "error through, or ask again"
            )


def _escaped(text: str) -> str:
    """Return a text as it appears in a repr, with line ends escaped."""
    return repr(text)[1:-1]


def _text(result: object) -> str:
    """Return all text in a result; the pieces of a list are joined."""
    if result is None or isinstance(result, str):
        return result or ""
    if isinstance(result, Mapping):
        return "\n".join(map(_text, cast("Mapping[object, object]", result).values()))
    if isinstance(result, (list, tuple)):
        return "".join(map(_text, cast("Sequence[object]", result)))
    return str(result)
