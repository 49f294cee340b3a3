"""Answers in the format of OpenAI's chat completions and compatible servers; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from ember.models.schemas import UsageStats
from ember_testing.wires.answer import Answer
from ember_testing.wires.events import event

__all__ = ["arguments_text", "body", "events"]

# OpenAI has no value for "other", so DeepSeek's is used; "error" is OpenRouter's.
_FINISH = {"other": "insufficient_system_resource"}


def arguments_text(arguments: object) -> str:
    """Return a tool call's arguments as the text that the model wrote."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call.arguments)},
        }
        for call in answer.tool_calls
    ]


def _usage(usage: UsageStats) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if not math.isnan(usage.cost):
        counted["cost"] = usage.cost  # OpenRouter's field
    return counted


def _head(model: str, number: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-fake{number}", "object": kind, "created": 0, "model": model}


def body(model: str, answer: Answer, usage: UsageStats, number: int) -> dict[str, Any]:
    """Return the JSON of an answer that is not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if answer.tool_calls or answer.refusal else ""),
        "refusal": answer.refusal,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = _calls(answer)
    finish = _FINISH.get(answer.reason, answer.reason)
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**_head(model, number, "chat.completion"), "choices": [choice], "usage": _usage(usage)}


def events(model: str, answer: Answer, usage: UsageStats, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    head = _head(model, number, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**head, "choices": [choice], "usage": None})

    yield chunk({"role": "assistant", "content": ""})
    if answer.reasoning:
        yield chunk({"reasoning_content": answer.reasoning})
    for piece in answer.pieces:
        yield chunk({"content": piece})
    if answer.refusal:
        yield chunk({"refusal": answer.refusal})
    for index, call in enumerate(_calls(answer)):
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield chunk({"tool_calls": [{"index": index, **call}]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    yield chunk({}, _FINISH.get(answer.reason, answer.reason))
    yield event({**head, "choices": [], "usage": _usage(usage)})
    yield b"data: [DONE]\n\n"
