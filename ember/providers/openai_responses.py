"""OpenAI's Responses API; pure.

Source: the `openai` 3.54.0 package (`types/responses/`), read on 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ember.conversation.dialects import for_openai
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
from ember.conversation.tools import JsonFormat, Tool, ToolChoice
from ember.exceptions import ModelProviderError
from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing
from ember.providers.call import Call, Fold, ParsedAnswer, chunks_of, final_reason, mark_cut_off
from ember.providers.json_values import (
    count,
    counts,
    dollars,
    dollars_of_ticks,
    entries,
    fields,
    string,
    token_paths,
    usage_stats,
    without_none,
)
from ember.providers.provider import HTTPProvider
from ember.providers.servers import Server

__all__ = ["OpenAIResponses"]

_INCOMPLETE: Mapping[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_USAGE = token_paths(
    prompt="input_tokens",
    completion="output_tokens",
    total="total_tokens",
    cached="input_tokens_details.cached_tokens",
    cache_write="input_tokens_details.cache_write_tokens",
    reasoning="output_tokens_details.reasoning_tokens",
)
# The `include` for the reasoning of a response that is not stored, to be sent back; the parameters
# that may request storage; and the models without reasoning, which refuse the `include`.
_ENCRYPTED = "reasoning.encrypted_content"
_STORAGE_PARAMETERS = frozenset({"store", "previous_response_id", "conversation", "background"})
_MODELS_WITHOUT_REASONING = re.compile(r"(ft:)?(gpt-[34]|chatgpt)|.*-chat\b")
_CALL_ID = ".{1,64}"
_USE_CHAT = "leave it out, or use a model that chat completions serve"


class OpenAIResponses(HTTPProvider):
    """OpenAI's Responses API."""

    path = "/responses"
    paths = {  # noqa: RUF012 - a table, never changed
        "max_tokens": "max_output_tokens",
        "max_completion_tokens": "max_output_tokens",
        "response_format": "text.format",
        "verbosity": "text.verbosity",
        "reasoning_effort": "reasoning.effort",
    }
    merged = ("reasoning", "text")
    unsupported = {"stop": _USE_CHAT, "seed": _USE_CHAT}  # noqa: RUF012 - a table, never changed

    def __init__(self, server: Server, stores: bool = True) -> None:
        super().__init__(server)
        self._stores = stores  # False if Ember, not the caller, chose this API

    def body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {"model": call.model}
        turns = list(call.messages)
        if turns[0].role == "system" and len(turns) > 1:
            body["instructions"] = turns.pop(0).text
        params = dict(call.params)
        if not self._stores and params.keys().isdisjoint(_STORAGE_PARAMETERS):
            params["store"] = False
        stored = params.get("store") is not False
        custom = {call_id for message in turns for call_id in _custom_calls(message)}
        items = [item for message in turns for item in _items(message, custom, stored)]
        body["input"] = items
        if len(items) == 1 and items[0].get("role") == "user":
            content = items[0].get("content")
            body["input"] = content if isinstance(content, str) else items
        self.add(body, params)
        if not stored and not _MODELS_WITHOUT_REASONING.match(call.model):
            included = params.get("include") or ()
            body["include"] = [*included, *({_ENCRYPTED} - {*included})]
        if call.stream:
            body["stream"] = True
        return body

    def tool(self, tool: Tool) -> Mapping[str, Any]:
        parameters = for_openai(tool.parameters) if tool.strict else tool.parameters
        about = without_none(description=tool.description, parameters=parameters)
        extra = tool.extra_for("openai-responses")
        return {"type": "function", "name": tool.name, **about, "strict": tool.strict, **extra}

    def choice(self, choice: ToolChoice) -> Any:
        return choice.mode if choice.name is None else {"type": "function", "name": choice.name}

    def format(self, json_format: JsonFormat) -> Mapping[str, Any]:
        if json_format.schema is None:
            return {"type": "json_object"}
        return {"type": "json_schema", **json_format.for_openai()}

    def read(self, body: Mapping[str, Any]) -> ParsedAnswer | None:
        if body.get("object") != "response" and not isinstance(body.get("output"), list):
            return None
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        arguments: object = None
        output = entries(body.get("output"))
        for item in output:
            # The arguments of a call are complete if another item follows.
            arguments = kind = item.get("type")
            if kind in ("function_call", "custom_tool_call"):
                arguments = item.get("arguments", item.get("input"))
                call_id, name = string(item.get("call_id")), string(item.get("name"))
                calls.append(ToolCall(call_id, name, parsed_arguments(arguments)))
            elif kind == "reasoning":
                reasoning_parts = [*entries(item.get("summary")), *entries(item.get("content"))]
                thoughts += [string(part.get("text")) for part in reasoning_parts]
        # Added to the items by the SDKs, some servers, and `_ResponseFold` (the streamed deltas).
        streamed_text = string(body.get("output_text"))
        answer_text = _text(output, "output_text", "text")
        refusal = _text(output, "refusal", "refusal") or string(body.get("refusal")) or None
        reason = final_reason(_finish_reason(body), calls, refusal)
        return ParsedAnswer(
            answer_text if answer_text.startswith(streamed_text) else streamed_text,
            reason,
            mark_cut_off(calls, reason, arguments),
            "".join(thoughts) or string(body.get("reasoning_text")) or None,
            refusal,
            string(body.get("model")),
            string(body.get("id")) or None,
            {"role": "assistant", "content": output},
            *_usage_and_billing(fields(body.get("usage")), body),
        )

    def fold(self) -> Fold:
        return _ResponseFold()


