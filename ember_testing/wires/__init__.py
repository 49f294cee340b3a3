"""Encode answers and errors in each provider's wire format; pure.

The inverse of Ember's parsers, based on the same sources: they must be able to parse what is
encoded here. Answers have one module per vendor; this module selects it and encodes errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ember.models.schemas import UsageStats
from ember_testing.wires import anthropic, google, openai, responses
from ember_testing.wires.answer import Answer, Failure
from ember_testing.wires.body import Headers
from ember_testing.wires.events import dumps, event
from ember_testing.wires.response import Response

__all__ = ["WIRES", "answer_response", "error_event", "error_response", "wire_of"]

WIRES = ("openai", "openai-responses", "anthropic", "google")
_JSON = ("content-type", "application/json")
_EVENTS = ("content-type", "text/event-stream")


class _Encoder(NamedTuple):
    body: Callable[[str, Answer, UsageStats, int], dict[str, Any]]
    events: Callable[[str, Answer, UsageStats, int], Iterator[bytes]]
    request_id: str


_ENCODERS: Mapping[str, _Encoder] = {
    "openai": _Encoder(openai.body, openai.events, "x-request-id"),
    "openai-responses": _Encoder(responses.body, responses.events, "x-request-id"),
    "anthropic": _Encoder(anthropic.body, anthropic.events, "request-id"),
    "google": _Encoder(google.body, google.events, "x-request-id"),
}


def wire_of(provider: str) -> str:
    """Return the wire format of a provider of Ember's: for most, OpenAI's chat completions."""
    return provider if provider in WIRES else "openai"


def answer_response(
    wire: str, model: str, answer: Answer, usage: UsageStats, number: int, *, stream: bool
) -> Response:
    """Return the response for an answer, with one piece per event if it is streamed.

    Args:
        wire: `openai`, `openai-responses`, `anthropic` or `google`.
        model: The requested model.
        answer: The answer to encode.
        usage: Token counts to report.
        number: A unique number, for the ids.
        stream: Whether to stream it.

    Raises:
        ValueError: The wire format cannot express the answer; the message says why.
    """
    encoder = _ENCODERS[wire]
    contents = answer.model or model, answer, usage, number
    pieces = [*encoder.events(*contents)] if stream else [dumps(encoder.body(*contents))]
    headers = (_EVENTS if stream else _JSON, (encoder.request_id, f"req_fake{number}"))
    return Response(200, headers, pieces)


def error_response(wire: str, failure: Failure) -> Response:
    """Return the response for an error."""
    status = failure.on(wire)[0]
    headers: Headers = (_JSON, (_ENCODERS[wire].request_id, "req_fake"))
    if failure.retry_after is not None and wire != "google":
        headers += (("retry-after", f"{failure.retry_after:g}"),)
    return Response(status, headers, (dumps(_error_body(wire, failure)),))


def error_event(wire: str, failure: Failure) -> bytes:
    """Return the event that reports an error in a stream that began successfully."""
    if wire == "openai-responses":
        _, code, kind, message = failure.on(wire)
        data = {"type": "error", "code": code or kind, "message": message, "param": None}
        return event(data, "error")
    body = _error_body(wire, failure)
    if wire == "google":
        # Google sends it between events: multi-line JSON without `data:`.
        return json.dumps(body, indent=2).encode() + b"\r\n\r\n"
    return event(body, "error" if wire == "anthropic" else None)


def _error_body(wire: str, failure: Failure) -> dict[str, Any]:
    status, code, kind, message = failure.on(wire)
    if wire == "anthropic":
        error: dict[str, Any] = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": "req_fake"}
    if wire == "google":
        details: list[dict[str, Any]] = []
        if code is not None:
            info = "type.googleapis.com/google.rpc.ErrorInfo"
            details.append({"@type": info, "reason": code, "domain": "googleapis.com"})
        if failure.retry_after is not None:
            info = "type.googleapis.com/google.rpc.RetryInfo"
            details.append({"@type": info, "retryDelay": f"{failure.retry_after:g}s"})
        error = {"code": status, "message": message, "status": kind}
        return {"error": {**error, "details": details} if details else error}
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
