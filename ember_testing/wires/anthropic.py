"""Answers in the format of Anthropic's Messages API; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ember.models.schemas import UsageStats
from ember_testing.wires.answer import Answer
from ember_testing.wires.events import arguments_object, event

__all__ = ["body", "events"]

_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "other": "pause_turn",
}


def body(model: str, answer: Answer, usage: UsageStats, number: int) -> dict[str, Any]:
    """Return the JSON of an answer that is not streamed."""
    if answer.reason not in _STOP:
        raise ValueError(
            f"finish_reason={answer.reason!r}: Anthropic has no such stop_reason; use a fault, "
            "such as ember_testing.faults.server_error()"
        )
    details = {"type": "refusal", "category": None, "explanation": answer.refusal}
    return {
        "id": f"msg_fake{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(answer),
        "stop_reason": _STOP[answer.reason],
        "stop_sequence": None,
        "stop_details": details if answer.reason == "content_filter" else None,
        "usage": _usage(usage),
    }


def _usage(usage: UsageStats) -> dict[str, Any]:
    # input_tokens does not include cached reads and writes.
    beside = usage.cached_tokens + usage.cache_write_tokens
    return {
        "input_tokens": usage.prompt_tokens - beside,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": "fake"})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    for call in answer.tool_calls:
        arguments = arguments_object(call, "Anthropic")
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
    return blocks


def events(model: str, answer: Answer, usage: UsageStats, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    done = body(model, answer, usage, number)
    started: dict[str, Any] = {**done, "content": [], "stop_reason": None, "stop_details": None}
    started["usage"] = {**done["usage"], "output_tokens": 1}
    yield _named({"type": "message_start", "message": started})
    for index, block in enumerate(done["content"]):
        empty, deltas = _deltas(block, answer)
        yield _named({"type": "content_block_start", "index": index, "content_block": empty})
        for delta in deltas:
            yield _named({"type": "content_block_delta", "index": index, "delta": delta})
        yield _named({"type": "content_block_stop", "index": index})
    ending = {name: done[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield _named({"type": "message_delta", "delta": ending, "usage": done["usage"]})
    yield _named({"type": "message_stop"})


def _deltas(block: dict[str, Any], answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [
            {"type": "text_delta", "text": piece} for piece in answer.pieces
        ]
    if block["type"] == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    arguments = json.dumps(block["input"], ensure_ascii=False)
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]


def _named(data: dict[str, Any]) -> bytes:
    return event(data, data["type"])
