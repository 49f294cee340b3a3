"""Anthropic's Messages API; pure.

Source: the `anthropic` 2.12.0 package (`types/`) and platform.claude.com ("Messages", "Streaming
messages", "Versions"), read on 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ember.conversation.dialects import for_anthropic
from ember.conversation.messages import Message
from ember.conversation.parts import (
    NativePart,
    Part,
    Text,
    ToolResult,
    arguments_text,
    call_id_for,
    parsed_arguments,
)
from ember.conversation.tools import PLAIN_TEXT, JsonFormat, Tool, ToolChoice, as_response_format
from ember.exceptions import ModelProviderError
from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing, SubCall
from ember.providers.arguments import Headers
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
    count,
    counts,
    dollars,
    entries,
    fields,
    index,
    items,
    string,
    token_paths,
    usage_stats,
    without_none,
)
from ember.providers.provider import HTTPProvider

__all__ = ["AnthropicMessages"]

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_USAGE = token_paths(
    prompt="input_tokens",
    completion="output_tokens",
    cached="cache_read_input_tokens",
    cache_write="cache_creation_input_tokens",
    reasoning="output_tokens_details.thinking_tokens",
)
_BILLED = token_paths(
    cache_write_5m_tokens="cache_creation.ephemeral_5m_input_tokens",
    cache_write_1h_tokens="cache_creation.ephemeral_1h_input_tokens",
    web_searches="server_tool_use.web_search_requests",
)
# Anthropic requires max_tokens. Its documentation recommends 16,000 without streaming; thinking
# counts against it. Every older model can write 4096, and refuses a prompt that leaves no room for
# max_tokens. A longer answer ends with finish_reason "length".
_MAX_TOKENS, _OLDER_MAX_TOKENS = 16_000, 4096
_NEWER_MODELS = re.compile(r"claude-(?!instant|\d)(?!(opus|sonnet)-4(-[01])?(-\d{8})?$)")
# These accept a system message within the conversation; for the others it is moved to the front.
_SYSTEM_IN_PLACE = re.compile(r"claude-(opus-4-8|opus-5(?!-5)|fable-5|mythos-5)")
# These accept no schema for their answer: they are made to call a tool that has the schema.
_WITHOUT_SCHEMAS = re.compile(r"claude-(instant|\d|(opus|sonnet)-4(-0)?(-\d{8})?$)")
_ANSWER_TOOL = "answer_in_json"
# A message without content has at least one of these.
_ENDINGS = ("stop_reason", "usage")
# The tool call ids and the image types that are accepted.
_CALL_ID = r"[a-zA-Z0-9_-]{1,64}"
_IMAGES = ("image/gif", "image/jpeg", "image/png", "image/webp")
# The newer version refuses all sampling parameters; the older one accepts them if the model does
# ("Migrating to API version 2026-10-21").
_VERSION, _SAMPLING_VERSION = "2026-10-21", "2023-06-01"
_SAMPLING = ("temperature", "top_p", "top_k")


class AnthropicMessages(HTTPProvider):
    """Anthropic's Messages API."""

    paths = {  # noqa: RUF012 - a table, never changed
        "stop": "stop_sequences",
        "response_format": "output_config.format",
        "reasoning_effort": "output_config.effort",
    }
    merged = ("output_config",)
    unsupported = {  # noqa: RUF012 - a table, never changed
        "seed": "leave it out; its answers cannot be pinned"
    }

    def url(self, call: Call) -> str:
        base, mark, query = call.base_url.partition("?")
        return f"{base.rstrip('/').removesuffix('/v1')}/v1/messages{mark}{query}"

    def headers(self, call: Call) -> Headers:
        headers = super().headers(call)
        sampling = any(name in call.params for name in _SAMPLING)
        headers["anthropic-version"] = _SAMPLING_VERSION if sampling else _VERSION
        return headers

    def body(self, call: Call) -> dict[str, Any]:
        in_place = _SYSTEM_IN_PLACE.match(call.model) is not None
        system: list[Part] = []
        turns: list[Message] = []
        for message in call.messages:
            if message.role == "system" and not (turns and in_place):
                system += message.parts_for("anthropic")
            else:
                turns.append(message)
        body: dict[str, Any] = {
            "model": call.model,
            "messages": _messages(turns),
            "max_tokens": _MAX_TOKENS if _NEWER_MODELS.match(call.model) else _OLDER_MAX_TOKENS,
        }
        # The thinking budget counts against max_tokens and must be smaller.
        body["max_tokens"] += count(fields(call.params.get("thinking")).get("budget_tokens"))
        if blocks := _blocks(system):
            body["system"] = _as_content(blocks)
        params = dict(call.params)
        parallel = params.pop("parallel_tool_calls", None)
        if params.get("reasoning_effort") == "none":
            del params["reasoning_effort"]
            params.setdefault("thinking", {"type": "disabled"})
        if params.get("response_format") == PLAIN_TEXT:
            del params["response_format"]
        answer = self._answer_tool(call.model, params)
        self.add(body, params)
        if answer is not None:
            others = body.get("tools", [])
            body["tools"] = [*others, answer]
            forced = {"type": "any"} if others else {"type": "tool", "name": _ANSWER_TOOL}
            # A model that thinks cannot be forced to call a tool.
            thinks = fields(body.get("thinking")).get("type", "disabled") != "disabled"
            body["tool_choice"] = {"type": "auto"} if thinks else forced
        if parallel is not None:
            choice = {"type": "auto", **body.get("tool_choice", {})}
            body["tool_choice"] = {**choice, "disable_parallel_tool_use": not parallel}
        if call.stream:
            body["stream"] = True
        return body

    def _answer_tool(self, model: str, params: dict[str, Any]) -> Mapping[str, Any] | None:
        """Remove the response format from the parameters, and return the tool that replaces it."""
        if "response_format" not in params or not _WITHOUT_SCHEMAS.match(model):
            return None
        json_format = as_response_format(params["response_format"])
        if not isinstance(json_format, JsonFormat) or json_format.schema is None:
            return None
        del params["response_format"]
        about = "Give the answer, as the arguments of this tool."
        return self.tool(
            Tool(_ANSWER_TOOL, json_format.description or about, json_format.object_schema())
        )

    def translate(self, name: str, value: Any) -> Any:
        return as_stops(value) if name == "stop" else super().translate(name, value)

    def tool(self, tool: Tool) -> Mapping[str, Any]:
        schema = tool.parameters
        if tool.strict:
            schema = for_anthropic(schema, f"tools= ({tool.name})")
        about = without_none(description=tool.description, input_schema=schema, strict=tool.strict)
        return {"name": tool.name, **about, **tool.extra_for("anthropic")}

    def choice(self, choice: ToolChoice) -> Mapping[str, Any]:
        if choice.name is not None:
            return {"type": "tool", "name": choice.name}
        return {"type": "any" if choice.mode == "required" else choice.mode}

    def format(self, json_format: JsonFormat) -> Mapping[str, Any]:
        if json_format.schema is None:
            raise ModelProviderError(
                "anthropic has no JSON mode without a schema: pass the JSON schema as "
                "response_format="
            )
        return {
            "type": "json_schema",
            "schema": for_anthropic(json_format.schema, "response_format="),
        }

    def read(self, body: Mapping[str, Any]) -> ParsedAnswer | None:
        is_message = body.get("type") == "message" and not body.keys().isdisjoint(_ENDINGS)
        if not is_message and not isinstance(body.get("content"), list):
            return None
        content = [_as_text_block(block) for block in entries(body.get("content"))]
        calls = [
            ToolCall(string(b.get("id")), string(b.get("name")), parsed_arguments(b.get("input")))
            for b in content
            if b.get("type") == "tool_use"
        ]
        thoughts = [string(b.get("thinking")) for b in content if b.get("type") == "thinking"]
        text = body.get("text")  # only from `_MessageFold.body`
        if not isinstance(text, str):
            text = "".join([string(b.get("text")) for b in content if b.get("type") == "text"])
        # A call that is followed by another block is complete.
        last = content[-1].get("input") if content and content[-1].get("type") == "tool_use" else 1
        stopped = string(body.get("stop_reason"))
        reason = _FINISH.get(stopped, "other") if stopped else None
        if reason == "tool_calls" and content and not calls:
            reason = "stop"  # the tool that it was made to call was its answer
        refusal = None
        if reason == "content_filter":
            details = fields(body.get("stop_details"))
            explanation = string(details.get("explanation")) or string(details.get("category"))
            refusal = explanation or "refused"
        return ParsedAnswer(
            text,
            final_reason(reason, calls, refusal),
            mark_cut_off(calls, reason, last),
            "".join(thoughts) or None,
            refusal,
            string(body.get("model")),
            string(body.get("id")) or None,
            {"role": "assistant", "content": content},
            *_usage_and_billing(fields(body.get("usage"))),
        )

    def fold(self) -> Fold:
        return _MessageFold()


