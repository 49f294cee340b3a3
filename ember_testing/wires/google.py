"""Answers in the format of Google's generateContent; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ember.models.schemas import UsageStats
from ember_testing.wires.answer import Answer
from ember_testing.wires.events import arguments_object, event

__all__ = ["body", "events"]

_FINISH = {
    "stop": "STOP",
    "tool_calls": "STOP",  # Google has no separate reason for tool calls
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "error": "MALFORMED_RESPONSE",
    "other": "OTHER",
}


def body(model: str, answer: Answer, usage: UsageStats, number: int) -> dict[str, Any]:
    """Return the JSON of an answer that is not streamed."""
    parts = _thoughts(answer)
    if answer.text:
        parts.append({"text": answer.text})
    return _chunk(model, answer, [*parts, *_calls(answer)], usage, number, last=True)


def events(model: str, answer: Answer, usage: UsageStats, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    parts = [*_thoughts(answer), *({"text": piece} for piece in answer.pieces), *_calls(answer)]
    for part in parts:
        chunk = _chunk(model, answer, [part], usage, number, last=False)
        yield event(chunk, end=b"\r\n\r\n")
    yield event(_chunk(model, answer, [], usage, number, last=True), end=b"\r\n\r\n")


def _thoughts(answer: Answer) -> list[dict[str, Any]]:
    return [{"text": answer.reasoning, "thought": True}] if answer.reasoning else []


def _calls(answer: Answer) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for call in answer.tool_calls:
        named = {"id": call.id} if call.id else {}
        arguments = arguments_object(call, "Google")
        part = {"functionCall": {**named, "name": call.name, "args": arguments}}
        calls.append({**part, **({"thoughtSignature": call.signature} if call.signature else {})})
    return calls


def _chunk(
    model: str,
    answer: Answer,
    parts: list[dict[str, Any]],
    usage: UsageStats,
    number: int,
    *,
    last: bool,
) -> dict[str, Any]:
    if usage.cache_write_tokens:
        raise ValueError(
            f"cache_write_tokens={usage.cache_write_tokens}: Google counts no cache writes"
        )
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if last:
        candidate["finishReason"] = _FINISH[answer.reason]
        if answer.refusal:
            candidate["finishMessage"] = answer.refusal
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": usage.prompt_tokens,
            "candidatesTokenCount": usage.completion_tokens - usage.reasoning_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "totalTokenCount": usage.prompt_tokens + usage.completion_tokens,
        },
        "modelVersion": model,
        "responseId": f"fake{number}",
    }
