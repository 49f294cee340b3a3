"""Prompts in every form that a caller may have them in, and conversations that change provider."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse
from tests.corpus import ask, player, sent

MODELS = {
    "openai": "gpt-4o",
    "openai-responses": "openai-responses/gpt-5.5",
    "anthropic": "claude-opus-4-6",
    "google": "gemini-3.8-flash",
}
# An answer with reasoning, text and a tool call, as each wire sends it.
ANSWERS: dict[str, Any] = {
    "openai": {"id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": "Let me see.", "reasoning_content": "hm",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": {
                        "name": "weather", "arguments": '{"city": "Ulm"}'}}]}}]},
    "openai-responses": {"id": "r", "object": "response", "status": "completed", "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "id": "msg_1", "role": "assistant",
         "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
         "arguments": '{"city": "Ulm"}'}]},
    "anthropic": {"type": "message", "model": "m", "stop_reason": "tool_use", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "Let me see."},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}}]},
    "google": {"responseId": "r/1", "candidates": [{"finishReason": "STOP", "content": {
        "role": "model", "parts": [
            {"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
            {"text": "Let me see.", "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "weather", "args": {"city": "Ulm"}},
             "thoughtSignature": "c2ln"}]}}]},
}  # fmt: skip


def answered(wire: str, stream: bool = False) -> ChatResponse:
    """The response that a recorded-like answer of a wire makes."""
    with player() as played:
        text = json.dumps(ANSWERS[wire])
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        response = ask(MODELS[wire], stream)
    assert isinstance(response, ChatResponse)
    assert (response.text, len(response.tool_calls)) == ("Let me see.", 1)
    return response


def conversation(response: ChatResponse) -> list[Any]:
    """A conversation that goes on after a tool was called, as the README shows it."""
    (call,) = response.tool_calls
    assert (call.name, call.arguments) == ("weather", {"city": "Ulm"})
    return [
        {"role": "user", "content": "Weather in Ulm?"},
        response.message,
        {"role": "tool", "tool_call_id": call.id, "content": "grey"},
        {"role": "user", "content": "Thanks"},
    ]


@pytest.mark.parametrize("origin", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_answer_goes_back_unchanged_on_its_own_wire(origin: str, stream: bool) -> None:
    """response.message goes back with all that the provider wants back: signatures, items, ids."""
    body = sent(MODELS[origin], conversation(answered(origin, stream))).body
    answer = ANSWERS[origin]
    if origin == "openai":
        message = dict(answer["choices"][0]["message"])
        del message["reasoning_content"]  # OpenAI's own answers have none, and it takes none
        assert body["messages"][1] == message
        assert body["messages"][2]["tool_call_id"] == "call_1"
    elif origin == "openai-responses":
        assert body["input"][1:4] == answer["output"]
        assert body["input"][4]["call_id"] == "call_1"
    elif origin == "anthropic":
        assert body["messages"][1]["content"] == answer["content"]
        assert body["messages"][2]["content"][0]["tool_use_id"] == "toolu_1"
    else:
        assert body["contents"][1] == answer["candidates"][0]["content"]
        (result,) = body["contents"][2]["parts"]
        assert result["functionResponse"] == {"name": "weather", "response": {"result": "grey"}}


@pytest.mark.parametrize(("origin", "target"), [*itertools.permutations(MODELS, 2)])
def test_answer_goes_on_with_another_provider(origin: str, target: str) -> None:
    """Text, call and result of one provider's answer are understood by each other one."""
    response = answered(origin)
    (call,) = response.tool_calls
    body = sent(MODELS[target], conversation(response)).body
    shown = json.dumps(body)
    for foreign in ("hm", "encrypted", "srv_1", "c2ln", "rs_1", "redacted", "annotations"):
        assert foreign not in shown
    if target == "openai":
        assert [m["role"] for m in body["messages"]] == ["user", "assistant", "tool", "user"]
        assert body["messages"][1]["content"] == "Let me see."
        assert body["messages"][1]["tool_calls"][0]["id"] == call.id
        assert body["messages"][2] == {"role": "tool", "tool_call_id": call.id, "content": "grey"}
    elif target == "openai-responses":
        kinds = [item.get("type", item.get("role")) for item in body["input"]]
        assert kinds == ["user", "assistant", "function_call", "function_call_output", "user"]
        assert body["input"][2]["call_id"] == body["input"][3]["call_id"] == call.id
    elif target == "anthropic":
        text, use = body["messages"][1]["content"]
        assert text == {"type": "text", "text": "Let me see."}
        assert use == {"type": "tool_use", "id": call.id, "name": "weather",
                       "input": {"city": "Ulm"}}  # fmt: skip
        assert body["messages"][2]["content"][0]["tool_use_id"] == call.id
        assert set(call.id) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
        )
    else:
        assert body["contents"][1]["parts"] == [
            {"text": "Let me see."},
            {"functionCall": {"name": "weather", "args": {"city": "Ulm"}}},
        ]
        assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "weather"


