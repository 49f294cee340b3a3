"""OpenAI's chat completions, the wire that most other servers have too; pure.

Source: the `openai` 3.54.0 package (`types/chat/`), and observed responses of compatible servers.
Their differences from OpenAI are seen in the answer itself, or declared in their `Server`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ember.conversation.dialects import for_openai
from ember.conversation.media import Media
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
from ember.pricing.snapshot import seller
from ember.providers.arguments import as_address
from ember.providers.call import (
    Call,
    Fold,
    ParsedAnswer,
    as_object,
    chunks_of,
    final_reason,
    mark_cut_off,
)
from ember.providers.json_values import (
    NOTHING,
    counts,
    dollars,
    dollars_of_ticks,
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
from ember.providers.servers import SERVERS, Server

__all__ = ["OpenAIChat"]

# OpenAI's reasoning models: their role of the system message is `developer`, and they refuse
# `max_tokens`.
_REASONING_MODELS = re.compile(r"(ft:)?(o[134]|gpt-5|gpt-6)([-.:]|$)")
_OPENAI_HOST = re.compile(r"https://([a-z]+\.)?api\.openai\.com(/|$)")
_TOOLS_NEED_RESPONSES = re.compile(r"(ft:)?gpt-(5\.6|6)([-.:]|$)")
_TOOLS_WITH_EFFORT_NEED_RESPONSES = re.compile(r"(ft:)?gpt-(5\.[456]|6)([-.:]|$)")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3"}
# Every choice has at least one of these.
_KEYS_OF_A_CHOICE = ("message", "delta", "text", "finish_reason")
# Fields other than content and tool_calls that some servers want back in the next turn.
_REASONING = ("reasoning_content", "reasoning_details")
_KEYS_TO_RETURN = ("tool_calls", *_REASONING)
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # Hugging Face
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "model_context_window_exceeded": "length",  # Z.ai
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",  # Google's, behind some gateways
    "sensitive": "content_filter",  # Z.ai
    "error": "error",
    "network_error": "error",  # Z.ai
}
# The parts of the prompt are counted in its details, else at the top level.
_USAGE = token_paths(
    prompt="prompt_tokens",
    completion="completion_tokens",
    total="total_tokens",
    cached="prompt_tokens_details.cached_tokens prompt_tokens_details.num_cached_tokens"
    " cached_tokens"  # Together, Hugging Face
    " num_cached_tokens"  # Mistral
    " prompt_cache_hit_tokens"  # DeepSeek
    " cache_read_input_tokens",  # Databricks, Vercel
    cache_write="prompt_tokens_details.cache_write_tokens"  # OpenAI, OpenRouter
    " prompt_tokens_details.cache_creation_input_tokens"
    " cache_write_tokens cache_creation_input_tokens",
    reasoning="completion_tokens_details.reasoning_tokens reasoning_tokens",
)
_TOKENS = token_paths(prompt="prompt_tokens", completion="completion_tokens")
_BILLED = token_paths(
    input_audio_tokens="prompt_tokens_details.audio_tokens",
    input_image_tokens="prompt_tokens_details.image_tokens",
    output_audio_tokens="completion_tokens_details.audio_tokens",
    output_image_tokens="completion_tokens_details.image_tokens",
    input_audio_seconds="prompt_audio_seconds",  # Mistral
    output_citation_tokens="citation_tokens",  # Perplexity
    web_searches="num_search_queries"  # Perplexity
    " server_tool_use.web_search_requests server_tool_use_details.web_search_requests",
)


class OpenAIChat(HTTPProvider):
    """Chat completions of OpenAI, or of a server that is compatible with it."""

    path = "/chat/completions"

    def for_tools(self, model: str, params: Mapping[str, Any]) -> HTTPProvider:
        """Return this provider, or the Responses API's for tools of OpenAI's reasoning models."""
        if self.server.name != "openai" or not params.get("tools"):
            return self
        effort, base = params.get("reasoning_effort"), as_address(params.get("base_url"))
        # Chat completions answer 400 ("Function tools with reasoning_effort are not supported"):
        # for gpt-5.4 and 5.5 if an effort is requested, for the newer models without it too.
        needed = _TOOLS_NEED_RESPONSES if effort is None else _TOOLS_WITH_EFFORT_NEED_RESPONSES
        at_openai = _OPENAI_HOST.match(base or self.base_url())
        if effort == "none" or not at_openai or not needed.match(model):
            return self
        from ember.providers.openai_responses import OpenAIResponses  # imported late

        return OpenAIResponses(SERVERS["openai-responses"], stores=False)

    def body(self, call: Call) -> dict[str, Any]:
        server = self.server
        own = server.base_url in ("", call.base_url) or _OPENAI_HOST.match(call.base_url)
        is_reasoning = server.name == "openai" and bool(_REASONING_MODELS.match(call.model))
        system = "developer" if own and is_reasoning else "system"
        # Another server behind `openai/` only gets what all servers understand.
        known = bool(own) or server.name != "openai"
        at = SERVERS.get(seller(server.name, call.base_url)[0], server)
        at = at._replace(returns_reasoning=server.returns_reasoning or not known)
        messages = _messages(call.messages, system, at)
        body: dict[str, Any] = {"model": call.model, "messages": messages}
        params = dict(call.params)
        if "max_tokens" in params and self.takes_max_tokens(call, known or is_reasoning):
            body["max_tokens"] = params.pop("max_tokens")
        if server.thinking_switch and params.get("reasoning_effort") == "none":
            del params["reasoning_effort"]
            params.setdefault("thinking", {"type": "disabled"})
        self.add(body, params)
        if call.stream:
            body["stream"] = True
            if server.stream_usage:
                options = as_object("stream_options", body.get("stream_options", {}))
                body["stream_options"] = {"include_usage": True, **options}
        return body

    def takes_max_tokens(self, call: Call, known: bool) -> bool:
        """Return whether to send `max_tokens` under this name, whatever the server's table says."""
        return not known

    def tool(self, tool: Tool) -> Mapping[str, Any]:
        strict = tool.strict
        parameters = for_openai(tool.parameters) if strict else tool.parameters
        if not self.server.strict_tools:
            # Mistral refuses `$schema` and `$id`, too.
            strict = None
            parameters = {k: v for k, v in tool.parameters.items() if k not in ("$schema", "$id")}
        about = without_none(description=tool.description, parameters=parameters, strict=strict)
        function = {"name": tool.name, **about, **tool.extra_for("chat")}
        return {"type": "function", "function": function}

    def choice(self, choice: ToolChoice) -> Any:
        if choice.name is not None:
            return {"type": "function", "function": {"name": choice.name}}
        return self.server.required_tool if choice.mode == "required" else choice.mode

    def format(self, json_format: JsonFormat) -> Mapping[str, Any]:
        if json_format.schema is None:
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": json_format.for_openai()}

    def read(self, body: Mapping[str, Any]) -> ParsedAnswer | None:
        choices = entries(body.get("choices"))
        usage = fields(body.get("usage")) or _groq_usage(body)
        if not choices and not (body.get("object") == "chat.completion" and usage):
            return None
        # With n > 1 the first choice is the answer; the others are in `raw`. Without any choice,
        # the answer is empty, but paid for.
        choice = choices[0] if len(choices) == 1 else min(choices, key=_number, default=NOTHING)
        if choices and choice.keys().isdisjoint(_KEYS_OF_A_CHOICE):
            return None
        message = fields(choice.get("message"))
        content = message.get("content", choice.get("text"))
        text, thoughts = (content, "") if isinstance(content, str) else _text_and_reasoning(content)
        to_return = {key: message[key] for key in _KEYS_TO_RETURN if message.get(key)}
        reasoning = string(message.get("reasoning")) or string(message.get("reasoning_content"))
        word = choice.get("finish_reason")
        # null, and Snowflake's "", mean that there is no finish reason.
        reason = _FINISH.get(word.lower(), "other") if isinstance(word, str) and word else None
        calls = _tool_calls(message, reason) if to_return or "function_call" in message else []
        refusal = string(message.get("refusal")) or None
        usage = usage or fields(choice.get("usage"))  # Moonshot
        return ParsedAnswer(
            text,
            final_reason(reason, calls, refusal) if calls or refusal else reason,
            calls,
            thoughts or reasoning or None,
            refusal,
            string(body.get("model")),
            string(body.get("id")) or None,
            {"role": "assistant", "content": message.get("content"), **to_return},
            *_usage_and_billing(usage, body.get("service_tier")),
        )

    def fold(self) -> Fold:
        return _ChatFold()


