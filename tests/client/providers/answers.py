"""Functions that let the public function parse hand-written responses."""

from __future__ import annotations

import json
from typing import Any

from ember.models.schemas import ChatResponse
from tests.corpus import Player, ask

DONE = "data: [DONE]\n\n"


def result(played: Player, model: str, body: str, stream: bool = False, **headers: str) -> Any:
    """The result or error of a call that gets this body."""
    played.load({"status": 200, "response_headers": headers, "response_body": body})
    return ask(model, stream)


def answer(played: Player, model: str, *events: Any, end: str = "") -> ChatResponse:
    """The response parsed from one JSON body, or from a stream of several events."""
    if len(events) == 1 and not end:
        got = result(played, model, json.dumps(events[0]))
    else:
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        got = result(played, model, body + end, True)
    assert isinstance(got, ChatResponse), got
    return got
