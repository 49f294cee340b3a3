"""What a caller may pass as a prompt, in one form that every wire can translate; pure.

A prompt is a string, a list of parts (text and images), or a list of messages. Messages may be
written in Ember's own words, or in those of any provider: an answer of one of them can be sent to
another.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from ember.exceptions import ModelProviderError
from ember.models.media import Media, from_bytes, from_image, from_path, from_url, is_image
from ember.models.schemas import ToolCall

__all__ = ["Media", "Message", "NativePart", "Part", "Text", "ToolResult", "as_messages"]

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


_NOTHING: Mapping[str, Any] = {}


class Text(NamedTuple):
    """A piece of text."""

    text: str


class ToolResult(NamedTuple):
    """What a tool that the model asked for gave back."""

    id: str
    name: str
    content: Any
    is_error: bool = False

    @property
    def text(self) -> str:
        """The content as text: JSON where it is not text already."""
        if isinstance(self.content, str):
            return self.content
        try:
            return json.dumps(self.content, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ModelProviderError(
                f"the result of the tool call {self.id!r} cannot be sent as JSON: {error}"
            ) from error


class NativePart(NamedTuple):
    """A part in one provider's own words, for that provider as it is.

    Args:
        value: The part.
        wire: The wire whose words these are; "" where only the caller knows.
        meaning: What it says to any other wire: nothing, for reasoning.
    """

    value: Mapping[str, Any]
    wire: str = ""
    meaning: Sequence[Part] = ()


Part: TypeAlias = "Text | Media | ToolCall | ToolResult | NativePart"


class Message(NamedTuple):
    """One turn of a conversation.

    Args:
        role: Who speaks.
        parts: What is said, in order.
        extra: The message's other keys, for the provider as they are.
    """

    role: Role
    parts: Sequence[Part]
    extra: Mapping[str, Any] = _NOTHING

    @property
    def text(self) -> str:
        """The text of all text parts."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    def spoken(self, wire: str) -> list[Part]:
        """The parts for one wire: what is in another's words is replaced by what it means."""
        parts: list[Part] = []
        for part in self.parts:
            foreign = isinstance(part, NativePart) and part.wire not in ("", wire)
            parts += part.meaning if isinstance(part, NativePart) and foreign else [part]
        return parts


def as_messages(prompt: object) -> list[Message]:
    """The messages that a prompt means.

    Raises:
        ModelProviderError: The prompt is empty, or is nothing that can be sent.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ModelProviderError(f"the prompt is empty ({prompt!r}): pass the text to answer")
        return [Message("user", (Text(prompt),))]
    if _is_one_part(prompt):
        prompt = [prompt]
    if not isinstance(prompt, Sequence):
        raise ModelProviderError(
            f"a prompt cannot be {_shown(prompt)}: pass a string, a list of parts "
            "(text and images) or a list of messages ({'role': ..., 'content': ...})"
        )
    items = cast("Sequence[object]", prompt)
    if not items:
        raise ModelProviderError("the prompt is empty ([]): pass text, parts or messages")
    spoken = [isinstance(item, Mapping) and "role" in item for item in items]
    if all(spoken):
        messages = [_message(cast("Mapping[str, Any]", item)) for item in items]
        return _named_results(messages)
    if any(spoken):
        at = spoken.index(False)
        raise ModelProviderError(
            f"the prompt mixes messages and parts: item {at} is {_shown(items[at])}, which has "
            "no 'role'; make it {'role': 'user', 'content': ...}"
        )
    parts = [_part(item) for item in items]
    if all(isinstance(part, Text) and not part.text.strip() for part in parts):
        raise ModelProviderError(f"the prompt is empty ({items!r}): pass the text to answer")
    return [Message("user", parts)]


def _is_one_part(prompt: object) -> bool:
    return isinstance(prompt, (Mapping, bytes, bytearray, Path)) or is_image(prompt)


def _message(item: Mapping[str, Any]) -> Message:
    name = item["role"]
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise ModelProviderError(f"{name!r} is not a message's role; there are {', '.join(_ROLES)}")
    extra = {k: v for k, v in item.items() if k not in ("role", "content", "parts", "tool_calls")}
    content = item.get("content", item.get("parts"))
    if role == "tool":
        return Message("tool", (_result_message(item, content, extra),), extra)
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray, ToolCall)):
        listed = cast("Sequence[object]", content)
        read = _output_item if any(map(_is_output_item, listed)) else _part
        parts += [read(part) for part in listed]
    elif content is not None:
        parts.append(_part(content))
    parts += [_tool_call(call) for call in item.get("tool_calls") or ()]
    if not parts and not extra and role != "assistant":
        # An assistant's may be empty (a blocked answer, say): it is left out of the request.
        raise ModelProviderError(f"the message {dict(item)!r} has no content")
    return Message(role, parts, extra)


def _result_message(item: Mapping[str, Any], content: object, extra: dict[str, Any]) -> ToolResult:
    result_id = extra.pop("tool_call_id", None) or extra.pop("id", None)
    name = extra.pop("name", "")
    if not result_id and not name:
        raise ModelProviderError(
            f"the tool message {dict(item)!r} does not say which call it answers: add "
            "'tool_call_id': the id of the ToolCall"
        )
    return ToolResult(result_id or name, name, content, bool(extra.pop("is_error", False)))


def _named_results(messages: list[Message]) -> list[Message]:
    """Google wants a result's tool by its name: look it up where the caller gave only the id."""
    names = {p.id: p.name for m in messages for p in m.spoken("none") if isinstance(p, ToolCall)}
    named: list[Message] = []
    for message in messages:
        if any(isinstance(p, ToolResult) and not p.name for p in message.parts):
            parts = [
                ToolResult(p.id, names.get(p.id, p.id), p.content, p.is_error)
                if isinstance(p, ToolResult) and not p.name
                else p
                for p in message.parts
            ]
            message = Message(message.role, parts, message.extra)
        named.append(message)
    return named


