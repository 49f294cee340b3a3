"""Format recorded calls as readable text; pure.

Times and dates, which change with every recording, can be left out for comparing two versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from ember_testing.cli.conversation import conversation_of, media_summary
from ember_testing.replay.budget import dollars

if TYPE_CHECKING:
    from ember_testing.cassettes.calls import Call
    from ember_testing.cli.conversation import Content, Conversation

_LONGEST = 4000
"""Maximum number of characters of a body that is not a conversation."""


def transcripts(calls: Iterable[Call], *, dated: bool = True) -> Iterator[str]:
    """Yield the lines of the transcripts of all calls, separated by empty lines.

    Args:
        calls: The calls.
        dated: Whether to include durations and the dates of recording.
    """
    for number, call in enumerate(calls):
        if number:
            yield ""
        yield from _transcript(call, dated)


def _transcript(call: Call, dated: bool) -> Iterator[str]:
    outcome = call.outcome if call.error is None else f"{call.outcome} ({call.error})"
    status = "no answer" if call.status is None else str(call.status)
    yield f"## {call.id}  {call.method} {call.url}  {status} {outcome}"
    if facts := ", ".join(_facts(call, dated)):
        yield f"   {facts}"
    conversation = conversation_of(call)
    yield from _request(call, conversation)
    yield from _answer(call, conversation)


def _facts(call: Call, dated: bool) -> Iterator[str]:
    if call.model:
        yield f"{call.provider}/{call.model}"
    counts = call.prompt_tokens, call.completion_tokens
    if counts != (None, None):
        prompt, completion = ("?" if count is None else count for count in counts)
        yield f"{prompt} + {completion} tokens"
    if call.cost is not None:
        yield dollars(call.cost)
    if call.n > 1:
        yield f"repetition {call.n}"
    if dated:
        if call.seconds is not None:
            yield f"{call.seconds:.2f} s"
        yield f"recorded {call.recorded_at[:19].replace('T', ' ')}"
    if call.test:
        yield call.test


def _request(call: Call, conversation: Conversation) -> Iterator[str]:
    if not conversation.turns:
        yield from _labelled("request", _indented(call.body))
        return
    for role, contents in conversation.turns:
        yield from _turn(role, contents)
    if parameters := conversation.parameters:
        text = ", ".join(f"{name}={_compact(value)}" for name, value in parameters.items())
        yield from _labelled("with", text)


def _answer(call: Call, conversation: Conversation) -> Iterator[str]:
    if call.status is not None and not conversation.answer:
        yield from _labelled("answer", _indented(call.response_body))
    yield from _turn("assistant", conversation.answer)
    if conversation.finish_reason not in (None, "stop", "tool_calls"):
        yield from _labelled("ended by", str(conversation.finish_reason))


def _turn(role: str, contents: Iterable[Content]) -> Iterator[str]:
    labelled = (_label_and_text(role, content) for content in contents)
    for label, group in groupby(labelled, key=itemgetter(0)):
        texts = [text for _, text in group]
        for text in texts if label == "tool call" else ["\n".join(texts)]:
            yield from _labelled(label, text)


def _label_and_text(role: str, content: Content) -> tuple[str, str]:
    kind, value, name = content
    if kind == "image":
        return role, f"[{media_summary(value)}]"
    text = value if isinstance(value, str) else _compact(value)
    if kind == "call":
        return "tool call", f"{name}({text})"
    return (kind if kind in ("reasoning", "refusal") else role), text


def _labelled(label: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"{label}: {first}", *(f"    {line}" for line in rest)]


def _indented(body: str | bytes) -> str:
    if isinstance(body, bytes):
        return f"{len(body):,} bytes"
    with suppress(ValueError, RecursionError):  # not JSON: shown as it is
        body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    return body if len(body) <= _LONGEST else f"{body[:_LONGEST]}\n... {len(body):,} characters"


def _compact(value: Any) -> str:
    """Format JSON in one line; a long text, such as an image, is replaced by its length."""
    return json.dumps(_shortened(value), ensure_ascii=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 500 else f"{value[:40]}... ({len(value):,} characters)"
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {name: _shortened(each) for name, each in items}
    if isinstance(value, Sequence):
        return [_shortened(each) for each in cast("Sequence[object]", value)]
    return value
