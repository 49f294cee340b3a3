"""Malformed answers are parsed or raise an EmberError, and none of their text is lost."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ember.api import models
from ember.exceptions import EmberError, ProviderAPIError
from tests.corpus import Player, ask, needs_corpus, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
         "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
         "completion_tokens_details": {"reasoning_tokens": 1}, "cost": 0.1}  # fmt: skip
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CHAT = {
    "id": "x", "model": "m", "usage": USAGE, "x_groq": {"usage": USAGE}, "service_tier": "flex",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": [{"type": "text", "text": "hello"},
                                         {"type": "thinking", "thinking": [{"text": "hm"}]}],
        "reasoning": "hm", "refusal": "no", "tool_calls": [CALL], "function_call": {"name": "g"},
        "reasoning_details": [{"text": "hm"}]}}],
}  # fmt: skip
CHAT_CHUNK = {
    "id": "x", "model": "m", "usage": USAGE, "x_groq": {"usage": USAGE, "error": ""},
    "choices": [{"index": 0, "finish_reason": "stop", "delta": {
        "content": [{"type": "text", "text": "hello"}], "reasoning_content": "hm", "refusal": "no",
        "tool_calls": [{"index": 0, **CALL}], "function_call": {"name": "g", "arguments": "{}"},
        "reasoning_details": [{"text": "hm"}]}}],
}  # fmt: skip
RESPONSE = {
    "id": "r", "object": "response", "model": "m", "status": "completed", "error": None,
    "incomplete_details": {"reason": "max_output_tokens"},
    "tool_usage": {"web_search": {"num_requests": 1}},
    "output": [{"type": "reasoning", "summary": [{"text": "hm"}], "content": [{"text": "hm"}]},
               {"type": "message", "content": [{"type": "output_text", "text": "hello"},
                                               {"type": "refusal", "refusal": "no"}]},
               {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
    "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12, "cost": 1,
              "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
              "output_tokens_details": {"reasoning_tokens": 1}},
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "model": "m", "stop_reason": "refusal",
    "stop_details": {"explanation": "no", "category": "bio"},
    "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "hello", "citations": [{"a": 1}]},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
    "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 1, "cost": 2,
              "cache_creation": {"ephemeral_5m_input_tokens": 1}, "server_tool_use": {},
              "output_tokens_details": {"thinking_tokens": 1}, "service_tier": "standard"},
}  # fmt: skip
CONTENT = {
    "modelVersion": "m", "responseId": "r",
    "promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "no"},
    "candidates": [{"index": 0, "finishReason": "SAFETY", "finishMessage": "no", "content": {
        "role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "hello"},
                                   {"functionCall": {"name": "f", "args": {"a": 1}, "id": "i"},
                                    "thoughtSignature": "s"}]}}],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12,
                      "thoughtsTokenCount": 1, "toolUsePromptTokenCount": 1,
                      "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}]},
}  # fmt: skip
EVENTS: dict[str, list[Any]] = {
    "openai": [CHAT_CHUNK, {**CHAT_CHUNK, "choices": []}],
    "openai-responses": [
        {"type": "response.created", "response": RESPONSE | {"status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "hello", "output_index": 0},
        {"type": "response.reasoning_text.delta", "delta": "hm"},
        {"type": "response.refusal.delta", "delta": "no"},
        {"type": "response.output_item.done", "item": RESPONSE["output"][2]},
        {"type": "response.completed", "response": RESPONSE},
    ],
    "anthropic": [
        {"type": "message_start", "message": {**MESSAGE, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "citations_delta", "citation": {"a": 1}}},
        {"type": "content_block_start", "index": 1, "content_block": MESSAGE["content"][2]},
        {"type": "content_block_delta", "index": 1,
         "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 2,
         "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 2,
         "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
    "google": [CONTENT, CONTENT],
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "openai": CHAT,
    "openai-responses": RESPONSE,
    "anthropic": MESSAGE,
    "google": CONTENT,
}
ERROR = {
    "type": "error", "request_id": "r", "message": "m", "detail": [{"loc": ["a"], "msg": "m"}],
    "error": {"message": {"detail": [{"loc": ["a"], "msg": "m"}]}, "type": "t", "code": 400,
              "status": "s", "param": "p", "details": [{"reason": "r", "retryDelay": "3s",
              "violations": [{"quotaId": "q"}]}], "innererror": {"code": "c"},
              "content_filters": [], "metadata": {"raw": "{}", "error_type": "e"},
              "error": {"message": "m"}},
}  # fmt: skip

strange = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 10**400, 1.5, -0.0, float("nan"), float("inf")]),
    st.sampled_from(
        ["", "x", "[DONE]", "7", "stop", "\ud800", "\u2028", [], {}, [[]], [None], [{}]]
    ),
    st.sampled_from([{"a": None}, {"text": 1}, [1, "a", None, {}], {"type": "text"}, "9" * 5000]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    if path:
        yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else ())
    )
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which up to three values are missing or replaced by unexpected ones."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(value)) or [("x",)]))
        inside = value
        for key in path[:-1]:
            inside = inside[key]
        if draw(st.booleans()) and isinstance(inside, dict):
            inside.pop(path[-1], None)
        elif isinstance(inside, (dict, list)) and path != ("x",):
            inside[path[-1]] = copy.deepcopy(draw(strange))
    return value


many = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def answered(played: Player, wire: str, body: str, stream: bool, status: int = 200) -> Any:
    """The response or EmberError for a body; other exceptions pass through."""
    row = {"status": status, "response_headers": {}, "response_body": ""}
    played.load(row, body.encode("utf-8", "surrogatepass"))
    return ask(f"{wire}/m", stream)


@pytest.mark.parametrize("wire", WHOLE)
@given(data=st.data())
@many
def test_mutated_answer_returns_or_raises_ember_error(
    wire: str, data: st.DataObject, played: Player
) -> None:
    """Whatever is missing or wrong in a whole answer, the call returns or raises EmberError."""
    answered(played, wire, json.dumps(data.draw(mutated(WHOLE[wire]))), False)


@pytest.mark.parametrize("wire", EVENTS)
@given(data=st.data())
@many
def test_mutated_stream_yields_text_or_raises_ember_error(
    wire: str, data: st.DataObject, played: Player
) -> None:
    """Whatever is missing or wrong in an event, the stream yields text or raises EmberError."""
    events = data.draw(mutated(EVENTS[wire]))
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    answered(played, wire, body, True)


@needs_corpus
@given(data=st.data())
@settings(many, max_examples=max(200, settings().max_examples))
def test_mutated_recording_returns_or_raises_ember_error(
    data: st.DataObject, played: Player
) -> None:
    """The same for recorded answers, and for one event of a recorded stream."""
    row = data.draw(st.sampled_from(list(rows().values())))
    lines = row["response_body"].split("\n")
    events = [place for place, line in enumerate(lines) if line.startswith("data: {")]
    try:
        if events:
            place = data.draw(st.sampled_from(events))
            event = data.draw(mutated(json.loads(lines[place].removeprefix("data: "))))
            lines[place] = f"data: {json.dumps(event)}"
            body = "\n".join(lines)
        else:
            body = json.dumps(data.draw(mutated(json.loads(row["response_body"]))))
    except ValueError:  # HTML, plain text, and Google's extra comma
        body = row["response_body"][: data.draw(st.integers(0, 100))]
    played.play({**row, "stream": data.draw(st.booleans())}, body.encode())


@pytest.mark.parametrize("wire", EVENTS)
@given(data=st.data(), status=st.sampled_from([200, 400, 401, 404, 422, 429, 500, 503]))
@many
def test_mutated_error_body_raises_provider_error(
    wire: str, data: st.DataObject, status: int, played: Player
) -> None:
    """Whatever is missing or wrong in an error's body, it raises ProviderAPIError."""
    body = json.dumps(data.draw(mutated(ERROR)))
    stream = data.draw(st.booleans())
    result = answered(played, wire, body, stream, status)
    assert isinstance(result, ProviderAPIError)


