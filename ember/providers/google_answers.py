"""Reading Google's generateContent and streamGenerateContent; pure.

Source: the `google-genai` 3.4.0 package (`types.py`), read on 2026-11-22, and what Google was seen
to send: arrays in place of event streams, enums as numbers, chunks without usage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing
from ember.providers.json_values import count, entries, fields, string
from ember.providers.wire import Answer

__all__ = ["MADE_UP", "ContentStreamReader"]

# How the ids of calls begin that Google gave none.
MADE_UP = "ember_"
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")
_FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE",
        ),
        "error",
    ),
}
# With `enum-encoding=int` enums come as numbers. google.ai.generativelanguage and aiplatform agree
# on the first six, and mean one content filter or another by 7 and 8.
_FINISH_NUMBERS = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
)


class ContentStreamReader:
    """Reads the chunks of one stream, each of which is a whole GenerateContentResponse."""

    ends_with_done = False

    def __init__(self) -> None:
        self.started = False
        self.complete = False
        self.failure: Mapping[str, Any] | None = None
        self._parts: list[Mapping[str, Any]] = []
        self._finish = ""
        self._note = ""
        self._block = ""
        self._model = ""
        self._id = ""
        self._usage: dict[str, Any] = {}

    def read(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """See `StreamReader.read`."""
        self.started = self.started or not event.keys().isdisjoint(_ANSWER_FIELDS)
        self._model = string(event.get("modelVersion")) or self._model
        self._id = string(event.get("responseId")) or self._id
        self._usage = _newer(self._usage, fields(event.get("usageMetadata")))
        feedback = fields(event.get("promptFeedback"))
        if blocked := feedback.get("blockReason"):
            self._block = string(feedback.get("blockReasonMessage")) or str(blocked)
            self.complete = True
        candidates = entries(event.get("candidates"))
        if not candidates:
            return None
        candidate = next((c for c in candidates if not c.get("index")), candidates[0])
        if reason := _finish_name(candidate.get("finishReason")):
            self._finish, self.complete = reason, True
            self._note = string(candidate.get("finishMessage")) or self._note
        parts = entries(fields(candidate.get("content")).get("parts"))
        self._parts += parts
        text, thoughts = _said(parts)
        return Chunk(text, thoughts, event) if text or thoughts else None

    def answer(self) -> Answer:
        """See `StreamReader.answer`."""
        calls: list[ToolCall] = []
        parts: list[Mapping[str, Any]] = []
        for part in self._parts:
            if call := fields(part.get("functionCall")):
                # Not every call has an id, and a tool's result must name one.
                made_up = f"{MADE_UP}{_NOT_IN_IDS.sub('', self._id)[:24]}_{len(calls)}"
                call_id = string(call.get("id")) or made_up
                signature = string(part.get("thoughtSignature")) or None
                name, arguments = string(call.get("name")), fields(call.get("args"))
                calls.append(ToolCall(call_id, name, arguments, signature))
                part = {**part, "functionCall": {**call, "id": call_id}}
            parts.append(part)
        reason: FinishReason | None = None
        refusal: str | None = None
        if self._finish:
            reason = _FINISH.get(self._finish, "other")
            if reason == "stop" and calls:
                reason = "tool_calls"
            if reason == "content_filter":
                refusal = self._note or self._finish
        elif self._block:
            reason, refusal = "content_filter", self._block
        text, thoughts = _said(self._parts)
        answer = Answer(
            text,
            reason,
            calls,
            thoughts or None,
            refusal,
            self._model,
            self._id or None,
            message={"role": "model", "parts": _joined(parts)},
        )
        if self._usage:
            _count(answer, self._usage)
        return answer


_ANSWER_FIELDS = ("candidates", "promptFeedback", "usageMetadata")


def _finish_name(reason: object) -> str:
    """The finish reason's name; "" where there is none yet."""
    if isinstance(reason, int):
        reason = _FINISH_NUMBERS[reason] if 0 <= reason < len(_FINISH_NUMBERS) else "OTHER"
    return "" if reason == "FINISH_REASON_UNSPECIFIED" else string(reason)


def _said(parts: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The text of the parts, and their thoughts."""
    thoughts = "".join(string(part.get("text")) for part in parts if part.get("thought"))
    return "".join(string(part.get("text")) for part in parts if not part.get("thought")), thoughts


def _joined(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The parts of all chunks, pieces of one text as one part; signatures stay where they came."""
    joined: list[Mapping[str, Any]] = []
    for part in parts:
        last = joined[-1] if joined else {}
        plain = set(part) <= {"text", "thought"} and set(last) <= {"text", "thought"}
        same = bool(last.get("thought")) == bool(part.get("thought"))
        if plain and same and "text" in last and "text" in part:
            joined[-1] = {**last, "text": string(last["text"]) + string(part["text"])}
        else:
            joined.append(part)
    return joined


def _newer(known: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The usage after a chunk: counts are cumulative, and a chunk may leave some out.

    A chunk whose parts add up to its total, and to no less than before, is the whole account: what
    it leaves out was nothing in the end. Any other only says more about what it names.
    """
    told = {name: value for name, value in told.items() if value is not None}
    total = count(told.get("totalTokenCount"))
    whole = total == sum(count(told.get(name)) for name in _SUMMANDS)
    if total and whole and total >= count(known.get("totalTokenCount")):
        return told
    return known | told


_SUMMANDS = (
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
)
# By name, or by number with `enum-encoding=int`. A document is billed as the images of its pages.
_MODALITIES: Mapping[str | int, str] = {
    "IMAGE": "image",
    "VIDEO": "video",
    "AUDIO": "audio",
    "DOCUMENT": "image",
    2: "image",
    3: "video",
    4: "audio",
    5: "image",
}
_DETAILS = (
    ("promptTokensDetails", "input_{}_tokens"),
    ("toolUsePromptTokensDetails", "input_{}_tokens"),
    ("candidatesTokensDetails", "output_{}_tokens"),
    ("cacheTokensDetails", "cache_{}_read_tokens"),
)


def _count(answer: Answer, usage: Mapping[str, Any]) -> None:
    prompt = count(usage.get("promptTokenCount"))
    thoughts = count(usage.get("thoughtsTokenCount"))
    completion = count(usage.get("candidatesTokenCount")) + thoughts
    cached = count(usage.get("cachedContentTokenCount"))
    total = count(usage.get("totalTokenCount")) or prompt + completion
    answer.usage = UsageStats(prompt, completion, total, cached, 0, thoughts)
    counts: Counter[str] = Counter()
    if tools := count(usage.get("toolUsePromptTokenCount")):
        # Results of Google's own tools are input beside the prompt, and billed.
        counts["input_tokens"] = prompt + tools
    for name, key in _DETAILS:
        for detail in entries(usage.get(name)):
            modality = detail.get("modality")
            if isinstance(modality, (str, int)) and modality in _MODALITIES:
                counts[key.format(_MODALITIES[modality])] += count(detail.get("tokenCount"))
    answer.billing = Billing(counts, tier=string(usage.get("serviceTier")) or None)
