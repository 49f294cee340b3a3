"""The messages of a recorded call and the parts of its answer, in any vendor's format; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ember.conversation.media import Media
from ember.conversation.parts import NativePart, Text, ToolResult
from ember.exceptions import EmberError
from ember.models.schemas import ToolCall
from ember_testing.fakes.call import call_of_request, is_conversation
from ember_testing.wires.body import as_bytes
from ember_testing.wires.embeddings import inputs_of
from ember_testing.wires.parsing import read_request, read_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ember.conversation.parts import Part
    from ember_testing.cassettes.calls import Call
    from ember_testing.wires.parsing import ModelRequest


class Content(NamedTuple):
    """One part of a message or of an answer."""

    kind: str  # `text`, `reasoning`, `refusal`, `call`, `result`, `image` or `other`
    value: Any  # a text, the arguments or the result of a tool, a `Media`, or JSON
    name: str = ""  # the tool's


class Conversation(NamedTuple):
    """The contents of a call."""

    request: ModelRequest | None  # None if it is no call of a model
    turns: list[tuple[str, list[Content]]]  # by role; empty if the request's format is unknown
    answer: list[Content]  # empty if there is none or it cannot be read
    finish_reason: str | None

    @property
    def parameters(self) -> dict[str, Any]:
        """The request's fields beside the conversation."""
        body: Mapping[str, Any] = self.request.body if self.request else {}
        return {name: value for name, value in body.items() if not is_conversation(name)}


def conversation_of(call: Call) -> Conversation:
    """Return the contents of a call."""
    request = read_request(call.url, as_bytes(call.body))
    answer, finish_reason = _answer(request, call)
    if not answer and call.text:
        answer = [Content("text", call.text)]
    return Conversation(request, [*_turns(request)], answer, finish_reason)


def _turns(request: ModelRequest | None) -> list[tuple[str, list[Content]]]:
    if request is None:
        return []
    if (inputs := inputs_of(request)) is not None:
        texts = [Content("text" if isinstance(each, str) else "other", each) for each in inputs]
        return [("user", texts)]
    try:
        call = call_of_request(request, {})
        turns = [(str(each.role), [*map(_content, _parts(each.parts))]) for each in call.messages]
    except Exception:  # an unknown request format: its body is shown all the same
        return []
    return [("system", [Content("text", call.system)]), *turns] if call.system else turns


def _answer(request: ModelRequest | None, call: Call) -> tuple[list[Content], str | None]:
    if request is None or call.status is None or call.status >= 400:
        return [], None
    try:
        headers, body = dict(call.response_headers), as_bytes(call.response_body)
        answer = read_response(request, call.status, headers, body)
    except EmberError:  # truncated or of another format: the text received is shown
        return [], None
    texts = (("reasoning", answer.reasoning), ("text", answer.text), ("refusal", answer.refusal))
    contents = [Content(kind, text) for kind, text in texts if text]
    return [*contents, *map(_content, answer.tool_calls)], answer.finish_reason


def _parts(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield from part.equivalents if isinstance(part, NativePart) and part.equivalents else [part]


def _content(part: Part) -> Content:
    if isinstance(part, Text):
        return Content("text", part.text)
    if isinstance(part, ToolCall):
        return Content("call", part.arguments, part.name)
    if isinstance(part, ToolResult):
        return Content("result", part.content, part.name)
    if isinstance(part, Media):
        return Content("image", part)
    return Content("other", part.value)


def media_summary(media: Media) -> str:
    """Return type and size of an image or a file, or its address."""
    if media.data is None:
        return f"{media.mime_type or 'file'} at {media.url}"
    return f"{media.mime_type}, {len(media.data):,} bytes"
