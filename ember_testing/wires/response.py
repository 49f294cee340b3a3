"""Requests and responses at the seam, as fakes, recordings and faults use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple, SupportsIndex, TypeAlias

from ember.exceptions import ErrorType
from ember_testing.wires.answer import Answer
from ember_testing.wires.body import Headers, decoded

__all__ = [
    "End",
    "HeaderValue",
    "NetworkFailure",
    "ProviderResponse",
    "Request",
    "Response",
    "without_encoding",
]

_TIMED_OUT = "The read operation timed out"
_OF_THE_ENCODED_BODY = ("content-encoding", "content-length")


class HeaderValue(str):
    """A request header's value, hidden from its repr because it may be a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> HeaderValue:
        return HeaderValue(super().__getitem__(index))


class Request(NamedTuple):
    """A request with its whole body; at the seam, header values are of type `HeaderValue`."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, "" if it is absent; the name in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class NetworkFailure(NamedTuple):
    """The error that an HTTP client gets instead of a response, or of the rest of one.

    Attributes:
        error: The exception's class name in httpx (and httpx2), such as `ReadTimeout`.
        message: The exception's message.
    """

    error: str
    message: str


# None is a normal end; a function returns the error of a replay that cannot continue.
End: TypeAlias = NetworkFailure | Callable[[], BaseException] | None


class Response(NamedTuple):
    """A response as received from the network.

    Attributes:
        status: The HTTP status; None if there is no response, and `end` is the reason.
        headers: Name and value pairs.
        pieces: The body in the pieces in which it arrives.
        pauses: Seconds before each piece; 0 before pieces without an entry.
        end: What happens after the last piece, if the body does not end normally.
        delay: Seconds before the head; if there is no response, seconds that an async caller
            has to cancel before `end` is raised.
        http_version: The protocol version.
        reason: The reason phrase; None for the standard one.
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
        """The whole body."""
        return b"".join(self.pieces)

    def timed_pieces(
        self, read_timeout: float | None, error: Callable[[NetworkFailure], BaseException]
    ) -> Iterator[tuple[float, bytes]]:
        """Yield each piece with the pause before it; after the last, raise the body's error.

        Args:
            read_timeout: The caller's read timeout in seconds; a longer pause raises its error at
                once.
            error: Creates the exception of the client's library.
        """
        for pause, piece in zip(chain(self.pauses, repeat(0.0)), self.pieces, strict=False):
            if read_timeout is not None and pause > read_timeout:
                raise error(NetworkFailure("ReadTimeout", _TIMED_OUT))
            yield pause, piece
        if self.end is not None:
            raise self.failure(error)

    def failure(self, error: Callable[[NetworkFailure], BaseException]) -> BaseException:
        """Return the exception that ends the response, created by the library's `error`."""
        if self.end is None or isinstance(self.end, NetworkFailure):
            return error(self.end or NetworkFailure("ReadError", ""))
        return self.end()


def without_encoding(response: Response) -> Response:
    """Return the response without content encoding, so that its body can be cut or extended."""
    if not any(name.lower() == "content-encoding" for name, _ in response.headers):
        return response
    headers = tuple(p for p in response.headers if p[0].lower() not in _OF_THE_ENCODED_BODY)
    return response._replace(headers=headers, pieces=[decoded(response.headers, response.body)])


@dataclass(frozen=True, slots=True)
class ProviderResponse:
    """A provider's response and what it means; `fake_model` accepts it as a reply.

    Args:
        wire: `openai`, `openai-responses`, `anthropic` or `google`.
        model: The model name to call, such as `anthropic/claude-x`.
        stream: Whether it answers a streamed call.
        served: Status, headers and the pieces of the body.
        means: The answer that a correct reader finds in it, with usage; None for an error, or if
            damage leaves it open.
        error_type: The type of the error in Ember's vocabulary, or None.
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
