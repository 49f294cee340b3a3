"""Google's generateContent and streamGenerateContent; pure.

Source: the `google-genai` 3.4.0 package (`types.py`, `models.py`) and ai.google.dev, read on
2026-11-22, and observed responses: arrays instead of event streams, enums as numbers, chunks
without usage.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ember.conversation.messages import Message
from ember.conversation.parts import (
    NativePart,
    Part,
    Text,
    ToolResult,
    arguments_text,
    parsed_arguments,
)
from ember.conversation.tools import PLAIN_TEXT, JsonFormat, Tool, ToolChoice
from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing
from ember.providers.call import (
    Call,
    Fold,
    ParsedAnswer,
    as_stops,
    chunks_of,
    final_reason,
    mark_cut_off,
)
from ember.providers.json_values import (
    NOTHING,
    count,
    counts,
    entries,
    fields,
    items,
    string,
    token_paths,
    usage_stats,
    without_none,
)
from ember.providers.provider import HTTPProvider

__all__ = ["GoogleGenerate"]

# google-genai's names of the generation parameters, which are fields of generationConfig.
_CONFIG = """
    candidateCount maxOutputTokens temperature topP topK stopSequences seed presencePenalty
    frequencyPenalty responseMimeType responseSchema responseJsonSchema responseModalities
    speechConfig imageConfig mediaResolution thinkingConfig responseLogprobs logprobs
"""
_RENAMED = {
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "stop": "stopSequences",
    **{name: name for name in _CONFIG.split()},
}
_VERSION_AT_END = re.compile(r"/v\d+(alpha|beta)?\d*$")
_LEVELS = ["minimal", "low", "medium", "high", "xhigh"]
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
# The prefix of the ids that Ember gives to calls without one.
_GENERATED_ID_PREFIX = "ember_"
_NOT_ALLOWED_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")
_FILTERS = """
    SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT
    IMAGE_RECITATION MODEL_ARMOR
"""
_FAILURES = """
    MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE
    MALFORMED_RESPONSE
"""
_FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(_FILTERS.split(), "content_filter"),
    **dict.fromkeys(_FAILURES.split(), "error"),
}
# With `enum-encoding=int` enums are numbers. google.ai.generativelanguage and aiplatform agree on
# the first six; 7 and 8 are different content filters.
_NAMES_BY_NUMBER = """
    FINISH_REASON_UNSPECIFIED STOP MAX_TOKENS SAFETY RECITATION OTHER OTHER BLOCKLIST
    PROHIBITED_CONTENT