@given(body=st.one_of(st.binary(), st.text().map(str.encode)), stream=st.booleans(),
       wire=st.sampled_from([*EVENTS]), status=st.sampled_from([200, 400, 500]))  # fmt: skip
@many
def test_arbitrary_bytes_raise_ember_error(
    body: bytes, stream: bool, wire: str, status: int, played: Player
) -> None:
    """Arbitrary bytes raise an EmberError, never another exception."""
    played.load({"status": status, "response_headers": {}, "response_body": ""}, body)
    assert isinstance(ask(f"{wire}/m", stream), EmberError)


@pytest.mark.parametrize("wire", WHOLE)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "NaN", "", " ", "null"]
)
def test_extreme_json_is_a_bad_response(wire: str, stream: bool, body: str, played: Player) -> None:
    """Deep nesting, huge numbers and bare values are bad_response, not another exception."""
    result = answered(played, wire, body, stream)
    assert isinstance(result, ProviderAPIError)
    assert result.error_type in ("bad_response", "incomplete_stream")
    result = answered(played, wire, f"data: {body}\n\n", stream)
    assert isinstance(result, ProviderAPIError)


def test_error_beside_partial_text_keeps_the_text(played: Player) -> None:
    """A plain answer with text and an error raises, and the text is in partial_text."""
    body = {**CHAT, "error": {"code": 502, "message": "Upstream broke"}}
    result = answered(played, "openrouter", json.dumps(body), False)
    assert isinstance(result, ProviderAPIError)
    assert result.error_type == "server"
    assert result.context["partial_text"] == "hello"
    assert result.context["usage"]["prompt_tokens"] == 7
    assert result.retryable is False


@pytest.mark.parametrize("stream", [False, True])
def test_slightly_malformed_json_is_parsed(stream: bool, played: Player) -> None:
    """Answers with raw control characters, huge numbers or an extra comma are parsed."""
    body = json.dumps(CHAT_CHUNK if stream else CHAT).replace("hello", "he\tllo\x01")
    body = body.replace('"model"', f'"created": {"9" * 5000}, "model"', 1)[:-1] + ",}"
    result = answered(played, "openai", f"data: {body}\n\n" if stream else body, stream)
    assert result.text == "he\tllo\x01"


def test_invalid_utf8_costs_one_character(played: Player) -> None:
    """An invalid UTF-8 byte loses one character, not the whole answer."""
    body = json.dumps(CHAT).encode().replace(b"hello", b"he\xffllo")
    played.load({"status": 200, "response_headers": {}, "response_body": ""}, body)
    assert models("openai/m", "hi", api_key="sk-of-a-test").text == "he\ufffdllo"
