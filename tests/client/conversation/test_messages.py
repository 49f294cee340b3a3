"""Prompts in all forms, and conversations continued with another provider."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    """The response parsed from a wire's sample answer."""
    with player() as played:
        text = json.dumps(ANSWERS[wire])
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        response = ask(MODELS[wire], stream)
    assert isinstance(response, ChatResponse)
    assert (response.text, len(response.tool_calls)) == ("Let me see.", 1)
    return response


def conversation(response: ChatResponse) -> list[Any]:
    """A conversation continued after a tool call, as in the README."""
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
def test_answer_is_sent_back_unchanged_on_its_own_wire(origin: str, stream: bool) -> None:
    """response.message keeps all that the provider needs back: signatures, items, ids."""
    body = sent(MODELS[origin], conversation(answered(origin, stream))).body
    answer = ANSWERS[origin]
    if origin == "openai":
        message = dict(answer["choices"][0]["message"])
        del message["reasoning_content"]  # OpenAI neither sends nor accepts it
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
def test_answer_is_translated_for_another_provider(origin: str, target: str) -> None:
    """Text, call and result of a provider's answer are translated for every other one."""
    response = answered(origin)
    (call,) = response.tool_calls
    body = sent(MODELS[target], conversation(response)).body
    as_json = json.dumps(body)
    for foreign in ("hm", "encrypted", "srv_1", "c2ln", "rs_1", "redacted", "annotations"):
        assert foreign not in as_json
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
            {
                "functionCall": {"name": "weather", "args": {"city": "Ulm"}},
                "thoughtSignature": "skip_thought_signature_validator",
            },
        ]
        assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "weather"


def test_generated_ids_of_google_calls_differ_between_answers() -> None:
    """A call without an id from Google gets one that differs between answers."""
    first = answered("google").tool_calls[0].id
    ANSWERS["google"]["responseId"] = "r/2"
    try:
        assert answered("google").tool_calls[0].id != first
    finally:
        ANSWERS["google"]["responseId"] = "r/1"


@pytest.mark.parametrize("model", MODELS.values())
def test_empty_answer_in_a_conversation_is_omitted(model: str) -> None:
    """The message of a blocked, empty answer can stay in the conversation."""
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "model", "parts": []},
        {"role": "user", "content": "b"},
    ]
    body = sent(model, prompt).body
    assert len(body.get("messages") or body.get("contents") or body["input"]) == 2


def reply(model: str, answer: dict[str, Any], **params: Any) -> ChatResponse:
    """The response parsed from this body."""
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": json.dumps(answer)})
        response = ask(model, **params)
    assert isinstance(response, ChatResponse)
    return response


def chat_answer(call: dict[str, Any]) -> dict[str, Any]:
    """A chat completion with one tool call."""
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    return {"id": "x", "model": "m", "choices": [choice]}


CUSTOM = {"id": "call_1", "type": "custom", "custom": {"name": "code", "input": "print(1)"}}


@pytest.mark.parametrize("stream", [False, True])
def test_chat_custom_tool_calls_are_sent_back(stream: bool) -> None:
    """A custom tool's call, whose input is free text, is sent back unchanged."""
    with player() as played:
        answer: Any = chat_answer(CUSTOM)
        if stream:
            (choice,) = answer["choices"]
            choice["delta"] = choice.pop("message")
            choice["delta"]["tool_calls"] = [CUSTOM | {"index": 0}]
        body = f"data: {json.dumps(answer)}\n\ndata: [DONE]\n\n" if stream else json.dumps(answer)
        played.load({"status": 200, "response_headers": {}, "response_body": body})
        response = ask("gpt-5.5", stream)
    assert isinstance(response, ChatResponse)
    (call,) = response.tool_calls
    assert (call.name, call.arguments) == ("code", "print(1)")
    prompt = [response.message, {"role": "tool", "tool_call_id": call.id, "content": "1"}]
    asked, result = sent("gpt-5.5", prompt).body["messages"]
    assert asked["tool_calls"] == [CUSTOM]
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "1"}


def test_responses_custom_tool_calls_are_sent_back() -> None:
    """A custom tool's result has its own kind of item; on other wires the call is kept."""
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "code",
            "input": "print(1)"}  # fmt: skip
    response = reply("openai-responses/gpt-5.5", {"object": "response", "output": [item]})
    prompt = [response.message, {"role": "tool", "tool_call_id": "call_1", "content": "1"}]
    assert sent("openai-responses/gpt-5.5", prompt).body["input"] == [
        item,
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "1"},
    ]
    asked, _ = sent("gpt-5.5", prompt).body["messages"]
    assert asked["tool_calls"][0]["id"] == "call_1"


