"""Anthropic's messages; pure.

Source: the `anthropic` 2.12.0 package (`types/`) and platform.claude.com ("Messages", "Streaming
messages", "Versions"), read on 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ember.conversation.messages import Message
from ember.conversation.parts import NativePart, Part, Text, ToolResult, json_or_text
from ember.conversation.tools import (
    Choice,
    JsonFormat,
    NativeTool,
    Tool,
    as_choice,
    as_format,
    as_tools,
)
from ember.exceptions import ModelProviderError
from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing
from ember.providers.arguments import as_object, as_stops
from ember.providers.json_values import count, dollars, entries, fields, index, string
from ember.providers.wire import Answer, Call, Wire

__all__ = ["AnthropicMessages"]

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# Anthropic demands max_tokens. 16,000 is what its documentation advises where nothing is streamed;
# thinking counts against it. 4096 is what every older model can write, and those refuse a prompt
# that leaves no room for max_tokens. A longer answer says finish_reason "length".
_MAX_TOKENS, _OLD_MAX_TOKENS = 16_000, 4096
_NEW = re.compile(r"claude-(?!instant|\d)(?!(opus|sonnet)-4(-[01])?(-\d{8})?$)")
# A system message within the conversation is taken by these; for the others it goes to the front.
_SYSTEM_IN_PLACE = re.compile(r"claude-(opus-4-8|opus-5(?!-5)|fable-5|mythos-5)")
# From this version on any sampling parameter is refused, the older one takes them where the model
# does ("Migrating to API version 2026-10-21").
_VERSION, _SAMPLING_VERSION = "2026-10-21", "2023-06-01"
_SAMPLING = ("temperature", "top_p", "top_k")


class AnthropicMessages(Wire):
    """Anthropic's messages."""

    def url(self, call: Call) -> str:
        """See `Wire.url`."""
        return f"{call.base_url.removesuffix('/v1')}/v1/messages"

    def headers(self, call: Call) -> dict[str, str]:
        """See `Wire.headers`."""
        sampling = any(name in call.params for name in _SAMPLING)
        version = _SAMPLING_VERSION if sampling else _VERSION
        return {"anthropic-version": version, **super().headers(call)}

    def body(self, call: Call) -> dict[str, Any]:
        """See `Wire.body`."""
        in_place = _SYSTEM_IN_PLACE.match(call.model) is not None
        system: list[Part] = []
        turns: list[Message] = []
        for message in call.messages:
            if message.role == "system" and not (turns and in_place):
                system += message.spoken("anthropic")
            else:
                turns.append(message)
        body: dict[str, Any] = {
            "model": call.model,
            "messages": _messages(turns),
            "max_tokens": _MAX_TOKENS if _NEW.match(call.model) else _OLD_MAX_TOKENS,
        }
        # A budget of thinking counts against max_tokens, and must be less.
        body["max_tokens"] += count(fields(call.params.get("thinking")).get("budget_tokens"))
        if blocks := _blocks(system):
            alone = len(blocks) == 1 and set(blocks[0]) == {"type", "text"}
            body["system"] = blocks[0]["text"] if alone else blocks
        for name, value in call.params.items():
            _add(body, name, value)
        if call.stream:
            body["stream"] = True
        return body

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """See `Wire.read`."""
        if body.get("type") != "message" and not isinstance(body.get("content"), list):
            return None
        reader = MessageStreamReader()
        reader.whole(body)
        return reader.answer()

    def stream_reader(self) -> MessageStreamReader:
        """See `Wire.stream_reader`."""
        return MessageStreamReader()


