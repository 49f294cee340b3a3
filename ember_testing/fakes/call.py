"""The calls that reach a fake, parsed from any provider's request format; pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ember.conversation.media import Media
from ember.conversation.messages import Message, as_messages
from ember.conversation.parts import NativePart, Part, ToolResult, parsed_arguments
from ember.models.schemas import ToolCall
from ember_testing.wires.parsing import ModelRequest

__all__ = ["FakeCall", "call_of_custom", "call_of_request", "is_conversation"]

# Request fields that hold the conversation or the texts to embed, the first that is there.
_TURNS = (
    "messages", "contents", "input", "texts", "inputs", "inputText", "content", "requests",
    "instances", "prompt", "message", "query",
)  # fmt: skip
_SYSTEM = ("system", "instructions", "systemInstruction", "preamble")
_NOT_PARAMETERS = frozenset({*_SYSTEM, "messages", "contents", "input", "model", "stream"})


@dataclass(frozen=True, slots=True)
class FakeCall:
    """A call that reached the fake.

    Args:
        provider: The provider's name in Ember.
        model: The model's id on the wire.
        prompt: The text of the last turn.
        system: The system prompt, or None.
        params: The request's other fields, under the provider's names.
        stream: Whether a streamed answer was requested.
        headers: The request's headers, names in lower case.
        body: The request's whole JSON.
    """

    provider: str
    model: str
    prompt: str
    system: str | None
    params: Mapping[str, Any]
    stream: bool
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def messages(self) -> list[Message]:
        """The conversation without its system prompt, in Ember's format for every provider.

        Each message has a `role` (user, assistant, tool), `parts` and their `text`. The tool calls
        of one answer are parts of one message, and so are their results.
        """
        _, turns = _turns(self.body)
        conversation = [turns] if isinstance(turns, str) else [_with_role(turn) for turn in turns]
        messages = as_messages(conversation or [self.prompt])
        merged: list[Message] = []
        for message in map(_normalized, messages):
            last = merged[-1] if merged else None
            if last and last.role == message.role and message.role in ("assistant", "tool"):
                # Some formats have one message per call and per result, others one for all.
                extra = {**last.extra, **message.extra}
                merged[-1] = Message(last.role, [*last.parts, *message.parts], extra)
            elif message.role != "system":
                merged.append(message)
        return merged

    @property
    def images(self) -> list[Media]:
        """The images of the conversation in order, with `mime_type` and `data` or `url`."""
        parts = [part for message in self.messages for part in message.parts]
        return [
            part
            for part in parts
            if isinstance(part, Media) and (part.mime_type.startswith("image/") or part.url)
        ]


def is_conversation(name: str) -> bool:
    """Return whether a request's field of this name holds the conversation or texts to embed."""
    return name in _TURNS or name in _SYSTEM


def call_of_request(request: ModelRequest, headers: Mapping[str, str]) -> FakeCall:
    """Return the call that a request makes; names of headers in lower case."""
    body = request.body
    conversation, turns = _turns(body)
    system: object = next((body[name] for name in _SYSTEM if body.get(name)), None)
    if isinstance(turns, str):
        prompt = turns
    else:
        prompt = _text(turns[-1]) if turns else ""
        if system is None:
            roles = ("system", "developer")
            system = next((turn for turn in turns if _role(turn) in roles), None)
    return FakeCall(
        request.route,
        request.model,
        prompt,
        None if system is None else _text(system),
        # "content" and "prompt" are parameters beside a conversation.
        {k: v for k, v in body.items() if k not in _NOT_PARAMETERS and k != conversation},
        bool(body.get("stream")) or request.stream,
        headers,
        body,
    )


def call_of_custom(provider: str, model: str, prompt: Any, params: Mapping[str, Any]) -> FakeCall:
    """Return the call that a custom provider received."""
    system = params.get("system")
    others = {name: value for name, value in params.items() if name != "system"}
    turns: list[Any] = [*prompt] if isinstance(prompt, list) else [prompt]
    text = prompt if isinstance(prompt, str) else _text(turns[-1]) if turns else ""
    body = {"messages": turns, **params}
    return FakeCall(provider, model, text, system, others, False, {}, body)


def _turns(body: Mapping[str, Any]) -> tuple[str, str | Sequence[Mapping[str, Any]]]:
    """Return the conversation, and the name of the field that holds it."""
    name = next((name for name in _TURNS if body.get(name)), "")
    turns: Any = body.get(name, ())
    return name, [cast("Mapping[str, Any]", turns)] if isinstance(turns, Mapping) else turns


def _role(turn: object) -> object:
    """Return the role of a message; inputs to embed have none."""
    return cast("Mapping[str, object]", turn).get("role") if isinstance(turn, Mapping) else None


def _with_role(turn: Any) -> Any:
    """Return a turn as a message; in the Responses API, calls and results are separate items."""
    if not isinstance(turn, Mapping):
        return turn
    item = cast("Mapping[str, Any]", turn)
    if item.get("type") == "function_call":
        call = {"id": item.get("call_id"), **{k: item.get(k) for k in ("name", "arguments")}}
        return {"role": "assistant", "tool_calls": [call]}
    if item.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": item["call_id"], "content": item.get("output")}
    if item.get("type") == "reasoning":
        return {"role": "assistant", "content": [item]}
    # Google omits the role in a conversation of one turn, and texts to embed have none.
    return item if "role" in item or "type" in item else {"role": "user", **item}


def _normalized(message: Message) -> Message:
    parts = [_part(part) for part in message.parts]
    results = bool(parts) and all(isinstance(part, ToolResult) for part in parts)
    return message._replace(parts=parts, role="tool" if results else message.role)


def _part(part: Part) -> Part:
    """Convert JSON arguments, and Anthropic's and Google's images, to Ember's parts."""
    if isinstance(part, ToolCall):
        return part._replace(arguments=parsed_arguments(part.arguments))
    if not isinstance(part, NativePart):
        return part
    value = part.value
    source = value.get("source") if value.get("type") in ("image", "document") else None
    if source := source or value.get("inlineData") or value.get("fileData"):
        kind = source.get("media_type") or source.get("mimeType") or ""
        url = source.get("url") or source.get("fileUri")
        data = base64.b64decode(source["data"]) if "data" in source else None
        if not kind and value.get("type") == "document":
            kind = "application/pdf"
        return Media(kind, data, url)
    return part


def _text(value: object) -> str:
    """Return the text of a turn in any provider's format."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(_text(item) for item in cast("Sequence[object]", value))
    if isinstance(value, Mapping):
        turn = cast("Mapping[str, object]", value)
        for name in ("content", "parts", "text", "output"):
            if name in turn:
                return _text(turn[name])
    return ""
