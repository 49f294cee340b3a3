"""JSON and server-sent events as the providers write them; pure."""

from __future__ import annotations

import json
from typing import Any, cast

from ember.models.schemas import ToolCall

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

__all__ = ["arguments_object", "dumps", "ends_stream", "event"]

_LONGEST_END = 4 * 2**20  # bytes; the Responses API repeats the whole answer in its last event
_LAST_EVENTS = frozenset(
    {"message_stop", "response.completed", "response.incomplete", "response.failed"}
)


def dumps(value: object) -> bytes:
    """Return compact JSON in UTF-8; a lone surrogate, which UTF-8 cannot encode, is escaped."""
    try:
        return _to_json(value).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def arguments_object(call: ToolCall, vendor: str) -> dict[str, Any]:
    """Return a tool call's arguments, for a vendor that sends them as an object.

    Raises:
        ValueError: The arguments are not a dict.
    """
    arguments: object = call.arguments
    if not isinstance(arguments, dict):
        raise ValueError(
            f"the arguments {arguments!r} of {call.name!r}: {vendor} sends an object, so pass "
            "a dict"
        )
    return cast("dict[str, Any]", arguments)


def event(data: dict[str, Any], name: str | None = None, end: bytes = b"\n\n") -> bytes:
    """Return one server-sent event, with an `event:` line if it has a name."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dumps(data) + end


def ends_stream(body: bytes) -> bool:
    """Return whether a stream's last event is a provider's final event."""
    last = body[-_LONGEST_END:].rstrip().replace(b"\r", b"\n").rpartition(b"\n")[2]
    data = last.removeprefix(b"data:").strip()
    if data == b"[DONE]":
        return True
    try:
        event: object = json.loads(data)
    except ValueError:  # not an event, or a truncated one
        return False
    if not isinstance(event, dict):
        return False
    fields = cast("dict[str, Any]", event)
    if fields.get("type") in _LAST_EVENTS or fields.get("done") is True:
        return True
    candidates: list[Any] = fields.get("candidates") or []
    return any("finishReason" in each for each in candidates)