class MessageStreamReader:
    """Reads the events of one streamed message."""

    ends_with_done = False

    def __init__(self) -> None:
        self.started = False
        self.complete = False
        self.failure: Mapping[str, Any] | None = None
        self._blocks: list[dict[str, Any]] = []
        self._at: dict[int, dict[str, Any]] = {}
        self._text: list[str] = []
        self._stop = ""
        self._details: Mapping[str, Any] = {}
        self._model = ""
        self._id = ""
        self._usage: dict[str, Any] = {}

    def read(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """See `StreamReader.read`."""
        kind = string(event.get("type")) or name
        self.started = self.started or kind.startswith(("message", "content_block", "ping"))
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "content_block_start":
            text = self._begin(fields(event.get("content_block")), index(event.get("index")))
            return Chunk(text, "", event) if text else None
        if kind == "message_start":
            self.whole(fields(event.get("message")))
        elif kind == "message_delta":
            self._stopped(fields(event.get("delta")))
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "message":
            # The whole answer: of a call that is not streamed, or of a server that does not stream.
            text = self.whole(event)
            self.complete = True
            return Chunk(text, "", event) if text else None
        return None

    def whole(self, message: Mapping[str, Any]) -> str:
        """Take a message as a whole, or its beginning; returns its text."""
        self._model = string(message.get("model")) or self._model
        self._id = string(message.get("id")) or self._id
        self._stopped(message)
        self._count(message.get("usage"))
        content = entries(message.get("content"))
        return "".join([self._begin(block, place) for place, block in enumerate(content)])

    def _begin(self, content: Mapping[str, Any], place: int | None) -> str:
        block = dict(content)
        self._blocks.append(block)
        self._at[len(self._blocks) - 1 if place is None else place] = block
        text = string(block.get("text")) if block.get("type") == "text" else ""
        self._text.append(text)
        return text

    def _stopped(self, delta: Mapping[str, Any]) -> None:
        self._stop = string(delta.get("stop_reason")) or self._stop
        self._details = fields(delta.get("stop_details")) or self._details

    def _delta(self, event: Mapping[str, Any]) -> Chunk | None:
        delta = fields(event.get("delta"))
        place = index(event.get("index"))
        block = self._at.get(place) if place is not None else next(reversed(self._blocks), None)
        if block is None:
            self._begin({}, place)
            block = self._blocks[-1]
        kind = delta.get("type")
        if kind in ("text_delta", "thinking_delta"):
            key = "text" if kind == "text_delta" else "thinking"
            new = string(delta.get(key))
            block["type"] = key
            block[key] = string(block.get(key)) + new
            if key == "thinking":
                return Chunk("", new, event) if new else None
            self._text.append(new)
            return Chunk(new, "", event) if new else None
        if kind == "input_json_delta":
            block["json"] = string(block.get("json")) + string(delta.get("partial_json"))
        elif kind == "signature_delta":
            block["signature"] = string(delta.get("signature"))
        elif kind == "citations_delta":
            block["citations"] = [*entries(block.get("citations")), fields(delta.get("citation"))]
        return None

    def _count(self, usage: object) -> None:
        # Later counts are cumulative and may correct earlier ones.
        self._usage |= {k: v for k, v in fields(usage).items() if v is not None}

    def answer(self) -> Answer:
        """See `StreamReader.answer`."""
        content: list[dict[str, Any]] = []
        for begun in self._blocks:
            block = dict(begun)
            if text := block.pop("json", ""):
                block["input"] = json_or_text(text)
            content.append(block)
        calls = [
            ToolCall(string(b.get("id")), string(b.get("name")), json_or_text(b.get("input")))
            for b in content
            if b.get("type") == "tool_use"
        ]
        thoughts = [string(b.get("thinking")) for b in content if b.get("type") == "thinking"]
        reason = _FINISH.get(self._stop, "other") if self._stop else None
        refusal = None
        if reason == "content_filter":
            told = (self._details.get("explanation"), self._details.get("category"))
            refusal = string(told[0]) or string(told[1]) or "refused"
        answer = Answer(
            "".join(self._text),
            reason,
            calls,
            "".join(thoughts) or None,
            refusal,
            self._model,
            self._id or None,
            message={"role": "assistant", "content": content},
        )
        if self._usage:
            _count(answer, self._usage)
        return answer


# --- requests ----------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    results_of: list[Mapping[str, Any]] | None = None
    for message in messages:
        blocks = _blocks(message.spoken("anthropic"))
        if not blocks:
            continue
        if message.role == "tool" and results_of is not None:
            results_of += blocks  # the results of one turn's calls go together
            continue
        results_of = blocks if message.role == "tool" else None
        alone = len(blocks) == 1 and set(blocks[0]) == {"type", "text"}
        role = "user" if message.role == "tool" else message.role
        made.append({"role": role, "content": blocks[0]["text"] if alone else blocks})
    return made


def _blocks(parts: Sequence[Part]) -> list[Mapping[str, Any]]:
    return [_block(part) for part in parts if not (isinstance(part, Text) and not part.text)]


def _block(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, ToolCall):
        arguments = fields(json_or_text(part.arguments))
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
    if isinstance(part, ToolResult):
        native = isinstance(part.content, list)
        block: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": part.id,
            "content": part.content if native else part.text,
        }
        if part.is_error:
            block["is_error"] = True
        return block
    if isinstance(part, NativePart):
        return part.value
    if part.mime_type.startswith(("audio/", "video/")):
        raise ModelProviderError(f"anthropic takes no {part.mime_type}: pass text, images or PDFs")
    kind = "document" if part.mime_type == "application/pdf" else "image"
    if kind == "image":
        part.must_be_image("anthropic")
    if part.data is None:
        return {"type": kind, "source": {"type": "url", "url": part.url}}
    source = {"type": "base64", "media_type": part.mime_type, "data": part.base64}
    return {"type": kind, "source": source}


