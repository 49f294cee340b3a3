"""OpenAI's chat completions, the wire that most other servers speak too; pure.

Source: the `openai` 3.54.0 package (`types/chat/`), and what its compatible servers were seen to
send. Where they differ from OpenAI, the difference is in the answer itself or in their `Server`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ember.conversation.media import Media
from ember.conversation.messages import Message
from ember.conversation.parts import NativePart, Part, Text, ToolResult
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
from ember.models.schemas import ToolCall
from ember.providers.arguments import as_address, as_object
from ember.providers.openai_answers import (
    THOUGHTS,
    ChatStreamReader,
    arguments_text,
    read_chat,
)
from ember.providers.servers import SERVERS
from ember.providers.wire import Answer, Call, Wire

__all__ = ["OpenAIChat"]

# OpenAI's models that think: `developer` is their word for the system message, and they refuse
# `max_tokens`.
_THINKS = re.compile(r"(ft:)?(o[134]|gpt-5|gpt-6)([-.:]|$)")
_OPENAI_HOST = re.compile(r"https://([a-z]+\.)?api\.openai\.com(/|$)")
_TOOLS_ELSEWHERE = re.compile(r"(ft:)?gpt-(5\.6|6)([-.:]|$)")
_TOOLS_OR_EFFORT = re.compile(r"(ft:)?gpt-(5\.[456]|6)([-.:]|$)")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3"}


class OpenAIChat(Wire):
    """Chat completions, spoken to OpenAI or to a server that is compatible with it."""

    def for_call(self, model: str, params: Mapping[str, Any]) -> Wire:
        """See `Wire.for_call`: OpenAI's models that reason call tools on the Responses API only."""
        if self.server.name != "openai" or not params.get("tools"):
            return self
        effort, base = params.get("reasoning_effort"), as_address(params.get("base_url"))
        # Chat completions answer 400 ("Function tools with reasoning_effort are not supported"):
        # for the older two where an effort is asked for, for the newer ones without it too.
        needed = _TOOLS_ELSEWHERE if effort is None else _TOOLS_OR_EFFORT
        at_openai = _OPENAI_HOST.match(base or self.base_url())
        if effort == "none" or not at_openai or not needed.match(model):
            return self
        from ember.providers.openai_responses import OpenAIResponses  # late: for these calls only

        return OpenAIResponses(SERVERS["openai-responses"])

    def url(self, call: Call) -> str:
        """See `Wire.url`."""
        base, mark, query = call.base_url.partition("?")
        return f"{base}/chat/completions{mark}{query}"

    def body(self, call: Call) -> dict[str, Any]:
        """See `Wire.body`."""
        own = self.server.base_url in ("", call.base_url) or _OPENAI_HOST.match(call.base_url)
        thinks = self.server.name == "openai" and bool(_THINKS.match(call.model))
        system = "developer" if own and thinks else "system"
        # Another server behind `openai/` is asked in the words that all of them understand.
        known = bool(own) or self.server.name != "openai"
        thoughts = self.server.thoughts_back or not known
        body: dict[str, Any] = {
            "model": call.model,
            "messages": [
                made for turn in call.messages for made in _messages(turn, system, thoughts)
            ],
        }
        for name, value in call.params.items():
            if name == "max_tokens":
                name = self.max_tokens(call) if known or thinks else name
            self._add(body, name, value)
        if call.stream:
            body["stream"] = True
            if self.server.stream_usage:
                body.setdefault("stream_options", {"include_usage": True})
        return body

    def max_tokens(self, call: Call) -> str:
        """The field that bounds the output."""
        return self.server.max_tokens

    def _add(self, body: dict[str, Any], name: str, value: Any) -> None:
        if name == "seed":
            body[self.server.seed] = value
        elif name == "tools":
            body["tools"] = [_tool(tool, self.server.strict_tools) for tool in as_tools(value)]
        elif name == "reasoning_effort" and value == "none" and self.server.thinking_switch:
            body.setdefault("thinking", {"type": "disabled"})
        elif name == "reasoning_effort" and self.server.nested_effort:
            body["reasoning"] = {**body.get("reasoning", {}), "effort": value}
        elif name == "reasoning" and self.server.nested_effort:
            body[name] = {**body.get(name, {}), **as_object(name, value)}
        elif name == "tool_choice":
            body["tool_choice"] = self._choice(as_choice(value))
        elif name == "response_format":
            body["response_format"] = _format(as_format(value))
        else:
            body[name] = value

    def _choice(self, choice: Choice | Mapping[str, Any]) -> Any:
        if not isinstance(choice, Choice):
            return choice
        if choice.name is not None:
            return {"type": "function", "function": {"name": choice.name}}
        return self.server.required_tool if choice.mode == "required" else choice.mode

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """See `Wire.read`."""
        return read_chat(body)

    def stream_reader(self) -> ChatStreamReader:
        """See `Wire.stream_reader`."""
        return ChatStreamReader()


# --- requests ----------------------------------------------------------------------------------


def _messages(message: Message, system: str, thoughts: bool) -> list[dict[str, Any]]:
    """A message in OpenAI's words; results of tools are messages of their own there."""
    role = system if message.role == "system" else message.role
    parts = message.spoken("chat")
    if len(parts) == 1 and isinstance(parts[0], Text) and not message.extra:
        return [{"role": role, "content": parts[0].text}]  # as nearly all are
    results = [part for part in parts if isinstance(part, ToolResult)]
    calls = [_call(part, thoughts) for part in parts if _is_call(part)]
    rest = [part for part in parts if not isinstance(part, ToolResult) and not _is_call(part)]
    out: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": r.id, "content": _result(r)} for r in results
    ]
    extra = {k: v for k, v in message.extra.items() if thoughts or k not in THOUGHTS}
    if not rest and not calls and (results or not extra):
        return out
    made: dict[str, Any] = {"role": role, "content": _parts(rest), **extra}
    if calls:
        made["tool_calls"] = calls
    return [*out, made]


def _result(result: ToolResult) -> Any:
    parts = result.text_parts
    return parts if parts and all(part["type"] == "text" for part in parts) else result.text


def _is_call(part: Part) -> bool:
    if isinstance(part, NativePart):
        return part.wire == "chat" and not part.value.keys().isdisjoint(("function", "custom"))
    return isinstance(part, ToolCall)


def _call(part: Part, thoughts: bool) -> Mapping[str, Any]:
    if isinstance(part, NativePart):
        return {k: v for k, v in part.value.items() if thoughts or k != "extra_content"}
    assert isinstance(part, ToolCall)
    function = {"name": part.name, "arguments": arguments_text(part.arguments)}
    return {"id": part.id, "type": "function", "function": function}


def _parts(parts: Sequence[Part]) -> Any:
    if not parts:
        return None
    if all(isinstance(part, Text) for part in parts):
        texts = [part.text for part in parts if isinstance(part, Text)]
        if len(texts) == 1:
            return texts[0]
        return [{"type": "text", "text": text} for text in texts]
    return [_part_body(part) for part in parts]


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
    part.must_be_image("chat completions")
    image = {"url": part.data_url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _tool(tool: Tool | NativeTool, strict: bool) -> Mapping[str, Any]:
    if isinstance(tool, NativeTool):
        return tool.value
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    if not strict:
        # Mistral refuses what a schema says of itself, too.
        about = ("$schema", "$id")
        function["parameters"] = {k: v for k, v in tool.parameters.items() if k not in about}
    elif tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _format(wanted: JsonFormat | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(wanted, JsonFormat):
        return wanted
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    if wanted.description is not None:
        schema["description"] = wanted.description
    return {"type": "json_schema", "json_schema": schema}