"""
_FINISH_NUMBERS = _NAMES_BY_NUMBER.split()
_USAGE = token_paths(
    prompt="promptTokenCount",
    completion="candidatesTokenCount",
    reasoning="thoughtsTokenCount",
    total="totalTokenCount",
    cached="cachedContentTokenCount",
    tools="toolUsePromptTokenCount",
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
_DETAILS_BY_MODALITY = (
    ("promptTokensDetails", "input_{}_tokens"),
    ("toolUsePromptTokensDetails", "input_{}_tokens"),
    ("candidatesTokensDetails", "output_{}_tokens"),
    ("cacheTokensDetails", "cache_{}_read_tokens"),
)


# Before Gemini 3 searches are billed once per grounded prompt, not per query.
_BILLED_PER_PROMPT = re.compile(r"gemini-[12]\b")


class GoogleGenerate(HTTPProvider):
    """Google's generateContent."""

    paths = {  # noqa: RUF012 - a table, never changed
        **{name: f"generationConfig.{key}" for name, key in _RENAMED.items()},
        "tool_choice": "toolConfig",
    }
    merged = ("generationConfig", "thinkingConfig")

    def url(self, call: Call) -> str:
        base, _, query = call.base_url.partition("?")
        base = base.rstrip("/")
        if not _VERSION_AT_END.search(base):
            # google-genai 3 defaults to v1, which lacks previews.
            base = f"{base}/{os.environ.get('GOOGLE_GENAI_API_VERSION', '').strip() or 'v1beta'}"
        is_full_name = call.model.startswith(
            ("models/", "tunedModels/", "projects/", "publishers/")
        )
        path = quote(call.model if is_full_name else f"models/{call.model}")
        if {".", ".."}.intersection(path.split("/")):
            raise ModelProviderError(
                f"google has no model {call.model!r}: its name stands in the URL's path",
                {"provider": self.server.name, "model": call.model},
            )
        method = "streamGenerateContent" if call.stream else "generateContent"
        query = "&".join(filter(None, ["alt=sse" if call.stream else "", query]))
        return f"{base}/{path}:{method}{'?' if query else ''}{query}"

    def body(self, call: Call) -> dict[str, Any]:
        newer = _NEWER_MODELS.search(call.model) is not None
        body: dict[str, Any] = {"contents": _contents(call.messages, newer)}
        system = [p for m in call.messages if m.role == "system" for p in m.parts_for("google")]
        if system:
            body["systemInstruction"] = {"parts": [_part(part) for part in system]}
        params = dict(call.params)
        config: dict[str, Any] = {}
        if (json_format := params.pop("response_format", PLAIN_TEXT)) != PLAIN_TEXT:
            config |= self.translate("response_format", json_format)
        if "reasoning_effort" in params:
            effort = params.pop("reasoning_effort")
            config["thinkingConfig"] = _thinking(call.model, effort)
        if config:
            body["generationConfig"] = config
        self.add(body, params)
        return body

    def translate(self, name: str, value: Any) -> Any:
        if name == "stop":
            return as_stops(value)
        value = super().translate(name, value)
        if name != "tools":
            return value
        declared = [tool for tool in value if "name" in tool]
        native = [tool for tool in value if "name" not in tool]
        return [*([{"functionDeclarations": declared}] if declared else []), *native]

    def tool(self, tool: Tool) -> Mapping[str, Any]:
        about = without_none(description=tool.description, parametersJsonSchema=tool.parameters)
        return {"name": tool.name, **about, **tool.extra_for("google")}

    def choice(self, choice: ToolChoice) -> Mapping[str, Any]:
        mode = "ANY" if choice.mode == "required" else choice.mode.upper()
        names = None if choice.name is None else [choice.name]
        return {"functionCallingConfig": without_none(mode=mode, allowedFunctionNames=names)}

    def format(self, json_format: JsonFormat) -> Mapping[str, Any]:
        return without_none(
            responseMimeType="application/json", responseJsonSchema=json_format.schema
        )

    def read(self, body: Mapping[str, Any]) -> ParsedAnswer | None:
        candidate = _first_candidate(body)
        if not (candidate or body.get("promptFeedback") or body.get("usageMetadata")):
            return None
        answer_id = string(body.get("responseId"))
        parts = entries(fields(candidate.get("content")).get("parts"))
        parts, calls = _parts_and_calls(parts, answer_id)
        reason: FinishReason | None = None
        refusal: str | None = None
        feedback = fields(body.get("promptFeedback"))
        if finish := _finish_name(candidate.get("finishReason")):
            reason = final_reason(_FINISH.get(finish, "other"), calls, None)
            if reason == "content_filter":
                refusal = string(candidate.get("finishMessage")) or finish
        elif blocked := feedback.get("blockReason"):
            reason = "content_filter"
            refusal = string(feedback.get("blockReasonMessage")) or str(blocked)
        last = fields(parts[-1].get("functionCall")) if parts else NOTHING
        whole = not last or "args" in last
        text, thoughts = _text_and_reasoning(parts)
        return ParsedAnswer(
            text,
            reason,
            mark_cut_off(calls, reason, whole),
            thoughts or None,
            refusal,
            string(body.get("modelVersion")),
            answer_id or None,
            {"role": "model", "parts": _join_texts(parts)},
            *_usage_and_billing(fields(body.get("usageMetadata")), _searches(candidate)),
        )

    def fold(self) -> Fold:
        return _ContentFold()

    def response(
        self, call: Call, answer: ParsedAnswer, headers: Mapping[str, str], raw: object
    ) -> ChatResponse:
        billing = answer.billing
        per_prompt = _BILLED_PER_PROMPT.search(answer.model or call.model)
        if per_prompt and billing is not None and "web_searches" in billing.counts:
            once = {**billing.counts, "web_searches": 1}
            answer = answer._replace(billing=billing._replace(counts=once))
        return super().response(call, answer, headers, raw)


# --- requests ----------------------------------------------------------------------------------


# From Gemini 3 on a call needs a signature, and a function's response may contain media. The
# signature is Google's for calls of other models ("Thought signatures", ai.google.dev).
_NEWER_MODELS = re.compile(r"gemini-(?![12]\b)")
_NO_SIGNATURE = "skip_thought_signature_validator"