def test_signatures_of_googles_compatible_endpoint_are_sent_back() -> None:
    """Gemini behind chat completions gets its signatures back; OpenAI gets none."""
    extra = {"google": {"thought_signature": "c2ln"}}
    function = {"name": "weather", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": function, "extra_content": extra}
    base = {"base_url": "https://generativelanguage.googleapis.com/v1beta/openai"}
    response = reply("openai/gemini-3.8-flash", chat_answer(call), **base)
    assert sent("openai/gemini-3.8-flash", [response.message], **base).body["messages"][0][
        "tool_calls"
    ] == [call]
    assert "c2ln" not in json.dumps(sent("gpt-4o", [response.message]).body)


def test_anthropic_citations_and_callers_are_sent_back() -> None:
    """A search's citations and a call's caller are sent back on Anthropic's wire only."""
    cited = {"type": "text", "text": "Ulm.", "citations": [{"encrypted_index": "e"}]}
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {},
           "caller": {"type": "direct"}}  # fmt: skip
    response = reply("claude-opus-5", {"type": "message", "content": [cited, use]})
    prompt = [response.message, {"role": "tool", "tool_call_id": "toolu_1", "content": "grey"}]
    asked, result = sent("claude-opus-5", prompt).body["messages"]
    assert asked["content"] == [cited, use]
    assert result["content"][0]["tool_use_id"] == "toolu_1"
    asked, result = sent("gpt-4o", prompt).body["messages"]
    assert asked["content"] == "Ulm."
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}


def test_refusals_and_approval_requests_are_sent_back() -> None:
    """An answer that is only a refusal or approval request can be sent back on any wire."""
    approval = {"type": "mcp_approval_request", "id": "m", "name": "x", "arguments": "{}"}
    response = reply("openai-responses/gpt-5.5", {"object": "response", "output": [approval]})
    prompt = [response.message, {"role": "user", "content": "n"}]
    assert sent("openai-responses/gpt-5.5", prompt).body["input"][0] == approval
    assert len(sent("claude-opus-5", prompt).body["messages"]) == 1
    message = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    response = reply("openai-responses/gpt-5.5", {"object": "response", "output": [message]})
    for model in ("claude-opus-5", "gpt-4o"):
        first_message = sent(model, [response.message, *prompt[1:]]).body["messages"][0]
        assert first_message == {"role": "assistant", "content": "No."}


def test_tool_result_in_text_parts_is_sent_as_text() -> None:
    """A result in text parts, as in Anthropic's and OpenAI's APIs, is sent as its text."""
    parts = [{"type": "text", "text": "grey, "}, {"type": "text", "text": "12 degrees"}]
    prompt = [{"role": "tool", "tool_call_id": "c", "content": parts}]
    assert sent("gpt-4o", prompt).body["messages"][0]["content"] == parts
    assert sent("o3-pro", prompt).body["input"][0]["output"] == "grey, 12 degrees"
    block = sent("claude-opus-5", prompt).body["messages"][0]["content"][0]
    assert block["content"] == parts
    part = sent("gemini-3.8-flash", prompt).body["contents"][0]["parts"][0]
    assert part["functionResponse"]["response"] == {"result": "grey, 12 degrees"}
    data = [{"type": "text"}, {"sky": "grey"}]
    prompt = [{"role": "tool", "tool_call_id": "c", "content": data}]
    assert json.loads(sent("gpt-4o", prompt).body["messages"][0]["content"]) == data


def test_tool_arguments_are_sent_back_as_written() -> None:
    """A call's arguments are sent back as the model wrote them, with their numbers and blanks."""
    function = {"name": "f", "arguments": '{"a":1e2,"b": 1.10}'}
    call = {"id": "c", "type": "function", "function": function}
    message = reply("gpt-4o", chat_answer(call)).message
    (turn,) = sent("gpt-4o", [message]).body["messages"]
    assert turn["tool_calls"] == [call]
    (block,) = sent("claude-opus-5", [message]).body["messages"][0]["content"]
    assert block["input"] == {"a": 100.0, "b": 1.1}


