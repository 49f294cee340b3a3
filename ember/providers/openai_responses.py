"""OpenAI's Responses API; pure.

Source: the `openai` 3.54.0 package (`types/responses/`), read on 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from ember.providers.arguments import as_object
from ember.providers.json_values import count, dollars, entries, fields, string
from ember.providers.openai_answers import arguments_text
from ember.providers.wire import Answer, Call, Wire

__all__ = ["OpenAIResponses"]

_INCOMPLETE: Mapping[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")


class OpenAIResponses(Wire):
    """The Responses API."""

    def url(self, call: Call) -> str:
        """See `Wire.url`."""
        base, mark, query = call.base_url.partition("?")
        return f"{base}/responses{mark}{query}"

    def body(self, call: Call) -> dict[str, Any]:
        """See `Wire.body`."""
        body: dict[str, Any] = {"model": call.model}
        turns = list(call.messages)
        if turns[0].role == "system" and len(turns) > 1:
            body["instructions"] = turns.pop(0).text
        custom = {call_id for message in turns for call_id in _custom_calls(message)}
        items = [item for message in turns for item in _items(message, custom)]
        body["input"] = items
        if len(items) == 1 and items[0].get("role") == "user":
            content = items[0].get("content")
            body["input"] = content if isinstance(content, str) else items
        for name, value in call.params.items():
            _add(body, name, value)
        if call.stream:
            body["stream"] = True
        return body

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """See `Wire.read`."""
        if body.get("object") != "response" and not isinstance(body.get("output"), list):
            return None
        return _answer(body, entries(body.get("output")))

    def stream_reader(self) -> ResponseStreamReader:
        """See `Wire.stream_reader`."""
        return ResponseStreamReader()


class ResponseStreamReader:
    """Reads the events of one streamed response."""

    ends_with_done = False

    def __init__(self) -> None:
        self.started = False
        self.complete = False
        self.failure: Mapping[str, Any] | None = None
        self._response: Mapping[str, Any] = {}
        self._items: list[Mapping[str, Any]] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []

    def read(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """See `StreamReader.read`."""
        kind = string(event.get("type")) or name
        delta = string(event.get("delta"))
        response = event if event.get("object") == "response" else fields(event.get("response"))
        ours = kind.startswith(("response.", "keepalive"))
        self.started = self.started or ours or bool(response)
        if kind == "response.output_text.delta":
            self._text.append(delta)
            return Chunk(delta, "", event) if delta else None
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._reasoning.append(delta)
            return Chunk("", delta, event) if delta else None
        if kind == "response.refusal.delta":
            self._refusal.append(delta)
        elif kind == "response.output_item.done":
            self._items += entries(event.get("item"))
        elif response:
            self._response = response
            # A server that does not stream answers in one piece.
            self.complete = self.complete or kind in _TERMINAL or response is event
            if kind == "response.failed" or response.get("status") == "failed":
                error = fields(response.get("error"))
                self.failure = {"error": error or {"message": "the response failed"}}
            return self._rest(event) if self.complete else None
        return None

    def _rest(self, event: Mapping[str, Any]) -> Chunk | None:
        """The text that stands in the whole response only, since no delta brought it."""
        rest = self.answer().text[len("".join(self._text)) :]
        self._text.append(rest)
        return Chunk(rest, "", event) if rest else None

    def answer(self) -> Answer:
        """See `StreamReader.answer`."""
        answer = _answer(self._response, entries(self._response.get("output")) or self._items)
        # A stream that was cut, and servers whose last event has no output: what the deltas said.
        streamed = "".join(self._text)
        if not answer.text.startswith(streamed):
            answer.text = streamed
        answer.reasoning = answer.reasoning or "".join(self._reasoning) or None
        answer.refusal = answer.refusal or "".join(self._refusal) or None
        if answer.refusal and answer.finish_reason == "stop":
            answer.finish_reason = "content_filter"
        return answer


# --- requests ----------------------------------------------------------------------------------


def _custom_calls(message: Message) -> list[str]:
    """The ids of the calls whose input is free text: their results have a name of their own."""
    values = [part.value for part in message.parts if isinstance(part, NativePart)]
    return [string(v.get("call_id")) for v in values if v.get("type") == "custom_tool_call"]


def _items(message: Message, custom: Collection[str]) -> list[Mapping[str, Any]]:
    """A message in this API's words: calls and results of tools are items of their own."""
    items: list[Mapping[str, Any]] = []
    parts: list[Mapping[str, Any]] = []
    for part in message.spoken("openai-responses"):
        if isinstance(part, ToolCall):
            items.append(
                {
                    "type": "function_call",
                    "call_id": part.id,
                    "name": part.name,
                    "arguments": arguments_text(part.arguments),
                }
            )
        elif isinstance(part, ToolResult):
            kind = "custom_tool_call_output" if part.id in custom else "function_call_output"
            output = part.content if _are_parts(part.content) else part.text
            items.append({"type": kind, "call_id": part.id, "output": output})
        elif isinstance(part, NativePart) and part.wire:
            items.append(part.value)  # an item of an earlier answer
        else:
            parts.append(_part(part, message.role))
    if parts:
        role = "developer" if message.role == "system" else message.role
        texts = [part["text"] for part in parts if "text" in part]
        alone = len(parts) == 1 and len(texts) == 1
        said: dict[str, Any] = {"role": role, "content": texts[0] if alone else parts}
        if "phase" in message.extra:  # commentary, or the answer: wanted back
            said["phase"] = message.extra["phase"]
        # An assistant speaks before it calls; a user's words follow the results that they are with.
        items.insert(0 if role == "assistant" else len(items), said)
    return items


