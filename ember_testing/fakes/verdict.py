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
        asked_at: When it came, in seconds of the caller's time.
        fault: What it was answered with in Ember's vocabulary; None for an answer.
        retry_after: Seconds that it was told to wait, or None.
        partial: The text that came before the answer broke, or "".
    """

    key: object
    name: str
    asked_at: float
    fault: ErrorType | None
    retry_after: float | None = None
    partial: str = ""


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
    said = {name: asked.body[name] for name in asked.body.keys() - {"stream", "stream_options"}}
    return urlsplit(url).netloc, asked.provider, asked.model, json.dumps(said, sort_keys=True)


def judged(attempts: Sequence[Attempt], result: object = None) -> Verdict:
    """The verdict on a sequence of attempts.

    Args:
        attempts: All of them, in their order.
        result: What the code under test made of them; half an answer inside it is found.
    """
    complaints: list[str] = []
    waits: list[float] = []
    last: dict[object, tuple[int, Attempt]] = {}
    failed: dict[object, int] = {}
    for number, attempt in enumerate(attempts, 1):
        before = last.get(attempt.key)
        last[attempt.key] = number, attempt
        if before is not None and before[1].fault is not None:
            wait = attempt.asked_at - before[1].asked_at
            waits.append(wait)
            if complaint := _of_retry(before, number, wait):
                complaints.append(complaint)
        failed[attempt.key] = failed.get(attempt.key, 0) + 1 if attempt.fault else 0
        if failed[attempt.key] == _MOST_ATTEMPTS + 1:
            complaints.append(
                f"{attempt.name}: {_MOST_ATTEMPTS + 1} attempts of one call failed in a row: stop "
                "after a few, and tell"
            )
    complaints += _of_result(last.values(), result)
    return Verdict(tuple(complaints), len(attempts), tuple(waits))


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


def _of_result(last: Iterable[tuple[int, Attempt]], result: object) -> Iterator[str]:
    said = _text(result)
    for place, attempt in last:
        # The last attempt of a call: no retry brought the whole answer.
        # Inside an object's own words a line's end is written as its escape.
        escaped = repr(attempt.partial)[1:-1]
        if attempt.partial.strip() and (attempt.partial in said or escaped in said):
            yield (
                f"call {place} of {attempt.name} broke off ({attempt.fault}) after "
                f"{attempt.partial!r}, and the code under test took that for the answer: let the "
                "error through, or ask again"
            )


def _text(result: object) -> str:
    """All that a result says: the pieces of a list are one text."""
    if result is None or isinstance(result, str):
        return result or ""
    if isinstance(result, Mapping):
        return "\n".join(map(_text, cast("Mapping[object, object]", result).values()))
    if isinstance(result, (list, tuple)):
        return "".join(map(_text, cast("Sequence[object]", result)))
    return str(result)