# --- requests ----------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    turns_sent: list[dict[str, Any]] = []
    results_of: list[Mapping[str, Any]] | None = None
    for message in messages:
        blocks = _blocks(message.parts_for("anthropic"))
        if not blocks:
            continue
        if message.role == "tool" and results_of is not None:
            results_of += blocks  # the results of one turn's calls go into one message
            continue
        results_of = blocks if message.role == "tool" else None
        role = "user" if message.role == "tool" else message.role
        turns_sent.append({"role": role, "content": _as_content(blocks)})
    if turns_sent and turns_sent[-1]["role"] == "assistant":
        # The prefilled beginning of the answer: white space at its end is refused.
        if isinstance(content := turns_sent[-1]["content"], str):
            turns_sent[-1]["content"] = content.rstrip()
        elif content[-1].get("type") == "text":
            content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}
    return turns_sent


def _as_content(blocks: list[Mapping[str, Any]]) -> Any:
    """Return blocks as content: a single text block as a string."""
    alone = len(blocks) == 1 and set(blocks[0]) == {"type", "text"}
    return blocks[0]["text"] if alone else blocks


def _blocks(parts: Sequence[Part]) -> list[Mapping[str, Any]]:
    # Text that is only white space is refused, in Claude's own answers too.
    blocks = map(_block, parts)
    return [b for b in blocks if b.get("type") != "text" or string(b.get("text")).strip()]