def _are_parts(content: object) -> bool:
    kinds = [part.get("type") for part in entries(content)]
    return bool(kinds) and set(kinds) <= {"input_text", "input_image", "input_file"}


def _part(part: Part, role: str) -> Mapping[str, Any]:
    if isinstance(part, Text):
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": kind, "text": part.text}
    if isinstance(part, NativePart):
        return part.value
    assert not isinstance(part, (ToolCall, ToolResult))
    if part.mime_type.startswith(("audio/", "video/")):
        raise ModelProviderError(
            f"the Responses API takes no {part.mime_type}: use the prefix openai/ for sound"
        )
    if part.mime_type == "application/pdf":
        if part.data is None:
            return {"type": "input_file", "file_url": part.url}
        name = part.name or "document.pdf"
        return {"type": "input_file", "filename": name, "file_data": part.data_url}
    part.must_be_image("the Responses API")
    image: dict[str, Any] = {"type": "input_image", "image_url": part.data_url}
    if part.detail is not None:
        image["detail"] = part.detail
    return image


def _add(body: dict[str, Any], name: str, value: Any) -> None:
    if name in ("max_tokens", "max_completion_tokens"):
        body["max_output_tokens"] = value
    elif name in ("stop", "seed"):
        raise ModelProviderError(
            f"the Responses API has no {name} ({name}={value!r}): leave it out, or use a model "
            "that chat completions serve",
            {"provider": "openai-responses", "param": name},
        )
    elif name == "tools":
        body["tools"] = [_tool(tool) for tool in as_tools(value)]
    elif name == "tool_choice":
        body["tool_choice"] = _choice(as_choice(value))
    elif name == "response_format":
        body["text"] = {**body.get("text", {}), "format": _format(as_format(value))}
    elif name == "reasoning_effort":
        body["reasoning"] = {**body.get("reasoning", {}), "effort": value}
    elif name == "verbosity":
        body["text"] = {**body.get("text", {}), "verbosity": value}
    elif name in ("reasoning", "text"):
        body[name] = {**body.get(name, {}), **as_object(name, value)}
    else:
        body[name] = value


def _tool(tool: Tool | NativeTool) -> Mapping[str, Any]:
    if isinstance(tool, NativeTool):
        return tool.value
    made: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        made["description"] = tool.description
    return {**made, "parameters": tool.parameters, "strict": tool.strict}


def _choice(choice: Choice | Mapping[str, Any]) -> Any:
    if not isinstance(choice, Choice):
        return choice
    return choice.mode if choice.name is None else {"type": "function", "name": choice.name}


def _format(wanted: JsonFormat | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(wanted, JsonFormat):
        return wanted
    if wanted.schema is None:
        return {"type": "json_object"}
    made: dict[str, Any] = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        made["strict"] = wanted.strict
    if wanted.description is not None:
        made["description"] = wanted.description
    return made


# --- answers -----------------------------------------------------------------------------------


def _answer(body: Mapping[str, Any], output: list[Mapping[str, Any]]) -> Answer:
    text: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in entries(item.get("content")):
                if part.get("type") == "output_text":
                    text.append(string(part.get("text")))
                elif part.get("type") == "refusal":
                    refusals.append(string(part.get("refusal")))
        elif kind in ("function_call", "custom_tool_call"):
            arguments = json_or_text(item.get("arguments", item.get("input")))
            calls.append(ToolCall(string(item.get("call_id")), string(item.get("name")), arguments))
        elif kind == "reasoning":
            shown = [*entries(item.get("summary")), *entries(item.get("content"))]
            thoughts += [string(part.get("text")) for part in shown]
    answer = Answer(
        # `output_text` is a convenience of the SDKs that some servers send as well.
        "".join(text) or string(body.get("output_text")),
        _finish(body, bool(calls), bool(refusals)),
        calls,
        "".join(thoughts) or None,
        "".join(refusals) or None,
        string(body.get("model")),
        string(body.get("id")) or None,
        message={"role": "assistant", "content": output},
    )
    if usage := fields(body.get("usage")):
        _count(answer, usage, body)
    return answer


def _finish(body: Mapping[str, Any], calls: bool, refused: bool) -> FinishReason | None:
    status = body.get("status")
    if status in ("failed", "cancelled"):
        return "error"
    if status == "incomplete":
        reason = fields(body.get("incomplete_details")).get("reason")
        return _INCOMPLETE.get(str(reason), "other")
    if status == "completed":
        return "content_filter" if refused else "tool_calls" if calls else "stop"
    # In the background: what is there now is not the answer.
    return "other" if status in ("queued", "in_progress") and "output" in body else None


def _count(answer: Answer, usage: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    inputs = fields(usage.get("input_tokens_details"))
    outputs = fields(usage.get("output_tokens_details"))
    prompt, completion = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    answer.usage = UsageStats(
        prompt,
        completion,
        count(usage.get("total_tokens")) or prompt + completion,
        count(inputs.get("cached_tokens")),
        count(inputs.get("cache_write_tokens")),
        count(outputs.get("reasoning_tokens")),
    )
    tools = fields(body.get("tool_usage"))
    searches = count(fields(tools.get("web_search")).get("num_requests"))
    answer.billing = Billing(
        {"web_searches": searches} if searches else {},
        tier=string(body.get("service_tier")) or None,
        reported=dollars(usage.get("cost")),
    )