def test_responses_api_items_are_a_valid_prompt() -> None:
    """A list of such items is sent to that API unchanged, and translated for other wires."""
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "id": "m", "role": "assistant", "phase": "commentary",
         "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"city":"Ulm"}'},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "grey"},
        {"type": "function_call_output", "call_id": "c2",
         "output": [{"type": "input_image", "image_url": "https://example.com/a.png"}]},
        {"role": "assistant", "content": "Grey.", "phase": "final_answer"},
        {"type": "item_reference", "id": "i"},
    ]  # fmt: skip
    assert sent("openai-responses/o3-pro", items).body["input"] == items
    assert sent("openai-responses/o3-pro", items[5:6]).body["input"] == items[5:6]
    user, asked, results, grey = sent("claude-opus-5", items).body["messages"]
    assert (user["content"], grey["content"]) == ("Weather?", "Grey.")
    kinds = [block["type"] for block in asked["content"]]
    assert kinds == ["text", "tool_use", "tool_use"]
    assert asked["content"][1]["input"] == {"city": "Ulm"}
    assert [block["tool_use_id"] for block in results["content"]] == ["c1", "c2"]
    roles = [turn["role"] for turn in sent("gpt-4o", items).body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user", "assistant"]  # with the image
    assert sent("gemini-3.8-flash", items).body["contents"][2]["parts"][0] == {
        "functionResponse": {"name": "f", "response": {"result": "grey"}, "id": "c1"}
    }


def test_parts_with_provider_specific_keys_are_sent_unchanged() -> None:
    """An image's cache marker and media with a function's response are not lost."""
    marked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"},
              "cache_control": {"type": "ephemeral"}}  # fmt: skip
    body = sent("openrouter/m", [{"role": "user", "content": ["?", marked]}]).body
    assert body["messages"][0]["content"][1] == marked
    response: dict[str, Any] = {"name": "f", "response": {}, "parts": [{"inlineData": {}}]}
    turn = {"role": "user", "parts": [{"functionResponse": response}]}
    assert sent("gemini-3.8-flash", [turn]).body["contents"] == [turn]
    del response["parts"]
    assert sent("gemini-3.8-flash", [turn]).body["contents"] == [turn]


def test_system_message_within_a_conversation() -> None:
    """It keeps its place for Claude models that support that, and moves to the top for others."""
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    prompt = [*turns, {"role": "system", "content": "From now on in French."}]
    body = sent("claude-opus-4-8", prompt).body
    assert body["system"] == "system"
    assert body["messages"] == prompt[1:]
    body = sent("claude-opus-5-5", prompt).body
    assert [block["text"] for block in body["system"]] == ["system", "From now on in French."]
    assert body["messages"] == prompt[1:-1]


def test_user_text_beside_a_tool_result_follows_it() -> None:
    """The user's text in a turn with a tool's result (Anthropic's form) follows the result."""
    turn = [{"type": "tool_result", "tool_use_id": "c", "content": "grey"},
            {"type": "text", "text": "And Köln?"}]  # fmt: skip
    prompt = [{"role": "user", "content": turn}]
    result, words = sent("o3-pro", prompt).body["input"]
    assert result["type"] == "function_call_output"
    assert words == {"role": "user", "content": "And Köln?"}


def test_empty_text_is_omitted_for_anthropic() -> None:
    """Anthropic gets no block for an empty system message or an empty text with calls."""
    call = {"id": "c", "name": "weather", "arguments": {}}
    turns = [{"role": "user", "content": "?"},
             {"role": "assistant", "content": "", "tool_calls": [call]}]  # fmt: skip
    body = sent("claude-opus-5", turns, system="").body
    assert "system" not in body
    (block,) = body["messages"][1]["content"]
    assert block["type"] == "tool_use"