def _contents(messages: Sequence[Message], newer: bool) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = [each for part in message.parts_for("google") for each in _parts(part, newer)]
        if not parts:
            continue
        if newer and role == "model":
            _add_signature(parts)
        if message.role == "tool" and contents and _has_results(contents[-1]):
            contents[-1]["parts"] += parts  # the results of one turn's calls go into one content
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _add_signature(parts: list[Mapping[str, Any]]) -> None:
    """Give the first call of a turn a signature if no call has one."""
    calls = [at for at, part in enumerate(parts) if "functionCall" in part]
    if calls and not any("thoughtSignature" in parts[at] for at in calls):
        parts[calls[0]] = {**parts[calls[0]], "thoughtSignature": _NO_SIGNATURE}


def _has_results(content: Mapping[str, Any]) -> bool:
    return any("functionResponse" in part for part in content["parts"])


# Prefixes of ids made by Ember, OpenAI or Anthropic: Google links calls and results by name.
_FOREIGN_ID_PREFIXES = (_GENERATED_ID_PREFIX, "call_", "toolu_")


def _google_id(call_id: str) -> str | None:
    return None if not call_id or call_id.startswith(_FOREIGN_ID_PREFIXES) else call_id


def _parts(part: Part, newer: bool) -> list[Mapping[str, Any]]:
    """Convert a part to Google's format; media of a tool's result are inside it or after it."""
    translated = _part(part)
    parts = part.parts_with_media("google") if isinstance(part, ToolResult) else ()
    media = [_part(each) for each in parts if not isinstance(each, Text)]
    if media and newer:
        return [{"functionResponse": {**translated["functionResponse"], "parts": media}}]
    return [translated, *media]


def _part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, ToolCall):
        arguments = fields(parsed_arguments(part.arguments))
        call = without_none(name=part.name, args=arguments, id=_google_id(part.id))
        return without_none(functionCall=call, thoughtSignature=part.signature)
    if isinstance(part, ToolResult):
        result = part.content
        if part.is_error or not isinstance(result, Mapping):
            # A response must be an object; these two keys are Google's for other values.
            value = part.text if part.text_parts else result
            if media := part.parts_with_media("google"):
                texts = [each.text for each in media if isinstance(each, Text)]
                value = "\n".join(texts) or "The result is beside this."
            result = {"error" if part.is_error else "result": value}
        call_id = _google_id("" if part.id == part.name else part.id)
        return {"functionResponse": without_none(name=part.name, response=result, id=call_id)}
    if isinstance(part, NativePart):
        return part.value
    if part.data is None:
        return {"fileData": without_none(fileUri=part.url, mimeType=part.mime_type or None)}
    return {"inlineData": {"mimeType": part.mime_type, "data": part.base64}}


def _thinking(model: str, effort: object) -> dict[str, Any]:
    """Convert the effort for the model's generation: to a number of tokens, or a level."""
    words = [*_BUDGETS] if "2.5" in model else _LEVELS
    if effort not in words:
        raise ModelProviderError(
            f"{model} takes reasoning_effort {', '.join(words)}, not {effort!r}; what else it "
            "takes goes into thinkingConfig= as it is",
            {"provider": "google", "param": "reasoning_effort"},
        )
    if "2.5" in model:
        return {"thinkingBudget": _BUDGETS[str(effort)]}
    return {"thinkingLevel": str(effort).upper()}


# --- answers -----------------------------------------------------------------------------------

_ANSWER_FIELDS = ("candidates", "promptFeedback", "usageMetadata")


class _ContentFold(Fold):
    """Folds the chunks of one stream, each of which is a whole GenerateContentResponse."""

    def __init__(self) -> None:
        super().__init__()
        self._about: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[Mapping[str, Any]] = []
        self._usage: dict[str, Any] = {}

    def add(self, name: str, event: Mapping[str, Any]) -> Sequence[Chunk]:
        self.started = self.started or not event.keys().isdisjoint(_ANSWER_FIELDS)
        for key in ("modelVersion", "responseId", "promptFeedback"):
            if value := event.get(key):
                self._about[key] = value
        self._usage = _updated_usage(self._usage, fields(event.get("usageMetadata")))
        candidate = dict(_first_candidate(event))
        parts = entries(fields(candidate.pop("content", None)).get("parts"))
        if not _finish_name(candidate.get("finishReason")):
            candidate.pop("finishReason", None)
        if grounding := fields(candidate.get("groundingMetadata")):
            so_far = fields(self._candidate.get("groundingMetadata"))
            nonempty = {key: value for key, value in grounding.items() if value}
            candidate["groundingMetadata"] = {**so_far, **nonempty}
        self._candidate |= {key: value for key, value in candidate.items() if value}
        blocked = fields(event.get("promptFeedback")).get("blockReason")
        self.complete = self.complete or bool(blocked) or "finishReason" in candidate
        before = len([part for part in self._parts if part.get("functionCall")])
        _, calls = _parts_and_calls(parts, string(self._about.get("responseId")), before)
        pieces = [call._replace(arguments=arguments_text(call.arguments)) for call in calls]
        self._parts += parts
        text, thoughts = _text_and_reasoning(parts)
        return chunks_of(event, text, thoughts, pieces)

    def body(self) -> Mapping[str, Any]:
        candidate = {**self._candidate, "content": {"role": "model", "parts": self._parts}}
        return {**self._about, "candidates": [candidate], "usageMetadata": self._usage}