def _block(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, ToolCall):
        arguments = fields(parsed_arguments(part.arguments))
        call_id = call_id_for(part.id or part.name, _CALL_ID)
        return {"type": "tool_use", "id": call_id, "name": part.name, "input": arguments}
    if isinstance(part, ToolResult):
        content: Any = _blocks(part.parts_with_media("anthropic"))
        if not content:
            content = part.content if _is_in_this_format(part.content) else part.text
        call_id, is_error = call_id_for(part.id, _CALL_ID), part.is_error or None
        return without_none(
            type="tool_result", tool_use_id=call_id, content=content, is_error=is_error
        )
    if isinstance(part, NativePart):
        return part.value
    if part.mime_type.startswith(("audio/", "video/")):
        raise ModelProviderError(f"anthropic takes no {part.mime_type}: pass text, images or PDFs")
    kind = "document" if part.mime_type == "application/pdf" else "image"
    if kind == "image":
        part.check_is_image("anthropic", _IMAGES)
    if part.data is None:
        return {"type": kind, "source": {"type": "url", "url": part.url}}
    source = {"type": "base64", "media_type": part.mime_type, "data": part.base64}
    return {"type": kind, "source": source}


def _is_in_this_format(content: object) -> bool:
    """Return whether a tool's result is already in Anthropic's format."""
    blocks = items(content)
    return bool(blocks) and all(string(fields(block).get("type")) for block in blocks)


# --- answers -----------------------------------------------------------------------------------


class _MessageFold(Fold):
    """Folds the events of one streamed message."""

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._text: list[str] = []
        self._blocks: list[_Block] = []
        self._at: dict[int, _Block] = {}

    def add(self, name: str, event: Mapping[str, Any]) -> Sequence[Chunk]:
        kind = string(event.get("type")) or name
        self.started = self.started or kind.startswith(("message", "content_block", "ping"))
        if kind == "content_block_delta":
            block, delta = self._block(event), fields(event.get("delta"))
            text, thoughts = block.add(delta)
            self._text.append(text)
            arguments = string(delta.get("partial_json"))
            return chunks_of(event, text, thoughts, block.calls(arguments))
        begun: list[_Block] = []
        if kind == "content_block_start":
            begun = [self._begin(fields(event.get("content_block")), index(event.get("index")))]
        elif kind == "message_delta":
            self._merge(fields(event.get("delta")), event.get("usage"))
        elif kind == "message_stop":
            self.complete = True
        elif kind in ("message_start", "message"):
            # `message`: a whole answer, of a server that does not stream or an unstreamed call.
            whole = kind == "message"
            message = event if whole else fields(event.get("message"))
            self._merge(message, message.get("usage"))
            content = entries(message.get("content"))
            begun = [self._begin(block, place) for place, block in enumerate(content)]
            self.complete = self.complete or whole
        text = "".join([block.first_text for block in begun])
        self._text.append(text)
        return chunks_of(event, text, "", [call for block in begun for call in block.calls("")])

    def _begin(self, content: Mapping[str, Any], place: int | None) -> _Block:
        block = _Block(content)
        self._at[len(self._blocks) if place is None else place] = block
        self._blocks.append(block)
        return block

    def _block(self, event: Mapping[str, Any]) -> _Block:
        place = index(event.get("index"))
        block = self._at.get(place) if place is not None else next(reversed(self._blocks), None)
        return self._begin({}, place) if block is None else block

    def _merge(self, message: Mapping[str, Any], usage: object) -> None:
        for key in ("id", "model", "stop_reason", "stop_details"):
            if value := message.get(key):
                self._message[key] = value
        # Later counts are cumulative and may correct earlier ones.
        self._usage |= {k: v for k, v in fields(usage).items() if v is not None}

    def body(self) -> Mapping[str, Any]:
        content = [block.body() for block in self._blocks]
        # The text in the order of the chunks: the blocks of a broken stream may be out of order.
        text = "".join(self._text)
        return {**self._message, "content": content, "usage": self._usage, "text": text}


