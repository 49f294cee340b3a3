"""The bodies of providers' errors, in any of their formats; pure.

The formats are those of the providers' documentation and of recorded traffic: an object under
`error`, a string under `error`, fields at the top, a list of one, FastAPI's `detail`, an HTML page,
plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ember.providers.json_values import count, entries, fields, items, parsed, string
from ember.providers.sse import EventDecoder

__all__ = ["ErrorBody", "read_error"]


@dataclass(slots=True)
class ErrorBody:
    """The content of a provider's error, in one form."""

    message: str = ""
    code: str | None = None
    type: str | None = None  # its `type` or `status`
    param: str | None = None  # the parameter at fault
    request_id: str | None = None  # the provider's id of the request
    status: int | None = None  # the HTTP status that it contains
    # All its machine-readable codes in lower case, the most specific first.
    words: list[str] = field(default_factory=list[str])
    details: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])  # Google's
    wait: str | None = None  # in the format of a `retry-after` header


def read_error(body: object) -> ErrorBody:
    """Read an error's body: parsed JSON, or text."""
    if wrapped := items(body):
        body = wrapped[0]
    if isinstance(body, str):
        error_object = _first_event(body)
        return read_error(error_object) if error_object else ErrorBody(_message_of_text(body))
    top = fields(body)
    if isinstance(page := top.get("html-message"), str):
        return read_error(parsed(page))  # Portkey wraps the upstream's JSON in a string
    error: object = top.get("error") or top.get("errors")
    if several := items(error):
        error = several[0]
    inner = fields(error)
    if nested := fields(inner.get("error")):
        inner = inner if "message" in inner else nested
    if isinstance(error, str):
        inner = {"message": error, "code": top.get("code"), "type": top.get("type")}
    return _from_fields(inner or top, top)


def _from_fields(error: Mapping[str, Any], top: Mapping[str, Any]) -> ErrorBody:
    message = next(
        (text for key in ("message", "detail", "msg") if (text := _message(error.get(key)))),
        _message(top.get("message")),
    )
    code, kind = error.get("code", error.get("error_code")), error.get("type")
    if kind == "error":
        kind = None  # names the envelope, not the error
    status = error.get("status")
    details = entries(error.get("details"))
    metadata = fields(error.get("metadata"))  # OpenRouter
    in_flight = metadata.get("limit_source") == "openrouter_in_flight_budget"
    is_filtered = items(error.get("content_filters")) or "flagged_input" in metadata
    words: list[object] = [
        *(detail.get("reason") for detail in details),  # Google's ErrorInfo
        fields(error.get("details")).get("error_code"),  # Anthropic
        *(fields(error.get(key)).get("code") for key in ("innererror", "inner_error")),  # Azure
        metadata.get("error_type"),
        "rate_limit_exceeded" if in_flight else None,  # a 402 that is temporary
        "content_filter" if is_filtered else None,  # Azure's Responses API, OpenRouter
        *(code, kind, status),
    ]
    if upstream := metadata.get("raw"):
        inner = read_error(parsed(upstream) if isinstance(upstream, str) else upstream)
        message = f"{message}: {inner.message}" if inner.message else message
        words += inner.words
        details = [*details, *inner.details]
    param = error.get("param")
    delays = (
        metadata.get("retry_after_seconds_raw"),  # OpenRouter
        metadata.get("retry_after_seconds"),
        fields(metadata.get("headers")).get("Retry-After"),
        error.get("resets_in_seconds"),  # ChatGPT's plans
    )
    return ErrorBody(
        message,
        None if code is None else str(code),
        str(kind) if kind else status if isinstance(status, str) else None,
        None if param is None else str(param),
        string(top.get("request_id")) or None,
        # Cerebras' and Groq's streams have a field for the status; others put it into the code.
        _status(code, kind, error.get("status_code"), top.get("status_code")),
        [str(word).lower() for word in words if word not in (None, "")],
        details,
        next((str(wait) for wait in delays if wait), None),
    )


def _status(*values: object) -> int | None:
    statuses = (count(value) for value in values)
    return next((status for status in statuses if 400 <= status <= 599), None)


def _message(value: object) -> str:
    """Return an error's message: a string, or FastAPI's list of locations and errors (Mistral)."""
    if isinstance(value, str):
        return value
    wrong = entries(value)
    messages: list[str] = []
    for item in wrong:
        where = ".".join(str(step) for step in items(item.get("loc")))
        what = next((w for k in ("msg", "message", "detail") if (w := _message(item.get(k)))), "")
        messages.append(f"{where}: {what}" if where else what)
    return "; ".join(filter(None, messages)) or (json.dumps(value) if value else "")


def _first_event(text: str) -> Mapping[str, Any]:
    """Return the object of an error sent as an event, or as a truncated array (Google)."""
    if text.lstrip().startswith(("data:", "event:", "[")):
        decoder = EventDecoder()
        for _, data in (*decoder.feed(text.encode()), *decoder.finish()):
            if event_error := fields(parsed(data)):
                return event_error
    return {}


def _message_of_text(text: str) -> str:
    """Return the message of a body that is not JSON: an HTML page's title, or the text itself."""
    title = _TITLE.search(text)
    return " ".join((title[1] if title else text).split())


_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