def _first_candidate(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the candidate that is the answer; the others are in `raw`."""
    candidates = entries(body.get("candidates")) or [{}]
    return next((each for each in candidates if not each.get("index")), candidates[0])


def _parts_and_calls(
    given: Sequence[Mapping[str, Any]], answer_id: str, before: int = 0
) -> tuple[list[Mapping[str, Any]], list[ToolCall]]:
    """Return an answer's parts, with an id for each call, and the calls; `before` were earlier."""
    parts: list[Mapping[str, Any]] = []
    calls: list[ToolCall] = []
    for part in given:
        if call := fields(part.get("functionCall")):
            # Not every call has an id, and a tool's result must name one.
            answer_part = _NOT_ALLOWED_IN_IDS.sub("", answer_id)[:24]
            generated_id = f"{_GENERATED_ID_PREFIX}{answer_part}_{before + len(calls)}"
            call_id = string(call.get("id")) or generated_id
            signature = string(part.get("thoughtSignature")) or None
            calls.append(
                ToolCall(call_id, string(call.get("name")), fields(call.get("args")), signature)
            )
            part = {**part, "functionCall": {**call, "id": call_id}}
        parts.append(part)
    return parts, calls


def _finish_name(reason: object) -> str:
    """Return the finish reason's name, or "" if there is none yet."""
    if isinstance(reason, int):
        reason = _FINISH_NUMBERS[reason] if 0 <= reason < len(_FINISH_NUMBERS) else "OTHER"
    return "" if reason == "FINISH_REASON_UNSPECIFIED" else string(reason)


def _text_and_reasoning(parts: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    thoughts = "".join(string(part.get("text")) for part in parts if part.get("thought"))
    return "".join(string(part.get("text")) for part in parts if not part.get("thought")), thoughts


def _join_texts(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join the pieces of each text in the parts of all chunks; parts with signatures stay apart."""
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


def _updated_usage(known: dict[str, Any], latest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage after a chunk: counts are cumulative, and a chunk may omit some.

    If the counts of a chunk add up to its total, and to no less than before, they are complete:
    omitted ones are 0. Any other chunk only updates the counts that it has.
    """
    latest = {name: value for name, value in latest.items() if value is not None}
    total = count(latest.get("totalTokenCount"))
    whole = total == sum(count(latest.get(name)) for name in _PARTS_OF_TOTAL)
    if total and whole and total >= count(known.get("totalTokenCount")):
        return latest
    return known | latest


_PARTS_OF_TOTAL = (
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
)


def _usage_and_billing(
    usage: Mapping[str, Any], searches: int
) -> tuple[UsageStats | None, Billing | None]:
    """Return the answer's usage in Ember's form, and the other data for its price."""
    if not usage:
        return None, None
    found = counts(usage, _USAGE)
    # Results of Google's own tools are billed as input in addition to the prompt, and thoughts as
    # output in addition to the candidates.
    found["prompt"] = found.get("prompt", 0) + found.get("tools", 0)
    found["completion"] = found.get("completion", 0) + found.get("reasoning", 0)
    billed: Counter[str] = Counter()
    for name, key in _DETAILS_BY_MODALITY:
        for detail in entries(usage.get(name)):
            modality = detail.get("modality")
            if isinstance(modality, (str, int)) and modality in _MODALITIES:
                billed[key.format(_MODALITIES[modality])] += count(detail.get("tokenCount"))
    if searches:
        billed["web_searches"] = searches
    return usage_stats(found), Billing(billed, string(usage.get("serviceTier")) or None)


def _searches(candidate: Mapping[str, Any]) -> int:
    grounding = fields(candidate.get("groundingMetadata"))
    return sum(bool(string(q).strip()) for q in items(grounding.get("webSearchQueries")))