def _tool_call(call: object) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    item = _mapping(call)
    function: Mapping[str, Any] = item.get("function") or item
    if "name" not in function:
        raise ModelProviderError(
            f"{_shown(call)} is not a tool call: pass the ToolCall of a response, or a dict with "
            "'id', 'name' and 'arguments'"
        )
    arguments = function.get("arguments", function.get("input", {}))
    return ToolCall(item.get("id") or "", function["name"], json_or_text(arguments))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else _NOTHING


def json_or_text(arguments: object) -> Any:
    """A tool's arguments as a dict, or the model's own text where that is not a JSON object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value: Any = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return cast("dict[str, Any]", value) if isinstance(value, dict) else arguments


def _part(item: object) -> Part:
    if isinstance(item, (Text, Media, ToolCall, ToolResult, NativePart)):
        return item
    if isinstance(item, str):
        return _from_string(item)
    if isinstance(item, (bytes, bytearray)):
        return from_bytes(bytes(item))
    if isinstance(item, Path):
        return from_path(item)
    if isinstance(item, Mapping):
        return _from_mapping(cast("Mapping[str, Any]", item))
    if is_image(item):
        return from_image(item)
    raise ModelProviderError(
        f"a prompt's part cannot be {_shown(item)}: pass text, bytes, a Path, a URL, an image or "
        "a dict in the provider's own words"
    )


def _from_string(item: str) -> Part:
    """Text, unless the whole string is one URL of a file that is not text."""
    if item.startswith("data:") and "," in item[:200]:
        return from_url(item)
    if item.startswith(("https://", "http://")) and not any(c.isspace() for c in item):
        mime_type = mimetypes.guess_type(item.partition("?")[0])[0] or ""
        if mime_type.startswith(("image/", "audio/", "video/")) or mime_type == "application/pdf":
            return Media(mime_type, url=item)
    return Text(item)


def _from_mapping(item: Mapping[str, Any]) -> Part:
    """A part in a provider's words: what has a name in all of them is translated."""
    kind = item.get("type")
    if kind in ("text", "input_text", "output_text") and set(item) <= {
        "type",
        "text",
        "annotations",
        "citations",
        "logprobs",
    }:
        return Text(item["text"])
    if kind is None and set(item) <= {"text"} and isinstance(item.get("text"), str):
        return Text(item["text"])
    if kind in ("image_url", "input_image") and (image := item.get("image_url")):
        # An object in chat completions, a plain string in the Responses API.
        given: Mapping[str, Any] = {"url": image, **item} if isinstance(image, str) else image
        return from_url(given["url"], given.get("detail"))
    if kind == "tool_use":
        return ToolCall(item["id"], item["name"], item.get("input", {}))
    if kind == "tool_result":
        is_error = bool(item.get("is_error", False))
        return ToolResult(item["tool_use_id"], "", item.get("content", ""), is_error)
    if kind in ("thinking", "reasoning") and not isinstance(item.get("thinking"), str):
        return NativePart(item, "chat")  # Mistral's: a list of parts
    if isinstance(kind, str) and _ANTHROPIC_ONLY.fullmatch(kind):
        return NativePart(item, "anthropic")
    if call := item.get("functionCall"):
        signature = item.get("thoughtSignature")
        return ToolCall(call.get("id") or "", call["name"], call.get("args", {}), signature)
    if result := item.get("functionResponse"):
        return ToolResult(result.get("id") or result["name"], result["name"], result["response"])
    if not item.keys().isdisjoint(_GOOGLE_ONLY):
        text = item.get("text")
        said = isinstance(text, str) and not item.get("thought")
        return NativePart(item, "google", (Text(str(text)),) if said else ())
    return NativePart(item)


# What these wires put into an answer beside text and calls of the caller's tools.
_ANTHROPIC_ONLY = re.compile(
    r"(redacted_)?thinking|(server|mcp)_tool_use|.*_tool_result|compaction"
)
_GOOGLE_ONLY = ("thought", "thoughtSignature", "executableCode", "codeExecutionResult")


def _is_output_item(item: object) -> bool:
    """Whether this is an item of a Responses answer, which come as the content of its message."""
    kind = _mapping(item).get("type")
    return kind in ("message", "reasoning") or (isinstance(kind, str) and kind.endswith("_call"))


def _output_item(item: object) -> Part:
    fields = _mapping(item)
    kind, meaning = fields.get("type"), []
    if kind == "message":
        meaning = [_part(part) for part in fields.get("content") or ()]
    elif kind == "function_call":
        call_id, arguments = fields.get("call_id") or "", json_or_text(fields.get("arguments"))
        meaning = [ToolCall(call_id, fields["name"], arguments)]
    return NativePart(fields, "openai-responses", meaning)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
