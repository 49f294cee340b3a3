"""Faults of providers and connections, for fakes and for recordings.

Errors have the status, body and headers that each provider really sends; broken connections raise
the exceptions that httpx really raises. Everything is deterministic.

    fake_model("gpt-5.6-sol", rate_limit(retry_after=2), "Paris")

    @pytest.mark.ember_replay(faults={3: rate_limit(retry_after=1), 5: cut(after_chunks=4)})

Over a recording, the numbers count the test's calls from 1, and a call with a fault leaves its
recording to the next call like it, so that the retry gets it. `after_chunks` counts the pieces in
which the body arrives; in a fake, those are the events of the stream. A body in one piece is broken
in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ember.exceptions import ErrorType
from ember_testing.wires import error_event, error_response
from ember_testing.wires.answer import Answer, Failure
from ember_testing.wires.body import Headers
from ember_testing.wires.response import NetworkFailure, Response

__all__ = [
    "Damage",
    "Failure",
    "Fault",
    "applied",
    "authentication",
    "context_length",
    "cut",
    "empty_body",
    "garbage",
    "not_found",
    "overloaded",
    "quota",
    "rate_limit",
    "refused",
    "replaces_answer",
    "reset",
    "server_error",
    "slow",
    "stall",
    "timeout",
    "wrong_content_type",
]

# The text of the answer to damage, if the test gives none.
_ANSWER = "This answer does not come as it should."


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage to an answer or to the connection; created by the functions of this module.

    Args:
        kind: The kind of damage.
        error_type: Ember's error type; None if the answer arrives anyway.
        after_chunks: Number of pieces before the damage.
        seconds: Seconds before each piece.
        silent: Whether a cut looks like a normal end.
        answer: In a fake, the answer to damage.
    """

    kind: Literal[
        "timeout",
        "connect_timeout",
        "refused",
        "reset",
        "cut",
        "stall",
        "slow",
        "garbage",
        "wrong_content_type",
        "empty_body",
    ]
    error_type: ErrorType | None
    after_chunks: int = 0
    seconds: float = 0.0
    silent: bool = False
    answer: str | Answer = _ANSWER


Fault: TypeAlias = Failure | Damage


# --- errors of the provider ----------------------------------------------------------------------


def rate_limit(retry_after: float | None = None, *, after_chunks: int | None = None) -> Failure:
    """Fail with too many requests: wait and try again.

    Args:
        retry_after: Seconds that the provider asks to wait, in a header or in Google's body.
        after_chunks: Send the error inside a stream, after this many pieces.
    """
    return Failure(
        "rate_limit",
        {"openai": 429},
        {
            "openai": ("rate_limit_exceeded", "tokens"),
            "anthropic": (None, "rate_limit_error"),
            "google": (None, "RESOURCE_EXHAUSTED"),
        },
        {"openai": "Rate limit reached (a fake)."},
        _seconds("retry_after", retry_after),
        _chunks(after_chunks),
    )


def quota() -> Failure:
    """Fail with an exhausted quota; no retry helps."""
    return Failure(
        "quota",
        {"openai": 429, "anthropic": 402, "google": 402},
        {
            "openai": ("insufficient_quota", "insufficient_quota"),
            "anthropic": (None, "billing_error"),
            "google": (None, "RESOURCE_EXHAUSTED"),
        },
        {
            "openai": "You exceeded your current quota, please check your plan and billing "
            "details (a fake)."
        },
    )


def overloaded(retry_after: float | None = None, *, after_chunks: int | None = None) -> Failure:
    """Fail because the provider has no capacity now.

    Args:
        retry_after: Seconds that the provider asks to wait.
        after_chunks: Send the error inside a stream, after this many pieces, as Anthropic does.
    """
    return Failure(
        "overloaded",
        {"openai": 503, "anthropic": 529},
        {
            "openai": ("server_is_overloaded", "service_unavailable_error"),
            "anthropic": (None, "overloaded_error"),
            "google": (None, "UNAVAILABLE"),
        },
        {"openai": "Overloaded (a fake)."},
        _seconds("retry_after", retry_after),
        _chunks(after_chunks),
    )


def server_error(*, after_chunks: int | None = None) -> Failure:
    """Fail with an internal error of the provider.

    Args:
        after_chunks: Send the error inside a stream, after this many pieces.
    """
    return Failure(
        "server",
        {"openai": 500},
        {
            "openai": ("server_error", "server_error"),
            "anthropic": (None, "api_error"),
            "google": (None, "INTERNAL"),
        },
        {"openai": "The server had an error while processing your request (a fake)."},
        None,
        _chunks(after_chunks),
    )


def authentication() -> Failure:
    """Fail because the key is wrong."""
    return Failure(
        "authentication",
        {"openai": 401, "google": 400},
        {
            "openai": ("invalid_api_key", "invalid_request_error"),
            "anthropic": (None, "authentication_error"),
            "google": ("API_KEY_INVALID", "INVALID_ARGUMENT"),
        },
        {"openai": "Incorrect API key provided (a fake)."},
    )


def not_found() -> Failure:
    """Fail because there is no such model."""
    return Failure(
        "not_found",
        {"openai": 404},
        {
            "openai": ("model_not_found", "invalid_request_error"),
            "anthropic": (None, "not_found_error"),
            "google": (None, "NOT_FOUND"),
        },
        {"openai": "The model does not exist or you do not have access to it (a fake)."},
    )


