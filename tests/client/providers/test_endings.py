"""Endings of answers: refusals, cuts, tool calls, half characters, and bodies of other formats."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.api import models
from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse
from tests.corpus import Player, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")

MODELS = {
    "chat": "openai/m",
    "responses": "openai-responses/m",
    "anthropic": "anthropic/m",
    "google": "google/m",
}


def events(*each: object) -> str:
    """An event stream."""
    return "".join(f"data: {json.dumps(event)}\n\n" for event in each)


def read(played: Player, wire: str, body: str, stream: bool = False) -> ChatResponse:
    """The response parsed from a body."""
    played.load({"status": 200, "response_headers": {}, "response_body": body})
    got = ask(MODELS[wire], stream)
    assert isinstance(got, ChatResponse), got
    return got


def both(played: Player, wire: str, whole: object, *streamed: object) -> list[ChatResponse]:
    """The responses parsed from a whole body and from the equivalent stream."""
    end = "data: [DONE]\n\n" if wire == "chat" else ""
    return [
        read(played, wire, json.dumps(whole)),
        read(played, wire, events(*streamed) + end, stream=True),
    ]


def chat(message: Any, finish: str, key: str = "message") -> Any:
    """A chat completion, or a chunk of one."""
    return {"choices": [{"index": 0, key: message, "finish_reason": finish}]}


def test_refusal_on_chat_is_a_content_filter(played: Player) -> None:
    """A refusal that ends with `stop` is content_filter, whole and streamed."""
    message = {"content": None, "refusal": "I will not."}
    for word in ("stop", "", "length", "refusal", "anything"):
        for got in both(played, "chat", chat(message, word), chat(message, word, "delta")):
            expected = ("content_filter", "I will not.", "")
            assert (got.finish_reason, got.refusal, got.text) == expected, word


def test_refusal_on_responses_cut_at_the_limit_is_a_content_filter(played: Player) -> None:
    """A refusal that is cut off at the output limit is still a refusal."""
    part = {"type": "refusal", "refusal": "I will"}
    details = {"reason": "max_output_tokens"}
    body = {"object": "response", "status": "incomplete", "incomplete_details": details,
            "output": [{"type": "message", "content": [part]}]}  # fmt: skip
    for got in both(played, "responses", body, {"type": "response.incomplete", "response": body}):
        assert (got.finish_reason, got.refusal) == ("content_filter", "I will")


def test_only_the_last_item_of_a_truncated_response_is_cut(played: Player) -> None:
    """Only the last item of a truncated response is treated as cut off."""
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": ""}
    message = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
    details = {"reason": "max_output_tokens"}
    body = {"object": "response", "status": "incomplete", "incomplete_details": details,
            "output": [call, message]}  # fmt: skip
    for got in both(played, "responses", body, {"type": "response.incomplete", "response": body}):
        assert (got.finish_reason, got.tool_calls[0].arguments) == ("length", {})


def called(wire: str, arguments: Any, finish: str) -> tuple[object, Sequence[object]]:
    """An answer with one tool call, whole and as a stream, with the wire's finish reason."""
    if wire == "chat":
        function = {"name": "f", "arguments": arguments}
        call = {"index": 0, "id": "1", "type": "function", "function": function}
        message = {"content": None, "tool_calls": [call]}
        return chat(message, finish), [chat(message, finish, "delta")]
    if wire == "responses":
        item = {"type": "function_call", "call_id": "1", "name": "f", "arguments": arguments}
        done = {"object": "response", "status": "completed", "output": [item]}
        if finish == "length":
            details = {"reason": "max_output_tokens"}
            done |= {"status": "incomplete", "incomplete_details": details}
        return done, [{"type": f"response.{done['status']}", "response": done}]
    if wire == "anthropic":
        stop = {"length": "max_tokens", "stop": "tool_use"}[finish]
        block = {"type": "tool_use", "id": "1", "name": "f", "input": json.loads(arguments or "{}")}
        begun = {**block, "input": {}}
        return {"type": "message", "content": [block], "stop_reason": stop}, [
            {"type": "message_start", "message": {"content": []}},
            {"type": "content_block_start", "index": 0, "content_block": begun},
            {"type": "content_block_delta", "index": 0,
             "delta": {"type": "input_json_delta", "partial_json": arguments}},
            {"type": "message_delta", "delta": {"stop_reason": stop}},
            {"type": "message_stop"},
        ]  # fmt: skip
    function = {"name": "f", **({"args": json.loads(arguments)} if arguments else {})}
    reason = {"length": "MAX_TOKENS", "stop": "STOP"}[finish]
    parts = [{"functionCall": function}]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": reason}]}
    return body, [body]


