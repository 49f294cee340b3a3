"""A recorded response on its way out again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ember_testing.cassettes.file import Answer
    from ember_testing.exceptions import ReplayFailure
    from ember_testing.replay.request import Request


class Teller(Protocol):
    """Whoever answers for a replay: a session."""

    def fail(self, failure: ReplayFailure) -> ReplayFailure:
        """Remember a failure, so that swallowing it does not hide it."""
        ...

    def command(self, anew: bool = False) -> str:
        """What to type to record what is missing, or all of it anew."""
        ...


@dataclass(frozen=True, slots=True)
class Playback:
    """A recorded response to hand out again.

    Attributes:
        answer: The call.
        headers: Name and value pairs as they came.
        chunks: Offset in seconds and bytes of each piece.
        timing: Whether to wait as long as it took.
        session: Whom to tell when the caller wants more than there is.
        request: The request, for that sentence.
    """

    answer: Answer
    headers: list[tuple[bytes, bytes]]
    chunks: list[tuple[float, bytes]]
    timing: bool
    session: Teller
    request: Request