def test_ids_of_googles_calls_differ_from_answer_to_answer() -> None:
    """A call that Google gave no id gets one that no other answer's call has."""
    first = answered("google").tool_calls[0].id
    ANSWERS["google"]["responseId"] = "r/2"
    try:
        assert answered("google").tool_calls[0].id != first
    finally:
        ANSWERS["google"]["responseId"] = "r/1"


@pytest.mark.parametrize("model", MODELS.values())
def test_empty_answer_in_a_conversation_is_left_out(model: str) -> None:
    """The message of a blocked, empty answer can stay in the conversation."""
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "model", "parts": []},
        {"role": "user", "content": "b"},
    ]
    body = sent(model, prompt).body
    assert len(body.get("messages") or body.get("contents") or body["input"]) == 2


def test_a_dict_is_one_part_and_text_urls_stay_text() -> None:
    """A single part needs no list; a URL that is no image is text."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a"}}
    assert sent("gpt-4o", image).body["messages"][0]["content"] == [image]
    for text in ("https://example.com/page", "see https://example.com/a.png", "data: none"):
        assert sent("gpt-4o", [text]).body["messages"][0]["content"] == text


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ([], "empty"),
        ([""], "empty"),
        (7, "7 \\(int\\)"),
        (None, "None"),
        ([7], "7 \\(int\\)"),
        ([{"role": "king", "content": "x"}], "'king' is not a message's role"),
        ([{"role": "user", "content": "x"}, "y"], "item 1 is 'y'"),
        ([{"role": "user"}], "no content"),
        ([{"role": "tool", "content": "x"}], "tool_call_id"),
        ([{"role": "assistant", "tool_calls": [7]}], "not a tool call"),
        ([b"????"], "begin with"),
        (["data:image/png;base64,%%%"], "data URL"),
        (["data:image/png,abc"], "not base64"),
        ([Path("/nowhere/a.png")], "/nowhere/a.png"),
    ],
)
def test_prompt_that_cannot_be(prompt: Any, says: str) -> None:
    """A prompt that means nothing is refused before the network, with what is wrong in words."""
    with pytest.raises(ModelProviderError, match=says):
        sent("gpt-4o", prompt)


def test_tool_result_that_is_no_json() -> None:
    """A tool's result that cannot be sent is an error that names the call."""
    prompt = [{"role": "user", "content": "?"},
              {"role": "tool", "tool_call_id": "call_9", "content": {"x": {1, 2}}}]  # fmt: skip
    with pytest.raises(ModelProviderError, match="call_9"):
        sent("gpt-4o", prompt)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tools": "weather"}, "tools= is a list"),
        ({"tools": [7]}, "a tool is a dict"),
        ({"tool_choice": 7}, "tool_choice="),
        ({"response_format": "json"}, "response_format="),
        ({"timeout": -1}, "timeout="),
        ({"temperature": float("nan")}, "'temperature' cannot be sent"),
        ({"metadata": object()}, "'metadata' cannot be sent"),
        ({"extra_headers": {"x": "a\nb"}}, "header 'x'"),
        ({"api_key": "sk-\nx"}, "look at the key"),
    ],
)
def test_argument_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    """An argument that cannot be sent is refused with its name."""
    with pytest.raises(ModelProviderError, match=says):
        sent("gpt-4o", **arguments)