@pytest.mark.parametrize("wire", MODELS)
def test_finish_reason_of_a_forced_tool_call_is_tool_calls(played: Player, wire: str) -> None:
    """A provider's `stop` after a forced tool call is `tool_calls` on every wire."""
    whole, streamed = called(wire, '{"a": 1}', "stop")
    for got in both(played, wire, whole, *streamed):
        assert got.finish_reason == "tool_calls"
        assert got.tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize("wire", MODELS)
def test_tool_call_cut_before_its_arguments(played: Player, wire: str) -> None:
    """A call cut before its arguments is not mistaken for a whole call without arguments."""
    whole, streamed = called(wire, "", "length")
    for got in both(played, wire, whole, *streamed):
        assert (got.finish_reason, got.tool_calls[0].arguments) == ("length", "")


@pytest.mark.parametrize("wire", MODELS)
def test_whole_tool_call_without_arguments(played: Player, wire: str) -> None:
    """A whole call without arguments has an empty dict."""
    whole, streamed = called(wire, "", "stop")
    for got in both(played, wire, whole, *streamed):
        assert (got.finish_reason, got.tool_calls[0].arguments) == ("tool_calls", {})


# --- half characters -----------------------------------------------------------------------------


def deltas(wire: str, pieces: Sequence[str]) -> list[object]:
    """The events of a stream with these pieces of text."""
    if wire == "chat":
        return [*(chat({"content": p}, "", "delta") for p in pieces), chat({}, "stop", "delta")]
    if wire == "responses":
        each = [{"type": "response.output_text.delta", "delta": piece} for piece in pieces]
        done = {"object": "response", "status": "completed", "output": []}
        return [*each, {"type": "response.completed", "response": done}]
    if wire == "anthropic":
        each = [{"type": "content_block_delta", "index": 0,
                 "delta": {"type": "text_delta", "text": piece}} for piece in pieces]  # fmt: skip
        return [*each, {"type": "message_stop"}]
    each = [{"candidates": [{"content": {"parts": [{"text": piece}]}}]} for piece in pieces]
    return [*each, {"candidates": [{"finishReason": "STOP"}]}]


@pytest.mark.parametrize("wire", MODELS)
def test_surrogates_in_two_chunks_are_joined(played: Player, wire: str) -> None:
    """Two surrogates join to an emoji, a lone one is U+FFFD, and the answer can be sent back."""
    body = events(*deltas(wire, ["a\ud83d", "\ude00b", "\ude00", "c\ud83d"]))
    got = read(played, wire, body + ("data: [DONE]\n\n" if wire == "chat" else ""), stream=True)
    assert got.text == "a\U0001f600b\ufffdc\ufffd"
    json.dumps([got.message, got.raw], ensure_ascii=False).encode()
    played.load({"status": 200, "response_headers": {}, "response_body": body})
    ask(MODELS[wire], True, [{"role": "user", "content": "hi"}, got.message])
    assert "\U0001f600b\ufffdc" in played.requests[0].content.decode()


@given(pieces=st.lists(st.text(st.sampled_from("a\ud83d\ude00"), max_size=3), max_size=5))
def test_chunks_add_up_to_the_text(pieces: list[str]) -> None:
    """The chunks of a stream add up to its text and all encode, however characters are split."""
    from ember.models.routing import built_in

    streamed = built_in("openai").stream("hi", "m", api_key="k")
    body = events(*deltas("chat", pieces)).encode()
    chunks = [chunk.text for chunk in streamed.read(200, {}, [body])]
    joined = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert "".join(chunks) == streamed.answer().text == joined


