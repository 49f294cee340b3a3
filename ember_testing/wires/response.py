"""A response on its way to the caller, in pieces, and how it ends; what faults are applied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ember.exceptions import ErrorType
from ember_testing.wires.answer import Answer

__all__ = ["Broken", "Headers", "Sent", "Served"]

Headers: TypeAlias = Sequence[tuple[str, str]]


class Broken(NamedTuple):
    """What the HTTP client meets in place of a response, or of the rest of one.

    Attributes:
        error: The name of the exception's class in httpx (and httpx2), such as `ReadTimeout`.
        message: What it says.
    """

    error: str
    message: str


class Served(NamedTuple):
    """A response as it comes over the network.

    Attributes:
        status: The HTTP status; None where no response comes, and `broken` says why.
        headers: Name and value pairs.
        pieces: The body.
        pause: Seconds before each piece.
        broken: What comes after the last piece, in place of the body's end.
    """

    status: int | None
    headers: Headers = ()
    pieces: Sequence[bytes] = ()
    pause: float = 0.0
    broken: Broken | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What a provider sends, and what a right reader makes of it; `fake_model` takes it as a reply.

    Args:
        wire: `openai`, `openai-responses`, `anthropic` or `google`.
        model: The model's name to call, such as `anthropic/claude-x`.
        stream: Whether it is the answer to a streamed call.
        served: Status, headers and the pieces of the body.
        means: The answer that it means, usage included; None for an error, and where damage leaves
            it open.
        error_type: The error that it means in Ember's vocabulary, or None.
        retry_after: Seconds that the error asks to wait, or None.
    """

    wire: str
    model: str
    stream: bool
    served: Served
    means: Answer | None = None
    error_type: ErrorType | None = None
    retry_after: float | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.served.pieces)
