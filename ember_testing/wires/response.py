"""A request and its response as they pass the seam: what fakes, recordings and faults speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple, SupportsIndex, TypeAlias

from ember.exceptions import ErrorType
from ember_testing.wires.answer import Answer
from ember_testing.wires.body import Headers, decoded

__all__ = ["Broken", "End", "HeaderValue", "Request", "Response", "Sent", "plain"]

_TIMED_OUT = "The read operation timed out"
_OF_THE_ENCODED_BODY = ("content-encoding", "content-length")


class HeaderValue(str):
    """The value of a request's header, which may be a key: its repr does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> HeaderValue:
        return HeaderValue(super().__getitem__(index))


class Request(NamedTuple):
    """A request, its body whole; the seam gives it headers of the type `HeaderValue`."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, "" when it is absent."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Broken(NamedTuple):
    """What the HTTP client meets in place of a response, or of the rest of one.

    Attributes:
        error: The name of the exception's class in httpx (and httpx2), such as `ReadTimeout`.
        message: What it says.
    """

    error: str
    message: str


# None is the body's own end; a function gives the error of a replay that cannot go on.
End: TypeAlias = Broken | Callable[[], BaseException] | None


class Response(NamedTuple):
    """A response as it comes over the network.

    Attributes:
        status: The HTTP status; None where no response comes, and `end` says why.
        headers: Name and value pairs.
        pieces: The body, as it comes piece by piece.
        pauses: Seconds before each piece; none before those past the last one.
        end: What comes after the last piece, in place of the body's end.
        delay: Seconds before the head; where no response comes, what an awaiting caller is given
            to give up.
        http_version: Of the protocol.
        reason: The words behind the status; None for the usual ones.
    """

    status: int | None
    headers: Headers = ()
    pieces: Sequence[bytes] = ()
    pauses: Sequence[float] = ()
    end: End = None
    delay: float = 0.0
    http_version: str = "HTTP/1.1"
    reason: str | None = None

    @property
    def body(self) -> bytes:
        """All pieces together."""
        return b"".join(self.pieces)

    def timed_pieces(
        self, patience: float | None, error: Callable[[Broken], BaseException]
    ) -> Iterator[tuple[float, bytes]]:
        """How long to wait, and then the piece; after the last one what ends the body is raised.

        Args:
            patience: Seconds that the caller waits for a piece; a longer pause is its timeout,
                which is over at once.
            error: The exception that a client's own library has for it.
        """
        for pause, piece in zip(chain(self.pauses, repeat(0.0)), self.pieces, strict=False):
            if patience is not None and pause > patience:
                raise error(Broken("ReadTimeout", _TIMED_OUT))
            yield pause, piece
        if self.end is not None:
            raise self.failure(error)

    def failure(self, error: Callable[[Broken], BaseException]) -> BaseException:
        """The exception that the response ends with, by the library's `error`."""
        if self.end is None or isinstance(self.end, Broken):
            return error(self.end or Broken("ReadError", ""))
        return self.end()


def plain(response: Response) -> Response:
    """The response without a content encoding, so that its body can be cut and added to."""
    if not any(name.lower() == "content-encoding" for name, _ in response.headers):
        return response
    headers = tuple(p for p in response.headers if p[0].lower() not in _OF_THE_ENCODED_BODY)
    return response._replace(headers=headers, pieces=[decoded(response.headers, response.body)])


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
    served: Response
    means: Answer | None = None
    error_type: ErrorType | None = None
    retry_after: float | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.served.body