@pytest.mark.parametrize("stream", [False, True])
def test_lone_surrogate_in_tool_arguments_is_replaced(played: Player, stream: bool) -> None:
    """A lone surrogate in a tool's arguments, which are JSON in a string, is U+FFFD as well."""
    whole, streamed = called("chat", json.dumps({"a": "x\ud83d"}), "stop")
    got = both(played, "chat", whole, *streamed)[stream]
    assert got.tool_calls[0].arguments == {"a": "x\ufffd"}


ARGUMENTS = ['{"a": "x\ud83d', '\ude00y"}']
CALLED_IN_PIECES: dict[str, list[Any]] = {
    "chat": [
        chat({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f",
                                                                 "arguments": part}}]}, "", "delta")
        for part in ARGUMENTS
    ] + [chat({}, "tool_calls", "delta")],
    "responses": [
        {"type": "response.output_item.added", "item": {"type": "function_call", "id": "2",
                                                        "call_id": "1", "name": "f"}},
        *({"type": "response.function_call_arguments.delta", "item_id": "2", "delta": part}
          for part in ARGUMENTS),
        {"type": "response.completed", "response": {"status": "completed", "output": [
            {"type": "function_call", "call_id": "1", "name": "f",
             "arguments": "".join(ARGUMENTS)}]}},
    ],
    "anthropic": [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "tool_use", "id": "1", "name": "f", "input": {}}},
        *({"type": "content_block_delta", "index": 0,
           "delta": {"type": "input_json_delta", "partial_json": part}} for part in ARGUMENTS),
        {"type": "message_stop"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("wire", CALLED_IN_PIECES)
def test_surrogates_in_two_pieces_of_tool_arguments_are_joined(played: Player, wire: str) -> None:
    """Surrogates split over pieces of a call's arguments join too, and all pieces encode."""
    body = events(*CALLED_IN_PIECES[wire]) + ("data: [DONE]\n\n" if wire == "chat" else "")
    played.load({"status": 200, "response_headers": {}, "response_body": body})
    with models.stream(MODELS[wire], "hi", api_key="k") as streamed:
        pieces = [chunk.tool_call.arguments for chunk in streamed if chunk.tool_call]
    assert "".join(pieces) == '{"a": "x\U0001f600y"}'
    assert streamed.response.tool_calls[0].arguments == {"a": "x\U0001f600y"}
    json.dumps([pieces, streamed.response.message, streamed.response.raw],
               ensure_ascii=False).encode()  # fmt: skip


@pytest.mark.parametrize("wire", ["anthropic", "google"])
def test_tool_arguments_with_a_lone_surrogate_are_sent_on_every_wire(
    played: Player, wire: str
) -> None:
    """Arguments with an escaped lone surrogate can be sent on wires where they are objects."""
    whole, _ = called("chat", json.dumps({"a": "x\ud83d"}), "stop")
    got = read(played, "chat", json.dumps(whole))
    result = {"role": "tool", "tool_call_id": got.tool_calls[0].id, "content": "done"}
    played.load({"status": 400, "response_headers": {}, "response_body": ""})
    prompt = [{"role": "user", "content": "hi"}, got.message, result]
    with pytest.raises(ProviderAPIError):  # the request was sent
        models(MODELS[wire], prompt, api_key="k")


def test_stream_of_only_done_is_incomplete(played: Player) -> None:
    """A chat stream with only [DONE] is an incomplete answer, not an empty one."""
    played.load({"status": 200, "response_headers": {}, "response_body": "data: [DONE]\n\n"})
    error = ask("openai/m", stream=True)
    assert isinstance(error, ProviderAPIError)
    assert error.error_type == "incomplete_stream"


def test_lone_surrogate_in_a_whole_answer_is_replaced(played: Player) -> None:
    """A lone surrogate in an answer that is not streamed is U+FFFD, in `raw` too."""
    got = read(played, "chat", json.dumps(chat({"content": "x\ude00"}, "stop")))
    assert (got.text, got.raw["choices"][0]["message"]["content"]) == ("x\ufffd", "x\ufffd")


# --- parts to send back --------------------------------------------------------------------------


def test_streamed_compaction_is_kept(played: Player) -> None:
    """A compaction that streams as a delta is in the message as in an answer not streamed."""
    delta = {"type": "compaction_delta", "content": "SUMMARY", "encrypted_content": "ENC"}
    block = {"type": "compaction", "content": None}
    body = events(
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    )
    got = read(played, "anthropic", body, stream=True)
    compaction = {"type": "compaction", "content": "SUMMARY", "encrypted_content": "ENC"}
    assert got.message["content"] == [compaction]


# --- bodies of other formats ---------------------------------------------------------------------

STRANGE = {
    "brackets": "[[[[",
    "brackets that close": "[[]]",
    "a number": "5",
    "null": "null",
    "a string": '"hi"',
    "HTML": "<html>hi</html>",
    "another object": '{"ok": true}',
    "a list of numbers": "[1, 2]",
    "cut JSON": '{"id": "x", "cho',
    "nested deeply": "[" * 5000,
    "no choices": '{"choices": []}',
    "a choice of nothing": '{"choices": [{}]}',
    "a choice that says nothing": '{"choices": [{"index": 0}]}',
    "a message of nothing": '{"type": "message"}',
    "no candidates": '{"candidates": []}',
    "a candidate of nothing": '{"candidates": [{}]}',
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("wire", MODELS)
def test_body_of_another_format_is_a_bad_response(
    played: Player, wire: str, body: str, stream: bool
) -> None:
    """A body of another format is bad_response and not retryable, streamed or not."""
    played.load({"status": 200, "response_headers": {}, "response_body": body})
    error = ask(MODELS[wire], stream)
    assert isinstance(error, ProviderAPIError), error
    assert (error.error_type, error.retryable) == ("bad_response", False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("other", MODELS)
@pytest.mark.parametrize("wire", MODELS)
def test_answer_of_another_wire_is_a_bad_response(
    played: Player, wire: str, other: str, stream: bool
) -> None:
    """An answer of another wire, whole or as events, is bad_response, streamed or not."""
    if wire == other:
        return
    used = {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}
    whole, streamed = called(other, '{"a": 1}', "stop")
    whole = {**cast("dict[str, Any]", whole), "usage": used}
    last = {**cast("dict[str, Any]", streamed[-1]), "usage": used}
    for body in (json.dumps(whole), events(*streamed[:-1], last)):
        played.load({"status": 200, "response_headers": {}, "response_body": body})
        error = ask(MODELS[wire], stream)
        assert isinstance(error, ProviderAPIError), error
        assert (error.error_type, error.retryable) == ("bad_response", False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", [None, {"code": "server_error", "message": "broke"}])
def test_failed_status_on_responses_is_an_error(
    played: Player, reason: dict[str, str] | None, stream: bool
) -> None:
    """A failed response is an error, whole and streamed, even if it gives no reason."""
    part = {"type": "output_text", "text": "hi"}
    whole = {"object": "response", "status": "failed", "error": reason,
             "output": [{"type": "message", "content": [part]}]}  # fmt: skip
    body = events({"type": "response.failed", "response": whole}) if stream else json.dumps(whole)
    played.load({"status": 200, "response_headers": {}, "response_body": body})
    error = ask("openai-responses/m", stream)
    assert isinstance(error, ProviderAPIError), error
    assert error.error_type == ("server" if reason else "unknown")
    assert error.context["partial_text"] == "hi"


@pytest.mark.parametrize("stream", [False, True])
def test_status_204_is_a_bad_response(played: Player, stream: bool) -> None:
    """A 204, which never has a body, is bad_response, not an incomplete answer."""
    played.load({"status": 204, "response_headers": {}, "response_body": ""})
    error = ask("openai/m", stream)
    assert isinstance(error, ProviderAPIError)
    assert (error.error_type, error.retryable) == ("bad_response", False)


def test_surrogates_in_an_async_stream_are_joined(played: Player) -> None:
    """The async stream joins surrogates like the sync one."""
    body = events(*deltas("chat", ["\ud83d", "\ude00"])) + "data: [DONE]\n\n"
    played.load({"status": 200, "response_headers": {}, "response_body": body})

    async def read_all() -> list[str]:
        return [chunk.text async for chunk in models.astream("openai/m", "hi", api_key="k")]

    assert asyncio.run(read_all()) == ["\U0001f600"]