def _as_text_block(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a block; a call of the tool that replaces a response format becomes text."""
    if block.get("type") != "tool_use" or block.get("name") != _ANSWER_TOOL:
        return block
    given = block.get("input")
    return {"type": "text", "text": arguments_text(given) if given else ""}


# The field of a block that each type of delta extends.
_TEXT_DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}


class _Block:
    """One block of a streamed message, as received so far."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = dict(_as_text_block(content))
        self._is_answer = content.get("name") == _ANSWER_TOOL
        self._pieces: dict[str, list[str]] = {}
        is_text = self._content.get("type") == "text"
        self.first_text = string(self._content.get("text")) if is_text else ""

    def add(self, delta: Mapping[str, Any]) -> tuple[str, str]:
        """Add a delta; return its text and its reasoning."""
        kind = delta.get("type")
        if self._is_answer and kind == "input_json_delta":
            kind, delta = "text_delta", {"text": delta.get("partial_json")}
        if key := _TEXT_DELTAS.get(string(kind)):
            new = string(delta.get(key))
            self._pieces.setdefault(key, []).append(new)
            return new if key == "text" else "", new if key == "thinking" else ""
        if kind == "signature_delta":
            self._content["signature"] = string(delta.get("signature"))
        elif kind == "compaction_delta":
            self._content |= {k: v for k, v in delta.items() if k != "type" and v is not None}
        elif kind == "citations_delta":
            cited = [*entries(self._content.get("citations")), fields(delta.get("citation"))]
            self._content["citations"] = cited
        return "", ""

    def calls(self, arguments: str) -> list[ToolCall]:
        """Return the call with new text of its arguments, or nothing if this is not a call."""
        block = self._content
        if block.get("type") != "tool_use":
            return []
        return [ToolCall(string(block.get("id")), string(block.get("name")), arguments)]

    def body(self) -> dict[str, Any]:
        """Return the block as it would be in a whole message."""
        block = dict(self._content)
        for key, pieces in self._pieces.items():
            text = "".join(pieces)
            if key != "partial_json":
                block["type"], block[key] = key, string(block.get(key)) + text
            elif text:
                block["input"] = parsed_arguments(text)
        return block


def _usage_and_billing(usage: Mapping[str, Any]) -> tuple[UsageStats | None, Billing | None]:
    """Return the answer's usage in Ember's form, and the other data for its price."""
    if not usage:
        return None, None
    stats, billed = _tokens(usage), counts(usage, _BILLED)
    subcalls = [
        SubCall(string(each.get("model")) or None, _tokens(each), counts(each, _BILLED))
        for each in _billed_separately(entries(usage.get("iterations")))
    ]
    if subcalls:
        total = sum((subcall.usage for subcall in subcalls), UsageStats())
        stats = replace(total, reasoning_tokens=stats.reasoning_tokens)
        billed = {name: billed[name] for name in ("web_searches",) if name in billed}
    fast, geo = usage.get("speed") == "fast", string(usage.get("inference_geo"))
    return stats, Billing(
        billed,
        "fast" if fast else string(usage.get("service_tier")) or None,
        dollars(usage.get("cost")),
        geo if len(geo) == 2 else None,  # "global", "not_available": no region
        subcalls,
    )


def _tokens(usage: Mapping[str, Any]) -> UsageStats:
    found = counts(usage, _USAGE)
    # Anthropic's input_tokens do not include cache reads and writes.
    found["prompt"] = sum(found.get(name, 0) for name in ("prompt", "cached", "cache_write"))
    return usage_stats(found)


def _billed_separately(iterations: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the iterations of an answer that are billed separately, or none if it had only one.

    The usage around them omits compactions and other models' parts. If a fallback model served
    the answer, the models that declined before it are not billed.
    """
    served_by = [each.get("model") for each in iterations if each.get("type") == "fallback_message"]
    if served_by:
        return [
            each
            for each in iterations
            if each.get("type") != "message" or each.get("model") in served_by
        ]
    several = len(iterations) > 1 or any(each.get("type") != "message" for each in iterations)
    return iterations if several else []