def context_length() -> Failure:
    """Fail because the prompt is too long for the model."""
    return Failure(
        "context_length",
        {"openai": 400},
        {
            "openai": ("context_length_exceeded", "invalid_request_error"),
            "anthropic": (None, "invalid_request_error"),
            "google": (None, "INVALID_ARGUMENT"),
        },
        {
            "openai": "This model's maximum context length is 8192 tokens. Please reduce the "
            "length of the messages (a fake).",
            "anthropic": "prompt is too long: 250000 tokens > 200000 maximum (a fake)",
            "google": "The input token count (2000000) exceeds the maximum number of tokens "
            "allowed (1048576) (a fake).",
        },
    )


# --- faults of the network -----------------------------------------------------------------------


def timeout(*, connecting: bool = False) -> Damage:
    """Time out. The caller's timeout is raised at once, without waiting.

    Args:
        connecting: Time out while connecting rather than while waiting for the answer.
    """
    return Damage("connect_timeout" if connecting else "timeout", "timeout")


def refused() -> Damage:
    """Refuse the connection."""
    return Damage("refused", "connection")


def reset() -> Damage:
    """Reset the connection before the response begins."""
    return Damage("reset", "connection")


def cut(after_chunks: int = 1, *, silent: bool = False, answer: str | Answer = _ANSWER) -> Damage:
    """Cut the answer off.

    Args:
        after_chunks: Pieces of the body before the cut.
        silent: End the body normally, but without the stream's end marker: proxies do that, and a
            careless reader takes it for an answer.
        answer: In a fake, the answer to cut.
    """
    return Damage("cut", "incomplete_stream", _chunks(after_chunks) or 0, 0.0, silent, answer)


def stall(after_chunks: int = 1, *, answer: str | Answer = _ANSWER) -> Damage:
    """Begin the answer, then send nothing until the caller's timeout, which is raised at once.

    Args:
        after_chunks: Pieces of the body before the stall.
        answer: In a fake, the answer to stall.
    """
    return Damage("stall", "timeout", _chunks(after_chunks) or 0, answer=answer)


def slow(seconds: float = 0.05, *, answer: str | Answer = _ANSWER) -> Damage:
    """Send the answer slowly; the caller really waits.

    Args:
        seconds: Seconds before each piece of the body.
        answer: In a fake, the answer to slow down.
    """
    return Damage("slow", None, 0, _seconds("seconds", seconds) or 0.0, answer=answer)


def garbage() -> Damage:
    """Succeed with a body that is neither JSON nor text."""
    return Damage("garbage", "bad_response")


def wrong_content_type() -> Damage:
    """Succeed with an HTML page, like a proxy or a login page in the provider's place."""
    return Damage("wrong_content_type", "bad_response")


def empty_body() -> Damage:
    """Succeed without a body."""
    return Damage("empty_body", "bad_response")


# --- applying a fault (pure) ---------------------------------------------------------------------

_BROKEN = {
    "timeout": NetworkFailure("ReadTimeout", "The read operation timed out"),
    "connect_timeout": NetworkFailure("ConnectTimeout", "timed out"),
    "refused": NetworkFailure("ConnectError", "[Errno 111] Connection refused"),
    "reset": NetworkFailure("ReadError", "[Errno 104] Connection reset by peer"),
}
_CUT = NetworkFailure(
    "RemoteProtocolError",
    "peer closed connection without sending complete message body (incomplete chunked read)",
)
_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"
_LENGTHS = frozenset({"content-length", "transfer-encoding"})


def replaces_answer(fault: Fault) -> bool:
    """Return whether a fault leaves nothing of the original answer."""
    if isinstance(fault, Failure):
        return fault.after_chunks is None
    return fault.kind not in ("cut", "stall", "slow")


def applied(fault: Fault, response: Response, wire: str) -> Response:
    """Apply a fault to a response.

    Args:
        fault: The fault.
        response: The response, faked or recorded; unused if the fault replaces it.
        wire: The wire format of a provider's error: `openai`, `openai-responses`, `anthropic` or
            `google`.
    """
    if isinstance(fault, Failure):
        streams = "event-stream" in dict(response.headers).get("content-type", "")
        if fault.after_chunks is None or not streams:
            return error_response(wire, fault)
        kept = _first(response.pieces, fault.after_chunks)
        return response._replace(
            headers=_without_lengths(response), pieces=[*kept, error_event(wire, fault)], end=None
        )
    if fault.kind in _BROKEN:
        return Response(None, end=_BROKEN[fault.kind])
    if fault.kind == "slow":
        return response._replace(pauses=[fault.seconds] * len(response.pieces))
    if fault.kind in ("cut", "stall"):
        headers = _without_lengths(response) if fault.silent else response.headers
        end = None if fault.silent else _CUT if fault.kind == "cut" else _BROKEN["timeout"]
        return response._replace(
            headers=headers, pieces=_first(response.pieces, fault.after_chunks), end=end
        )
    if fault.kind == "wrong_content_type":
        return Response(200, (("content-type", "text/html; charset=utf-8"),), (_PAGE,))
    body = b"\x00\xff\xfe{]" * 8 if fault.kind == "garbage" else b""
    return Response(200, (("content-type", "application/json"),), (body,) if body else ())


def _first(pieces: Sequence[bytes], number: int) -> Sequence[bytes]:
    """Return the pieces before the break; the body's last piece is never left whole."""
    if number < len(pieces) or not pieces:
        return pieces[:number]
    return [*pieces[:-1], pieces[-1][: len(pieces[-1]) // 2]]


def _without_lengths(response: Response) -> Headers:
    return tuple(pair for pair in response.headers if pair[0].lower() not in _LENGTHS)


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"{name}={value!r}: expected a number of seconds, 0 or more")
    return value


def _chunks(value: int | None) -> int | None:
    if value is not None and value < 0:
        raise ValueError(f"after_chunks={value!r}: expected a number of pieces, 0 or more")
    return value