# --- requests ----------------------------------------------------------------------------------


def _custom_calls(message: Message) -> list[str]:
    """Return the ids of calls whose input is free text: their results have their own type."""
    values = [part.value for part in message.parts if isinstance(part, NativePart)]
    return [string(v.get("call_id")) for v in values if v.get("type") == "custom_tool_call"]


def _items(message: Message, custom: Collection[str], stored: bool) -> list[Mapping[str, Any]]:
    """Convert a message to this API's items; tool calls and results are separate items.

    `custom` has the ids of calls whose input is free text; `stored` is whether items may refer to
    those of stored responses.
    """
    items: list[Mapping[str, Any]] = []
    parts: list[Mapping[str, Any]] = []
    for part in message.parts_for("openai-responses"):
        if isinstance(part, ToolCall):
            items.append(
                {
                    "type": "function_call",
                    "call_id": call_id_for(part.id or part.name, _CALL_ID),
                    "name": part.name,
                    "arguments": arguments_text(part.arguments),
                }
            )
        elif isinstance(part, ToolResult):
            kind = "custom_tool_call_output" if part.id in custom else "function_call_output"
            part = part.with_error_in_text()
            media = [_part(each, "user") for each in part.parts_with_media("openai-responses")]
            output = part.content if _is_in_this_format(part.content) else media or part.text
            call_id = call_id_for(part.id, _CALL_ID)
            items.append({"type": kind, "call_id": call_id, "output": output})
        elif isinstance(part, NativePart) and part.wire and not _is_content(part.value):
            # An item of an earlier answer.
            items += [part.value] if stored else _stateless(part.value)
        elif part != Text("") or len(message.parts) == 1:
            parts.append(_part(part, message.role))
    if parts:
        role = "developer" if message.role == "system" else message.role
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        # An assistant's texts are joined: only items of answers, which have ids, have parts.
        is_text = len(texts) == len(parts) and (len(parts) == 1 or role == "assistant")
        content = "".join(texts) if is_text else parts
        phase = message.extra.get("phase")  # commentary or the answer: it must be sent back
        message_item = without_none(role=role, content=content, phase=phase)
        # An assistant's text precedes its calls; a user's text follows the results in its message.
        items.insert(0 if role == "assistant" else len(items), message_item)
    return items


