"""Format recorded calls as readable text; pure.

Times and dates, which change with every recording, can be left out for comparing two versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ember_testing.replay.budget import dollars
from ember_testing.wires.body import as_bytes

if TYPE_CHECKING:
    from ember_testing.cassettes.calls import Call

_LONGEST = 4000
"""Maximum number of characters of a body that is not a conversation."""

# Fields that hold the system prompt and the conversation; all other fields are parameters.
_SYSTEM = ("instructions", "system", "systemInstruction", "preamble")
_CONVERSATION = (
    *_SYSTEM, "messages", "input", "contents", "prompt", "message", "inputs", "inputText", "texts",
    "content", "requests", "instances", "query", "documents",
)  # fmt: skip


def transcript(call: Call, *, dated: bool = True) -> str:
    """Return the transcript of one call: a heading, the conversation and the answer.

    Args:
        call: The call.
        dated: Whether to include its duration and the date of recording.
    """
    outcome = call.outcome if call.error is None else f"{call.outcome} ({call.error})"
    status = "no answer" if call.status is None else str(call.status)
    lines = [f"## {call.id}  {call.method} {call.url}  {status} {outcome}"]
    lines += [f"   {fact}" for fact in [", ".join(_facts(call, dated))] if fact]
    lines += _request(call)
    lines += _answer(call)
    return "\n".join(lines) + "\n"


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


def _request(call: Call) -> list[str]:
    body = _json(call.body)
    if not isinstance(body, dict) or not any(name in body for name in _CONVERSATION):
        return _labelled("request", _plain(call.body))
    request = cast("dict[str, Any]", body)
    lines: list[str] = []
    for name in _CONVERSATION:
        if name in request:
            role = "system" if name in _SYSTEM else "user"
            lines += _conversation(role, request[name])
    parameters = {name: value for name, value in request.items() if name not in _CONVERSATION}
    if parameters:
        text = ", ".join(f"{name}={_compact(value)}" for name, value in parameters.items())
        lines += _labelled("with", text)
    return lines


def _conversation(role: str, value: Any) -> Iterator[str]:
    """Format a field of the conversation: a text, a message, a list of messages or of parts."""
    if isinstance(value, str):
        yield from _labelled(role, value)
    elif isinstance(value, Mapping) and ("role" in value or "parts" in value):
        message = cast("Mapping[str, Any]", value)
        name = {"model": "assistant"}.get(message.get("role", role), message.get("role", role))
        content = message.get("content", message.get("parts", ""))
        yield from _labelled(str(name), "\n".join(_parts(content)))
        for call in message.get("tool_calls") or ():
            yield from _labelled("tool call", _tool(call.get("function") or call))
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        items = cast("Sequence[object]", value)
        if all(isinstance(item, Mapping) and ("role" in item or "parts" in item) for item in items):
            for item in items:
                yield from _conversation(role, item)
        else:
            yield from _labelled(role, "\n".join(_parts(items)))
    elif value is not None:
        yield from _labelled(role, _compact(value))


def _parts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        items = cast("Sequence[object]", content)
        for item in items:
            yield from _parts(item)
    elif isinstance(content, Mapping):
        part = cast("Mapping[str, Any]", content)
        text = part.get("text")
        if isinstance(text, str):
            yield text
        elif "functionCall" in part or part.get("type") in ("tool_use", "function_call"):
            yield f"tool call: {_tool(part.get('functionCall') or part)}"
        else:
            yield _compact(part)
    elif content is not None:
        yield _compact(content)


def _tool(call: Mapping[str, Any]) -> str:
    given = call.get("arguments", call.get("input", call.get("args", {})))
    return f"{call.get('name')}({given if isinstance(given, str) else _compact(given)})"


def _answer(call: Call) -> list[str]:
    if call.status is None:
        return []
    lines: list[str] = []
    reading = _read(call) if call.provider and call.status < 400 else None
    if reading is not None:
        if reading.reasoning:
            lines += _labelled("reasoning", reading.reasoning)
        if reading.text:
            lines += _labelled("assistant", reading.text)
        if reading.refusal:
            lines += _labelled("refusal", reading.refusal)
        for tool in reading.tool_calls:
            lines += _labelled("tool call", f"{tool.name}({_compact(tool.arguments)})")
        if reading.finish_reason not in (None, "stop", "tool_calls"):
            lines += _labelled("ended by", str(reading.finish_reason))
    elif call.text:
        lines += _labelled("assistant", call.text)
    return lines or _labelled("answer", _plain(call.response_body))


def _read(call: Call) -> Any:
    from ember.exceptions import EmberError  # late: these load all of ember
    from ember_testing.wires.exchange import read_request, read_response

    request = read_request(call.url, as_bytes(call.body))
    try:
        headers = dict(call.response_headers)
        body = as_bytes(call.response_body)
        return request and read_response(request, call.status or 0, headers, body)
    except EmberError:  # truncated, or of another format: shown as received
        return None


def _labelled(label: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"{label}: {first}", *(f"    {line}" for line in rest)]


def _plain(body: str | bytes) -> str:
    if isinstance(body, bytes):
        return f"{len(body):,} bytes"
    value = _json(body)
    text = body if value is None else json.dumps(value, indent=2, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n... {len(text):,} characters"


def _json(body: str | bytes) -> Any:
    if isinstance(body, bytes) or body.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


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


def transcripts(calls: Iterable[Call], *, dated: bool = True) -> str:
    """Return the transcripts of all calls, separated by empty lines."""
    return "\n".join(transcript(call, dated=dated) for call in calls)