def _add(body: dict[str, Any], name: str, value: Any) -> None:
    if name == "stop":
        body["stop_sequences"] = as_stops(value)
    elif name == "tools":
        body["tools"] = [_tool(tool) for tool in as_tools(value)]
    elif name == "tool_choice":
        choice = _choice(as_choice(value))
        # Set beside parallel_tool_calls in either order.
        body["tool_choice"] = {**choice, **_parallel(body.get("tool_choice"))}
    elif name == "parallel_tool_calls":
        choice = body.setdefault("tool_choice", {"type": "auto"})
        choice["disable_parallel_tool_use"] = not value
    elif name == "response_format":
        output = body.setdefault("output_config", {})
        output["format"] = _format(as_format(value))
    elif name == "reasoning_effort" and value == "none":
        body.setdefault("thinking", {"type": "disabled"})
    elif name == "reasoning_effort":
        body.setdefault("output_config", {})["effort"] = value
    elif name == "seed":
        raise ModelProviderError(
            f"anthropic has no seed (seed={value!r}): leave it out; its answers cannot be pinned",
            {"provider": "anthropic", "param": "seed"},
        )
    elif name == "output_config":
        body["output_config"] = {**body.get("output_config", {}), **as_object(name, value)}
    else:
        body[name] = value


def _parallel(choice: Mapping[str, Any] | None) -> dict[str, Any]:
    key = "disable_parallel_tool_use"
    return {key: choice[key]} if choice and key in choice else {}


def _tool(tool: Tool | NativeTool) -> Mapping[str, Any]:
    if isinstance(tool, NativeTool):
        return tool.value
    made: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        made["description"] = tool.description
    made["input_schema"] = tool.parameters
    if tool.strict is not None:
        made["strict"] = tool.strict
    return made


def _choice(choice: Choice | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(choice, Choice):
        return choice
    if choice.name is not None:
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice.mode == "required" else choice.mode}


def _format(wanted: JsonFormat | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(wanted, JsonFormat):
        return wanted
    if wanted.schema is None:
        raise ModelProviderError(
            "anthropic has no JSON mode without a schema: pass the JSON schema as response_format="
        )
    return {"type": "json_schema", "schema": wanted.schema}


# --- answers -----------------------------------------------------------------------------------


def _count(answer: Answer, usage: Mapping[str, Any]) -> None:
    cached = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    details = fields(usage.get("output_tokens_details"))
    answer.usage = UsageStats(
        # Anthropic leaves cached reads and writes out of its input_tokens.
        count(usage.get("input_tokens")) + cached + written,
        count(usage.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(details.get("thinking_tokens")),
    )
    by_age = fields(usage.get("cache_creation"))
    tools = fields(usage.get("server_tool_use"))
    counts = {
        "cache_write_5m_tokens": count(by_age.get("ephemeral_5m_input_tokens")),
        "cache_write_1h_tokens": count(by_age.get("ephemeral_1h_input_tokens")),
        "web_searches": count(tools.get("web_search_requests")),
    }
    answer.billing = Billing(
        {name: counted for name, counted in counts.items() if counted},
        tier=string(usage.get("service_tier")) or None,
        reported=dollars(usage.get("cost")),
    )