def test_single_dict_is_one_part_and_url_of_no_image_is_text() -> None:
    """A single part needs no list; a URL that is not an image is text."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a"}}
    assert sent("gpt-4o", image).body["messages"][0]["content"] == [image]
    for text in (
        "https://example.com/page",
        "see https://example.com/a.png",
        "data: none",
        "data: 1, 2, 3",
        "data:\n1,2",
        "data:,",
    ):
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
        ([{"role": "tool", "content": "x"}], "tool_call_id"),
        ([{"role": "tool", "tool_call_id": ["c"], "content": "x"}], "which call it answers"),
        ([{"role": "assistant", "tool_calls": [{"id": 7, "name": "f"}]}], "'id' must be a str"),
        ([{"role": "assistant", "tool_calls": [7]}], "not a tool call"),
        ([{"role": "assistant", "tool_calls": 7}], "its 'tool_calls' must be a Sequence, not 7"),
        ([{"role": "assistant", "tool_calls": [{"function": 7}]}], "not a tool call"),
        ([{"text": None}], "its 'text' must be a str, not None"),
        ([{"type": "text", "text": 7}], "its 'text' must be a str, not 7"),
        ([{"type": "image_url", "image_url": 7}], "'image_url' must be a Mapping, not 7"),
        ([{"type": "image_url", "image_url": {"uri": "x"}}], "its 'url' must be a str"),
        ([{"type": "tool_use", "name": "f"}], "its 'id' must be a str"),
        ([{"type": "tool_result", "content": "x"}], "its 'tool_use_id' must be a str"),
        ([{"functionCall": 7}], "its 'functionCall' must be a Mapping"),
        ([{"functionCall": {"args": {}}}], "its 'name' must be a str"),
        ([{"functionResponse": {"name": "f"}}], "its 'response' must be a Mapping"),
        ([{"role": "assistant", "content": [{"type": "function_call"}]}], "its 'name' must be"),
        ([{"role": "assistant", "content": [{"type": "message", "content": 7}]}], "'content' must"),
        ([b"????"], "begin with"),
        (["data:image/png;base64,%%%"], "data URL"),
        (["data:image/png,abc"], "not base64"),
        ([Path("/nowhere/a.png")], "/nowhere/a.png"),
        (["data:text/csv;base64,YQ=="], "cannot take bytes of type text/csv: pass its text"),
        (["https://example.com/a.mp4"], "cannot take https://example.com/a.mp4 of type video/mp4"),
    ],
)
def test_prompt_without_content_is_refused(prompt: Any, says: str) -> None:
    """A prompt without content is refused before anything is sent, with the reason."""
    with pytest.raises(ModelProviderError, match=says):
        sent("gpt-4o", prompt)


ROLES = st.sampled_from(["user", "assistant", "tool", "system", "model", "king"])
KINDS = st.sampled_from(
    [
        "text",
        "image_url",
        "tool_use",
        "tool_result",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "message",
        "reasoning",
        "thinking",
        "refusal",
        "compaction",
        "document",
        "image",
        "file",
        "input_file",
        "input_image",
        "input_audio",
        "video_url",
        "document_url",
    ]
)
KEYS = st.sampled_from(
    [
        "content",
        "text",
        "tool_calls",
        "id",
        "name",
        "arguments",
        "function",
        "custom",
        "functionCall",
        "functionResponse",
        "parts",
        "response",
        "image_url",
        "url",
        "tool_use_id",
        "tool_call_id",
        "call_id",
        "output",
        "citations",
        "extra_content",
        "input",
        "source",
        "data",
        "mimeType",
        "file",
        "file_data",
        "file_url",
        "inlineData",
        "fileData",
        "function_call",
        "function_response",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "data:", b"x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.builds(
            lambda more, named: more | named,
            st.dictionaries(KEYS, inner, max_size=4),
            st.fixed_dictionaries({}, optional={"role": ROLES, "type": KINDS}),
        )
    ),
    max_leaves=12,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "system",
            "stop",
            "tools",
            "tool_choice",
            "response_format",
            "reasoning_effort",
            "reasoning",
            "text",
            "thinking",
            "output_config",
            "generationConfig",
            "thinkingConfig",
            "timeout",
            "base_url",
            "extra_headers",
            "api_key",
            "parallel_tool_calls",
        ]
    ),
    ANYTHING,
    max_size=3,
)


@settings(max_examples=max(200, settings().max_examples), deadline=None)
@given(
    prompt=ANYTHING | st.just("hi"), params=PARAMETERS, model=st.sampled_from([*MODELS.values()])
)
def test_any_prompt_is_sent_or_raises_ember_error(
    prompt: Any, params: dict[str, Any], model: str
) -> None:
    """Any prompt and arguments, however malformed, are sent or raise an EmberError."""
    base_url = params.pop("base_url", "https://x.test/v1")
    with contextlib.suppress(ModelProviderError):
        sent(model, prompt, base_url=base_url, **params)


def test_tool_result_that_is_not_json_names_the_call() -> None:
    """A tool's result that cannot be sent is an error that names the call."""
    prompt = [{"role": "user", "content": "?"},
              {"role": "tool", "tool_call_id": "call_9", "content": {"x": {1, 2}}}]  # fmt: skip
    with pytest.raises(ModelProviderError, match="call_9"):
        sent("gpt-4o", prompt)
