"""Prompts in one form that every wire can translate; pure.

A prompt is a string, a list of parts (text and images), or a list of messages. Messages may be in
Ember's own format or in that of any provider: the answer of one provider can be sent to another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from ember.conversation.media import is_image
from ember.conversation.parts import (
    NativePart,
    Part,
    Text,
    ToolResult,
    as_mapping,
    as_part,
    as_tool_call,
    excerpt,
    from_output_item,
    is_output_item,
    required,
    translate_parts,
)
from ember.exceptions import ModelProviderError
from ember.models.schemas import ToolCall

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
# The keys of a message's content, and those that an answer may have instead.
_CONTENT_KEYS = {"content", "parts"}
_ANSWER_KEYS = _CONTENT_KEYS | {
    *("audio", "function_call", "reasoning", "reasoning_content", "reasoning_details", "refusal"),
    "tool_calls",
}
_NO_EXTRA: Mapping[str, Any] = {}


class Message(NamedTuple):
    """One turn of a conversation.

    Args:
        role: The role of the speaker.
        parts: The content, in order.
        extra: The message's other keys, sent to the provider unchanged.
    """

    role: Role
    parts: Sequence[Part]
    extra: Mapping[str, Any] = _NO_EXTRA

    @property
    def text(self) -> str:
        """The text of all text parts."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    def parts_for(self, wire: str) -> list[Part]:
        """Return the parts for one wire, translating those in another wire's format."""
        return translate_parts(self.parts, wire)


def as_messages(prompt: object) -> list[Message]:
    """Convert a prompt to messages.

    Raises:
        ModelProviderError: The prompt is empty, or it cannot be sent.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ModelProviderError(f"the prompt is empty ({prompt!r}): pass the text to answer")
        return [Message("user", (Text(prompt),))]
    if isinstance(prompt, (Mapping, bytes, bytearray, Path)) or is_image(prompt):
        items = cast("Sequence[object]", [prompt])
    elif isinstance(prompt, Sequence):
        items = cast("Sequence[object]", prompt)
    else:
        raise ModelProviderError(
            f"a prompt cannot be {excerpt(prompt)}: pass a string, a list of parts "
            "(text and images) or a list of messages ({'role': ..., 'content': ...})"
        )
    if not items:
        raise ModelProviderError("the prompt is empty ([]): pass text, parts or messages")
    for index, item in enumerate(items):
        fields = as_mapping(item)
        if "content" in fields and not fields.keys() & {"role", "type"}:
            raise ModelProviderError(
                f"message {index} has no 'role': {excerpt(item)}; there are {', '.join(_ROLES)}"
            )
    are_messages = ["role" in as_mapping(item) or _is_responses_item(item) for item in items]
    if all(are_messages):
        return _with_tool_names(_from_messages(cast("Sequence[Mapping[str, Any]]", items)))
    if any(are_messages):
        at = are_messages.index(False)
        raise ModelProviderError(
            f"the prompt mixes messages and parts: item {at} is {excerpt(items[at])}, which has "
            "no 'role'; make it {'role': 'user', 'content': ...}"
        )
    parts = [as_part(item) for item in items]
    if all(isinstance(part, Text) and not part.text.strip() for part in parts):
        raise ModelProviderError(f"the prompt is empty ({items!r}): pass the text to answer")
    return [Message("user", parts)]


def _from_messages(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Convert messages; the output items of one Responses answer become one message."""
    messages: list[Message] = []
    answer: list[Part] | None = None
    for index, item in enumerate(items):
        if _is_responses_item(item) and is_output_item(item):
            if answer is None:
                answer = []
                messages.append(Message("assistant", answer))
            answer.append(from_output_item(item))
            continue
        answer = None
        messages.append(_input_item(item) if _is_responses_item(item) else _message(item, index))
    return messages


def _message(item: Mapping[str, Any], index: int) -> Message:
    name = item["role"]
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise ModelProviderError(
            f"message {index}: {name!r} is not a message's role; there are {', '.join(_ROLES)}"
        )
    keys = _ANSWER_KEYS if role == "assistant" else _CONTENT_KEYS
    if name != "model" and not item.keys() & keys:  # Google omits the parts of an empty answer
        raise ModelProviderError(
            f"message {index} has no 'content': {excerpt(item)}; write "
            f"{{'role': {name!r}, 'content': ...}}"
        )
    extra = {k: v for k, v in item.items() if k not in ("role", "content", "parts", "tool_calls")}
    if extra.get("type") == "message":  # of the Responses API: redundant here
        del extra["type"]
    content = item.get("content", item.get("parts"))
    if role == "tool":
        return Message("tool", (_tool_result(item, content, extra),), extra)
    parts: list[Part] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray, ToolCall)):
        listed = cast("Sequence[object]", content)
        convert = from_output_item if any(map(is_output_item, listed)) else as_part
        parts += map(convert, listed)
    elif content is not None:
        parts.append(as_part(content))
    if item.get("tool_calls"):
        parts += [as_tool_call(call) for call in required(item, "tool_calls", Sequence)]
    if not parts and not extra and role != "assistant":
        # An assistant's message may be empty (a blocked answer): it is left out of the request.
        raise ModelProviderError(f"message {index} has no content: {excerpt(item)}")
    return Message(role, parts, extra)


def _tool_result(item: Mapping[str, Any], content: object, extra: dict[str, Any]) -> ToolResult:
    result_id = extra.pop("tool_call_id", None) or extra.pop("id", None)
    name = extra.pop("name", "")
    if not isinstance(result_id or name or None, str):
        raise ModelProviderError(
            f"the tool message {dict(item)!r} does not say which call it answers: add "
            "'tool_call_id': the id of the ToolCall"
        )
    return ToolResult(result_id or name, name, content, bool(extra.pop("is_error", False)))


def _with_tool_names(messages: list[Message]) -> list[Message]:
    """Add the tool's name, which Google requires, to results that only have a call's id."""
    parts = [part for message in messages for part in message.parts]
    parts += [each for p in parts if isinstance(p, NativePart) for each in p.equivalents or ()]
    names = {part.id: part.name for part in parts if isinstance(part, ToolCall)}

    def with_name(part: Part) -> Part:
        if isinstance(part, ToolResult) and not part.name:
            return part._replace(name=names.get(part.id, part.id))
        return part

    return [message._replace(parts=[*map(with_name, message.parts)]) for message in messages]


_INPUT_ITEM = re.compile(
    r".*_output|item_reference|mcp_approval_response|compaction|additional_tools"
)


def _is_responses_item(item: object) -> bool:
    """Return whether to read this as an item of the Responses API instead of a message."""
    fields = as_mapping(item)
    kind = fields.get("type")
    if not isinstance(kind, str):
        return False
    if kind in ("message", "reasoning"):
        has_text = isinstance(fields.get("content"), str)
        return fields.get("role", "assistant") == "assistant" and not has_text
    return is_output_item(item) or _INPUT_ITEM.fullmatch(kind) is not None


def _input_item(item: Mapping[str, Any]) -> Message:
    if item["type"] in ("function_call_output", "custom_tool_call_output"):
        result = ToolResult(required(item, "call_id", str), "", item.get("output", ""))
        return Message("tool", (result,))
    return Message("user", (NativePart(item, "openai-responses"),))
