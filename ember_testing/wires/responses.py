"""Answers in the format of OpenAI's Responses API; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ember.models.schemas import UsageStats
from ember_testing.wires.answer import Answer
from ember_testing.wires.events import event
from ember_testing.wires.openai import arguments_text

__all__ = ["body", "events"]

_INCOMPLETE = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "other": "max_messages",
}


def body(model: str, answer: Answer, usage: UsageStats, number: int) -> dict[str, Any]:
    """Return the JSON of an answer that is not streamed."""
    if answer.reason == "error":
        raise ValueError(
            "finish_reason='error': the Responses API reports a failed answer as an error; use a "
            "fault, such as ember_testing.faults.server_error()"
        )
    # A refusal replaces the text of a complete answer.
    reason = None if answer.refusal else _INCOMPLETE.get(answer.reason)
    return {
        "id": f"resp_fake{number}",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": _output(answer, number),
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


def _output(answer: Answer, number: int) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": answer.reasoning}]
        output.append({"type": "reasoning", "id": f"rs_fake{number}", "summary": summary})
    parts: list[dict[str, Any]] = []
    if answer.text or not (answer.tool_calls or answer.refusal):
        parts.append({"type": "output_text", "text": answer.text, "annotations": []})
    if answer.refusal:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    if parts:
        output.append(
            {
                "type": "message",
                "id": f"msg_fake{number}",
                "role": "assistant",
                "status": "completed",
                "content": parts,
            }
        )
    output += [
        {
            "type": "function_call",
            "id": f"fc_fake{number}_{index}",
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_text(call.arguments),
            "status": "completed",
        }
        for index, call in enumerate(answer.tool_calls)
    ]
    return output


def events(model: str, answer: Answer, usage: UsageStats, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    done = body(model, answer, usage, number)
    started: dict[str, Any] = {**done, "status": "in_progress", "output": [], "usage": None}
    started["incomplete_details"] = None
    sent: list[dict[str, Any]] = [{"type": "response.created", "response": started}]
    for index, item in enumerate(done["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        begun: dict[str, Any] = {**item, "content": []} if item["type"] == "message" else item
        sent.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        sent += [{**delta, **place} for delta in _deltas(item, answer)]
        sent.append({"type": "response.output_item.done", "output_index": index, "item": item})
    sent.append({"type": f"response.{done['status']}", "response": done})
    for order, data in enumerate(sent):
        yield event({**data, "sequence_number": order}, data["type"])


def _deltas(item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    if item["type"] == "reasoning":
        kind = "response.reasoning_summary_text.delta"
        return [{"type": kind, "summary_index": 0, "delta": answer.reasoning}]
    if item["type"] == "function_call":
        kind = "response.function_call_arguments.delta"
        return [{"type": kind, "delta": item["arguments"]}]
    kind = "response.output_text.delta"
    deltas: list[dict[str, Any]] = [
        {"type": kind, "content_index": 0, "delta": piece} for piece in answer.pieces
    ]
    if answer.refusal:
        index = len(item["content"]) - 1
        kind = "response.refusal.delta"
        deltas.append({"type": kind, "content_index": index, "delta": answer.refusal})
    return deltas