# --- requests ----------------------------------------------------------------------------------


def _messages(turns: Sequence[Message], system: str, server: Server) -> list[dict[str, Any]]:
    """Convert a conversation for a server; `system` is its role of system messages."""
    messages: list[dict[str, Any]] = []
    media: list[Mapping[str, Any]] = []  # of results, whose messages accept text only
    for turn in turns:
        if media and turn.role != "tool":
            messages.append({"role": "user", "content": media})
            media = []
        role = system if turn.role == "system" else turn.role
        messages += _turn(turn, role, server, media)
    return [*messages, {"role": "user", "content": media}] if media else messages


def _turn(
    message: Message, role: str, server: Server, media: list[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Convert a turn to OpenAI's format, in which each tool result is a separate message.

    Media in a result are added to `media`, to follow all results of the turn.
    """
    if role == "assistant" and not server.blank_answers and _is_blank(message.parts):
        return []
    if len(message.parts) == 1 and isinstance(message.parts[0], Text) and not message.extra:
        return [{"role": role, "content": message.parts[0].text}]  # fast path
    parts = message.parts_for("chat")
    results = [part for part in parts if isinstance(part, ToolResult)]
    calls = [_call(part, server) for part in parts if _is_call(part)]
    rest = [part for part in parts if not isinstance(part, ToolResult) and not _is_call(part)]
    messages: list[dict[str, Any]] = []
    for result in results:
        call_id = call_id_for(result.id, server.call_ids)
        content = _result(result.with_error_in_text(), media)
        messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
    reasoning_too = server.returns_reasoning
    extra = {k: v for k, v in message.extra.items() if reasoning_too or k not in _REASONING}
    if rest or calls or (extra and not results):
        if media:
            messages.append({"role": "user", "content": [*media]})
            media.clear()
        called = {"tool_calls": calls} if calls else {}
        messages.append({"role": role, "content": _content(rest), **extra, **called})
    return messages


def _result(result: ToolResult, media: list[Mapping[str, Any]]) -> Any:
    if parts := result.parts_with_media("chat"):
        bodies = [_part_body(part) for part in parts]
        media += [body for body in bodies if body.get("type") != "text"]
        texts = [string(body.get("text")) for body in bodies if body.get("type") == "text"]
        return "\n".join(texts) or "The result is in the next message."
    texts_only = result.text_parts
    are_plain = texts_only and all(part["type"] == "text" for part in texts_only)
    return texts_only if are_plain else result.text


def _is_blank(parts: Sequence[Part]) -> bool:
    return all(isinstance(part, Text) and not part.text.strip() for part in parts)


def _is_call(part: Part) -> bool:
    if isinstance(part, NativePart):
        return part.wire == "chat" and not part.value.keys().isdisjoint(("function", "custom"))
    return isinstance(part, ToolCall)


def _call(part: Part, server: Server) -> Mapping[str, Any]:
    if isinstance(part, NativePart):
        extra_too = server.returns_reasoning
        call = {k: v for k, v in part.value.items() if extra_too or k != "extra_content"}
        if "id" in call:
            call["id"] = call_id_for(string(call["id"]), server.call_ids)
        return call
    assert isinstance(part, ToolCall)
    function = {"name": part.name, "arguments": arguments_text(part.arguments)}
    call_id = call_id_for(part.id or part.name, server.call_ids)
    return {"id": call_id, "type": "function", "function": function}


def _content(parts: Sequence[Part]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part_body(part) for part in parts] or None


def _part_body(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, NativePart):
        return part.value
    assert isinstance(part, Media)
    if part.mime_type.startswith("audio/"):
        if part.data is None or part.mime_type not in _AUDIO_FORMATS:
            raise ModelProviderError(
                f"chat completions take sound as wav or mp3 bytes, not {part.mime_type} "
                f"{part.url or ''}"
            )
        sound = {"data": part.base64, "format": _AUDIO_FORMATS[part.mime_type]}
        return {"type": "input_audio", "input_audio": sound}
    if part.mime_type == "application/pdf":
        if part.data is None:
            raise ModelProviderError(
                f"chat completions take a PDF's bytes, not its URL ({part.url}): pass the bytes "
                "or a Path, or use the prefix openai-responses/"
            )
        file = {"filename": part.name or "document.pdf", "file_data": part.data_url}
        return {"type": "file", "file": file}
    part.check_is_image("chat completions")
    image = without_none(url=part.data_url, detail=part.detail)
    return {"type": "image_url", "image_url": image}


# --- answers -----------------------------------------------------------------------------------


class _ChatFold(Fold):
    """Folds the chunks of one streamed chat completion."""

    ends_with_done = True

    def __init__(self) -> None:
        super().__init__()
        self._about: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    def add(self, name: str, event: Mapping[str, Any]) -> Sequence[Chunk]:
        about = self._about
        if event.get("id") != about.get("id") or event.get("model") != about.get("model"):
            about |= {key: event[key] for key in ("id", "model") if string(event.get(key))}
        if event.get("usage") or "x_groq" in event:
            self._add_usage(fields(event.get("usage")) or _groq_usage(event), event)
            if stopped := string(fields(event.get("x_groq")).get("error")):
                self.failure = {"error": {"message": stopped}}
        if "choices" not in event:
            return ()
        self.started = True
        chunks: list[Chunk] = []
        for part in entries(event["choices"]):
            if (choice := self._choices.get(number := _number(part))) is None:
                choice = self._choices[number] = _Choice()
            text, reasoning, calls = choice.add(part)
            if usage := part.get("usage"):  # Moonshot
                self._add_usage(fields(usage), event)
            if number == 0:
                chunks += chunks_of(event, text, reasoning, calls)
                self.complete = self.complete or choice.ended
        return chunks

    def _add_usage(self, usage: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        about = self._about
        # The last usage counts, but one full of zeros does not replace an earlier one.
        if usage and ("usage" not in about or counts(usage, _TOKENS)):
            about["usage"], about["service_tier"] = usage, event.get("service_tier")

    def body(self) -> Mapping[str, Any]:
        first = self._choices[min(self._choices)] if self._choices else _Choice()
        return {**self._about, "choices": [first.body()]}


class _Choice:
    """One choice of a stream, as received so far."""

    def __init__(self) -> None:
        self.ended = False
        self._finish: object = None
        self._text: list[str] = []
        self._texts: dict[str, list[str]] = {}
        self._details: list[Any] = []
        self._calls: list[dict[str, Any]] = []
        self._by_index: dict[int, dict[str, Any]] = {}

    def add(self, part: Mapping[str, Any]) -> tuple[str, str, Sequence[ToolCall]]:
        """Add a chunk's part of this choice; return its text, reasoning and pieces of calls."""
        delta = fields(part.get("delta"))
        if len(delta) == 1 and not part.get("finish_reason"):
            # Fast path: nearly all chunks only add text.
            text = delta.get("content")
            if isinstance(text, str):
                self._text.append(text)
                return text, "", ()
        if string(part.get("finish_reason")):
            self.ended, self._finish = True, part["finish_reason"]
        if "delta" not in part and "message" in part:
            # A server that does not stream answers in one piece.
            delta, self.ended = fields(part["message"]), True
        text, thoughts = _text_and_reasoning(delta.get("content", part.get("text")))
        reasoning_text = string(delta.get("reasoning_content"))
        reasoning = thoughts or reasoning_text or string(delta.get("reasoning"))
        self._text.append(text)
        self._append("reasoning", reasoning)
        self._append("refusal", string(delta.get("refusal")))
        self._append("reasoning_content", reasoning_text)
        self._details += items(delta.get("reasoning_details"))
        calls = entries(delta.get("tool_calls"))
        if legacy := fields(delta.get("function_call")):
            calls = [*calls, {"index": 0, "function": legacy}]
        return text, reasoning, [self._add_call(call) for call in calls]

    def _append(self, key: str, text: str) -> None:
        if text:
            self._texts.setdefault(key, []).append(text)

    def _add_call(self, part: Mapping[str, Any]) -> ToolCall:
        """Add a piece of a call; return it with the id and name of the call."""
        function = _function(part)
        call_id, name = string(part.get("id")), string(function.get("name"))
        arguments = arguments_text(function.get("arguments", function.get("input")))
        number = index(part.get("index"))
        if number is not None:
            call = self._by_index.get(number)
            # Google's compatible endpoint gives all calls the index 0: another id begins another
            # call; without ids, a name and arguments after those of a complete call do.
            new = call is None or bool(name and call_id and call["id"] and call_id != call["id"])
            if call is not None and name and arguments and not call_id and not call["id"]:
                so_far = "".join(call["arguments"])
                new = bool(so_far) and isinstance(parsed_arguments(so_far), dict)
        else:
            # Mistral sends no index. The pieces of a call repeat its id, or have no id and no name.
            call = self._calls[-1] if self._calls else None
            new = call is None or (
                call_id != call["id"] if call_id else bool(name and call["name"])
            )
            number = len(self._calls)
        if new or call is None:
            call = dict[str, Any](id="", name="", arguments=[], custom=False, number=number)
            self._by_index[number] = call
            self._calls.append(call)
        call["id"], call["name"] = call_id or call["id"], name or call["name"]
        call["custom"] = call["custom"] or part.get("type") == "custom"
        call["extra"] = fields(part.get("extra_content")) or call.get("extra")
        call["arguments"].append(arguments)
        return ToolCall(call["id"], call["name"], arguments)

    def body(self) -> Mapping[str, Any]:
        """Return the choice as it would be in a whole answer."""
        message: dict[str, Any] = {"content": "".join(self._text) or None}
        message |= {key: "".join(pieces) for key, pieces in self._texts.items()}
        message["reasoning_details"] = _join_details(self._details)
        calls = sorted(self._calls, key=lambda call: cast("int", call["number"]))
        calls = [call for call in calls if call["name"] or any(call["arguments"])]
        message["tool_calls"] = [_call_to_return(call) for call in calls]
        return {"message": message, "finish_reason": self._finish}


def _join_details(details: Sequence[Any]) -> list[Any]:
    """Join OpenRouter's pieces of reasoning that have the same type and index."""
    merged: dict[object, Any] = {}
    for at, detail in enumerate(details):
        piece = fields(detail)
        named = (piece.get("type"), piece.get("index"))
        key = named if isinstance(named[0], str) and isinstance(named[1], int) else at
        if key not in merged:
            merged[key] = detail
            continue
        so_far = merged[key]
        grown = {k: string(so_far.get(k)) + string(piece.get(k)) for k in ("text", "summary")}
        new = {k: v for k, v in piece.items() if v is not None}
        merged[key] = {**so_far, **new, **{k: text for k, text in grown.items() if text}}
    return [*merged.values()]


def _call_to_return(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call as it is sent back with the conversation."""
    kind, key = ("custom", "input") if call["custom"] else ("function", "arguments")
    function = {"name": call["name"], key: "".join(call["arguments"])}
    # Google's compatible endpoint sends the thought signature in `extra_content`.
    extra = without_none(extra_content=call["extra"] or None)
    return {"id": call["id"], "type": kind, kind: function, **extra}


def _number(choice: Mapping[str, Any]) -> int:
    # An index below 0 is invalid: the choice belongs to the only answer.
    number = choice.get("index")
    return 0 if number == 0 else max(0, index(number) or 0)


def _text_and_reasoning(content: object) -> tuple[str, str]:
    """Return text and reasoning of a `content`, which may be a list of parts (Mistral)."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, Mapping):
        # Cloudflare sends structured output as an object.
        return arguments_text(cast("object", content)), ""
    text: list[str] = []
    thoughts: list[str] = []
    for part in items(content):
        if isinstance(part, str):
            text.append(part)
            continue
        part_fields = fields(part)
        if part_fields.get("type") in ("thinking", "reasoning"):
            thoughts += _text_and_reasoning(part_fields.get("thinking", part_fields.get("text")))
        else:
            text.append(string(part_fields.get("text")))
    return "".join(text), "".join(thoughts)


def _tool_calls(message: Mapping[str, Any], reason: FinishReason | None) -> list[ToolCall]:
    calls = entries(message.get("tool_calls"))
    if not calls and (legacy := fields(message.get("function_call"))):
        calls = [{"function": legacy}]
    tool_calls: list[ToolCall] = []
    arguments: object = None
    for call in calls:
        function = _function(call)
        name = string(function.get("name"))
        arguments = function.get("arguments", function.get("input"))
        if name or arguments:  # Snowflake sends an empty function_call
            tool_calls.append(ToolCall(string(call.get("id")), name, parsed_arguments(arguments)))
    return mark_cut_off(tool_calls, reason, arguments)


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the function of a call, which has another key for custom tools."""
    kinds = ("custom", "function") if call.get("type") == "custom" else ("function", "custom")
    return fields(call.get(kinds[0])) or fields(call.get(kinds[1])) or call


def _groq_usage(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the usage of Groq's streams, which is under `x_groq`."""
    return fields(fields(body.get("x_groq")).get("usage"))


def _usage_and_billing(
    usage: Mapping[str, Any], tier: object
) -> tuple[UsageStats | None, Billing | None]:
    """Return the answer's usage in Ember's form, and the other data for its price."""
    if not usage:
        return None, None
    found = counts(usage, _USAGE)
    if reasoning := found.get("reasoning"):
        parts = found.get("prompt", 0), found.get("completion", 0), reasoning
        if found.get("total") == sum(parts):
            found["completion"] = parts[1] + reasoning  # xAI does not include it
    cost = usage.get("cost")
    reported = dollars(fields(cost).get("total_cost", cost))  # Perplexity itemizes it
    if reported is None:
        reported = dollars_of_ticks(usage)
    if reported is not None and usage.get("is_byok") is True:
        # With the caller's own upstream key, the upstream bills in addition to OpenRouter.
        upstream = fields(usage.get("cost_details")).get("upstream_inference_cost")
        reported += dollars(upstream) or 0
    return usage_stats(found), Billing(counts(usage, _BILLED), string(tier) or None, reported)