def _stateless(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the item as valid without stored responses, or nothing if it needs one."""
    kind = item.get("type")
    if kind == "item_reference" or (kind == "reasoning" and not item.get("encrypted_content")):
        return []
    refers = kind in ("message", "function_call", "custom_tool_call")
    return [{k: v for k, v in item.items() if k != "id"} if refers else item]


def _is_content(part: Mapping[str, Any]) -> bool:
    """Return whether a part in this API's format is content of a message and not an item."""
    return string(part.get("type")).startswith(("input_", "output_"))


def _is_in_this_format(content: object) -> bool:
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
    part.check_is_image("the Responses API")
    return without_none(type="input_image", image_url=part.data_url, detail=part.detail)


# --- answers -----------------------------------------------------------------------------------

# The text of the answer that the deltas of each event extend.
_TEXT_DELTAS = {
    "response.output_text.delta": "output_text",
    "response.reasoning_summary_text.delta": "reasoning_text",
    "response.reasoning_text.delta": "reasoning_text",
    "response.refusal.delta": "refusal",
}


_ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")


class _ResponseFold(Fold):
    """Folds the events of one streamed response."""

    def __init__(self) -> None:
        super().__init__()
        self._response: Mapping[str, Any] = {}
        self._items: list[Mapping[str, Any]] = []
        self._texts: dict[str, list[str]] = {key: [] for key in _TEXT_DELTAS.values()}
        self._calls: dict[str, tuple[str, str]] = {}  # their ids and names, by item id

    def add(self, name: str, event: Mapping[str, Any]) -> Sequence[Chunk]:
        kind = string(event.get("type")) or name
        response = event if event.get("object") == "response" else fields(event.get("response"))
        ours = kind.startswith(("response.", "keepalive"))
        self.started = self.started or ours or bool(response)
        text = reasoning = ""
        calls: list[ToolCall] = []
        if key := _TEXT_DELTAS.get(kind):
            delta = string(event.get("delta"))
            self._texts[key].append(delta)
            text = delta if key == "output_text" else ""
            reasoning = delta if key == "reasoning_text" else ""
        elif kind in _ARGUMENTS:
            id_and_name = self._calls.get(string(event.get("item_id")), ("", ""))
            calls = [ToolCall(*id_and_name, string(event.get("delta")))]
        elif kind == "response.output_item.added":
            item = fields(event.get("item"))
            if item.get("type") in ("function_call", "custom_tool_call"):
                id_and_name = string(item.get("call_id")), string(item.get("name"))
                self._calls[string(item.get("id"))] = id_and_name
                calls = [ToolCall(*id_and_name, "")]
        elif kind == "response.output_item.done":
            self._items += entries(event.get("item"))
        elif response:
            self._response = response
            # A server that does not stream answers in one piece.
            self.complete = self.complete or kind in _TERMINAL or response is event
            if kind == "response.failed" or response.get("status") == "failed":
                error = fields(response.get("error"))
                self.failure = {"error": error or {"message": "the response failed"}}
            text = self._unstreamed_text() if self.complete else ""
        return chunks_of(event, text, reasoning, calls)

    def _unstreamed_text(self) -> str:
        """Return the text that is only in the whole response, not in any delta."""
        whole = _text(self._output(), "output_text", "text")
        whole = whole or string(self._response.get("output_text"))
        streamed = "".join(self._texts["output_text"])
        rest = whole[len(streamed) :] if whole.startswith(streamed) else ""
        self._texts["output_text"].append(rest)
        return rest

    def _output(self) -> list[Mapping[str, Any]]:
        return entries(self._response.get("output")) or self._items

    def body(self) -> Mapping[str, Any]:
        joined = {key: "".join(pieces) for key, pieces in self._texts.items()}
        output = self._output()
        if joined["output_text"] and not any(item.get("type") == "message" for item in output):
            # The stream was cut off, or the server's last event has no output.
            parts = [{"type": "output_text", "text": joined["output_text"]}]
            output = [*output, {"type": "message", "role": "assistant", "content": parts}]
        return {**self._response, "output": output, **joined}


def _text(output: list[Mapping[str, Any]], kind: str, key: str) -> str:
    """Return the text of all parts of this type in the messages of an output."""
    messages = [item for item in output if item.get("type") == "message"]
    parts = [part for item in messages for part in entries(item.get("content"))]
    return "".join([string(part.get(key)) for part in parts if part.get("type") == kind])


def _finish_reason(body: Mapping[str, Any]) -> FinishReason | None:
    status = body.get("status")
    if status in ("failed", "cancelled"):
        return "error"
    if status == "incomplete":
        reason = fields(body.get("incomplete_details")).get("reason")
        return _INCOMPLETE.get(str(reason), "other")
    if status == "completed":
        return "stop"
    # A background response: its output so far is not the answer.
    return "other" if status in ("queued", "in_progress") and "output" in body else None


def _usage_and_billing(
    usage: Mapping[str, Any], body: Mapping[str, Any]
) -> tuple[UsageStats | None, Billing | None]:
    """Return the answer's usage in Ember's form, and the other data for its price."""
    if not usage:
        return None, None
    reported = dollars(usage.get("cost"))
    return usage_stats(counts(usage, _USAGE)), Billing(
        _searches(body),
        string(body.get("service_tier")) or None,
        dollars_of_ticks(usage) if reported is None else reported,
    )


def _searches(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of searches, which are billed, by genai-prices' names."""
    output = entries(body.get("output"))
    web = [item for item in output if item.get("type") == "web_search_call"]
    # Opening a page is not a search; older servers, which send no action, only had searches.
    found = sum(fields(item.get("action")).get("type", "search") == "search" for item in web)
    counted = fields(body.get("tool_usage")).get("web_search")  # may be left out
    searches = {
        "web_searches": count(fields(counted).get("num_requests")) if counted else found,
        "storage_searches": sum(item.get("type") == "file_search_call" for item in output),
    }
    return {name: number for name, number in searches.items() if number}
