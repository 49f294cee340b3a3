"""A verdict on the code that calls models: what it made of the faults that it met; pure.

Ember never retries by itself, so whether waits are honoured, what is retried and what becomes of
half an answer is the caller's doing. The fake has seen every attempt and knows what it answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from ember.exceptions import ErrorType
from ember_testing.patches.sleep import Skip
from ember_testing.wires.exchange import Asked

__all__ = ["Attempt", "Verdict", "judged", "key_of"]

# What a retry may come early by: clocks and timers are not exact.
_TOLERANCE = 0.02
# A retry without a hint when: sooner than this helps nobody.
_BREATH = 0.1
_MOST_ATTEMPTS = 10
_FINAL: frozenset[ErrorType | None] = frozenset(
    {"quota", "authentication", "permission", "not_found", "invalid_request", "context_length"}
)


class Attempt(NamedTuple):
    """One request, and what the fake made of it.

    Attributes:
        key: Equal for requests that say the same.
        name: Provider and model.
        asked_at: When it came, by `time.monotonic()`.
        fault: What it was answered with in Ember's vocabulary; None for an answer.
        retry_after: Seconds that it was told to wait, or None.
        partial: The text that came before the answer broke, or "".
        answer: The text of an answer that came whole, or "".
        flow: The thread or task that made it.
    """

    key: object
    name: str
    asked_at: float
    fault: ErrorType | None
    retry_after: float | None = None
    partial: str = ""
    answer: str = ""
    flow: object = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of the code under test.

    Args:
        complaints: One sentence for each thing that it did wrong; none when all is well.
        attempts: How many requests it made.
        waits: Seconds between a fault and the same request's next attempt, in their order.
    """

    complaints: Sequence[str]
    attempts: int
    waits: Sequence[float]

    @property
    def ok(self) -> bool:
        """Whether there is nothing to complain of."""
        return not self.complaints

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(self.complaints) or f"nothing to complain of in {self.attempts} calls"


def key_of(asked: Asked, url: str) -> object:
    """What two requests have in common of which one repeats the other; streamed or not is one.

    Args:
        asked: What the request asks for.
        url: Where it goes.
    """
    parameters = {
        name: asked.body[name] for name in asked.body.keys() - {"stream", "stream_options"}
    }
    return urlsplit(url).netloc, asked.route, asked.model, json.dumps(parameters, sort_keys=True)


def judged(
    attempts: Sequence[Attempt], result: object = None, skips: Sequence[Skip] = ()
) -> Verdict:
    """The verdict on a sequence of attempts.

    Args:
        attempts: All of them, in their order.
        result: What the code under test made of them; half an answer inside it is found.
        skips: The waits that were left out meanwhile.
    """
    complaints: list[str] = []
    waits: list[float] = []
    last: dict[object, tuple[int, Attempt]] = {}
    failed: dict[object, int] = {}
    callers = {attempt.flow for attempt in attempts}
    for number, attempt in enumerate(attempts, 1):
        before = last.get(attempt.key)
        last[attempt.key] = number, attempt
        if before is not None and before[1].fault is not None:
            wait = attempt.asked_at - before[1].asked_at
            wait += _skipped_between(before[1], attempt, skips, callers)
            waits.append(wait)
            if complaint := _of_retry(before, number, wait):
                complaints.append(complaint)
        failed[attempt.key] = failed.get(attempt.key, 0) + 1 if attempt.fault else 0
        if failed[attempt.key] == _MOST_ATTEMPTS + 1:
            complaints.append(
                f"{attempt.name}: {_MOST_ATTEMPTS + 1} attempts of one call failed in a row: stop "
                "after a few, and tell"
            )
    complaints += _of_result(last.values(), attempts, result)
    return Verdict(tuple(complaints), len(attempts), tuple(waits))


def _skipped_between(
    before: Attempt, after: Attempt, skips: Iterable[Skip], callers: set[object]
) -> float:
    """Seconds that a retry would have waited, had none of its waits been left out.

    What another call's thread or task waits does not count. What makes no call itself may have
    waited for this one: `asyncio.to_thread(time.sleep, 1)`, `asyncio.gather(asyncio.sleep(1))`;
    of several such, which wait at the same time, the longest counts.
    """
    own = 0.0
    helpers: dict[object, float] = {}
    for skip in skips:
        if before.asked_at <= skip.at <= after.asked_at:
            if skip.flow in (before.flow, after.flow):
                own += skip.seconds
            elif skip.flow not in callers:
                helpers[skip.flow] = helpers.get(skip.flow, 0.0) + skip.seconds
    return own + max(helpers.values(), default=0.0)


def _of_retry(before: tuple[int, Attempt], number: int, wait: float) -> str | None:
    place, failed = before
    again = f"call {number} repeats call {place} of {failed.name}"
    if failed.fault in _FINAL:
        return f"{again}, which failed with {failed.fault}: no retry helps against that"
    if failed.retry_after is not None and wait < failed.retry_after - _TOLERANCE:
        return (
            f"{again} after {wait:.3f} s, but that was told to wait {failed.retry_after:g} s: use "
            "the error's retry_after"
        )
    if failed.retry_after is None and wait < _BREATH:
        return (
            f"{again} after {wait:.3f} s, which failed with {failed.fault}: wait before a retry, "
            "longer each time"
        )
    return None


def _of_result(
    last: Iterable[tuple[int, Attempt]], attempts: Iterable[Attempt], result: object
) -> Iterator[str]:
    text = _text(result)
    # Another model's answer may begin as the one that broke off.
    for answer in sorted({each.answer for each in attempts if each.answer}, key=len, reverse=True):
        text = text.replace(answer, "").replace(_escaped(answer), "")
    for place, attempt in last:
        # The last attempt of a call: no retry brought the whole answer.
        partial = attempt.partial
        if partial.strip() and (partial in text or _escaped(partial) in text):
            yield (
                f"call {place} of {attempt.name} broke off ({attempt.fault}) after "
                f"{partial!r}, and the code under test took that for the answer: let the "
                "error through, or ask again"
            )


def _escaped(text: str) -> str:
    """A text as an object's own words have it, where a line's end is its escape."""
    return repr(text)[1:-1]


def _text(result: object) -> str:
    """All that a result says: the pieces of a list are one text."""
    if result is None or isinstance(result, str):
        return result or ""
    if isinstance(result, Mapping):
        return "\n".join(map(_text, cast("Mapping[object, object]", result).values()))
    if isinstance(result, (list, tuple)):
        return "".join(map(_text, cast("Sequence[object]", result)))
    return str(result)
