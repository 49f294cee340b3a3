"""The building blocks of answers in all wire formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tests.loopback import Reply

VECTOR = [0.25, -0.5, 1.0]
EVENT_STREAM, LINES, FRAMES = (
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
)


def json_reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Return a JSON body with its content type."""
    return Reply(
        json.dumps(body).encode(),
        status=status,
        headers={"content-type": "application/json", **(headers or {})},
    )


def split_words(text: str) -> list[str]:
    """Split a text into the pieces in which it is streamed."""
    return re.findall(r"\S+\s*", text)


def event_stream(events: Iterable[Any], *, named: bool = False, done: bool = False) -> Reply:
    """Return an event stream, one event per piece."""
    pieces = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    if done:
        pieces.append("data: [DONE]\n\n")
    return streamed([piece.encode() for piece in pieces], EVENT_STREAM)


def streamed(pieces: list[bytes], content_type: str) -> Reply:
    """Return a chunked body."""
    return Reply(pieces=pieces, headers={"content-type": content_type}, pause=0.002)


def arguments_for(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Return arguments that a tool's schema accepts."""
    values: dict[str, Any] = {"string": text, "integer": 1, "number": 1.5, "boolean": True}
    values |= {"array": [], "object": {}}
    return {
        name: values[str(kind.get("type", "string")).lower()]
        for name, kind in schema.get("properties", {}).items()
    }
