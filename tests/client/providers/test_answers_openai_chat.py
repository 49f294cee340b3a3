"""Chat completions that servers were seen to send but that were not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ember.exceptions import ProviderAPIError
from tests.client.providers.answers import DONE, answer, result
from tests.corpus import Player

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def text_chunk(text: object, finish: str | None = None, **more: Any) -> Any:
    """A chunk of a chat stream."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


def chat(message: Any, finish: str | None = "stop", **more: Any) -> Any:
    """A whole chat completion."""
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "model": "m", "choices": [choice], **more}


def used(prompt: int, completion: int, **more: Any) -> Any:
    """The usage of a chat completion."""
    return {"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion, **more}  # fmt: skip


def tool(index: int | None = None, **call: Any) -> Any:
    """A piece of a tool call."""
    function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    delta = {**call, "function": function}
    return delta if index is None else {"index": index, **delta}


def calls(*deltas: Any, finish: str | None = None) -> Any:
    """A chunk with pieces of tool calls."""
    return {"choices": [{"index": 0, "delta": {"tool_calls": [*deltas]}, "finish_reason": finish}]}


def test_choice_without_delta_is_ignored(played: Player) -> None:
    """Choices without a delta, as Azure's asynchronous filter sends, are ignored."""
    odd = {"choices": [{"index": 0, "content_filter_offsets": {}, "finish_reason": None}], "id": ""}
    none = {"choices": [{"index": 0, "delta": None, "finish_reason": None}]}
    first = {"choices": [], "model": "", "id": "", "prompt_filter_results": []}
    got = answer(
        played,
        "openai/m",
        first,
        text_chunk("a"),
        odd,
        none,
        text_chunk("b", "stop"),
        odd,
        end=DONE,
    )
    assert (got.text, got.finish_reason) == ("ab", "stop")


def test_tool_calls_in_the_last_chunk_are_read(played: Player) -> None:
    """A call that arrives with the finish reason counts."""
    whole = tool(0, id="c", name="f", arguments='{"a":1}')
    got = answer(played, "openai/m", calls(whole, finish="tool_calls"), end=DONE)
    assert [(c.id, c.name, c.arguments) for c in got.tool_calls] == [("c", "f", {"a": 1})]
    assert got.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "chunks",
    [
        # With indexes: in order, interleaved, and out of order.
        [[tool(0, id="a", name="f", arguments='{"x":')], [tool(0, arguments="1}")],
         [tool(1, id="b", name="g", arguments="{}")]],
        [[tool(0, id="a", name="f", arguments=""), tool(1, id="b", name="g", arguments="{")],
         [tool(1, arguments="}")], [tool(0, arguments='{"x":1}')]],
        [[tool(1, id="b", name="g", arguments="{}")],
         [tool(0, id="a", name="f", arguments='{"x":1}')]],
        # Without: whole calls at once (Mistral), one by one, in pieces.
        [[tool(id="a", name="f", arguments='{"x":1}'), tool(id="b", name="g", arguments="{}")]],
        [[tool(id="a", name="f", arguments='{"x":1}')], [tool(id="b", name="g", arguments="{}")]],
        [[tool(id="a", name="f", arguments='{"x"')], [tool(arguments=":1}")],
         [tool(id="b", name="g", arguments="{")], [tool(id="b", name="g", arguments="}")]],
        # All numbered 0, as Google's compatible endpoint does; arguments as an object.
        [[tool(0, id="a", name="f", arguments='{"x":1}')],
         [tool(0, id="b", name="g", arguments="{}")]],
        [[tool(0, id="a", name="f", arguments={"x": 1}),
          tool(1, id="b", name="g", arguments=None)]],
    ],
)  # fmt: skip
def test_tool_calls_read_the_same_however_they_are_split(
    played: Player, chunks: list[list[Any]]
) -> None:
    """Two calls are read as the same two calls, however they are split and numbered."""
    events = [calls(*deltas) for deltas in chunks]
    got = answer(played, "openai/m", *events, text_chunk("", "tool_calls"), end=DONE)
    found = [(c.id, c.name, c.arguments) for c in got.tool_calls]
    assert found == [("a", "f", {"x": 1}), ("b", "g", {})]


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("second", ["f", "g"])
def test_calls_without_ids_are_separate_calls(
    played: Player, index: int | None, second: str
) -> None:
    """Two calls without ids are two calls, with no index or all with index 0."""
    got = answer(played, "openai/m", calls(tool(index, id="", name="f", arguments="{}")),
                 calls(tool(index, id="", name=second, arguments='{"x":1}')), end=DONE)  # fmt: skip
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("f", {}), (second, {"x": 1})]


def test_pieces_that_repeat_their_name_are_one_call(played: Player) -> None:
    """Pieces of one call that repeat its name, and no id, are one call."""
    pieces = ('{"x"', ":1}", "")
    events = [calls(tool(0, name="f", arguments=piece)) for piece in pieces]
    got = answer(played, "openai/m", *events, end=DONE)
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("f", {"x": 1})]


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": ""},
                                      {"name": "f", "arguments": None}])  # fmt: skip
def test_call_without_arguments(played: Player, function: dict[str, Any]) -> None:
    """A call without arguments has an empty dict, whole and streamed, on every wire."""
    call = {"id": "c1", "type": "function", "function": function}
    whole = answer(played, "openai/m", chat({"content": None, "tool_calls": [call]}, "tool_calls"))
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}
    streamed = answer(played, "openai/m", chunk, text_chunk("", "tool_calls"), end=DONE)
    item = {"type": "function_call", "call_id": "c1", **function}
    response = {"object": "response", "status": "completed", "output": [item]}
    block = {"type": "tool_use", "id": "c1", "name": "f"}
    message = {"type": "message", "content": [block], "stop_reason": "tool_use"}
    others = (
        answer(played, "openai-responses/m", response),
        answer(played, "anthropic/m", message),
    )
    for got in (whole, streamed, *others):
        assert [(c.id, c.name, c.arguments) for c in got.tool_calls] == [("c1", "f", {})]


def test_custom_tool(played: Player) -> None:
    """A custom tool's input is text, whole and streamed."""
    custom = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    got = answer(played, "openai/m", chat({"content": None, "tool_calls": [custom]}, "tool_calls"))
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("sql", "SELECT 1")]
    pieces = [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "SEL"}},
              {"index": 0, "custom": {"input": "ECT 1"}}]  # fmt: skip
    got = answer(
        played, "openai/m", *[calls(p) for p in pieces], text_chunk("", "tool_calls"), end=DONE
    )
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("sql", "SELECT 1")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"city": "Köln"}, '{"city": "Köln"}'),  # Cloudflare's structured output
        ([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "x"}, "b"], "ab"),
        ([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}], "a"),
        (None, ""),
        ([], ""),
    ],
)
def test_content_that_is_not_a_string_is_read_as_its_text(
    played: Player, content: Any, text: str
) -> None:
    """Objects, lists and null as content are read as their text, whole and streamed."""
    assert answer(played, "openai/m", chat({"content": content})).text == text
    assert (
        answer(played, "openai/m", text_chunk(content), text_chunk("", "stop"), end=DONE).text
        == text
    )


def test_delta_takes_precedence_over_the_message(played: Player) -> None:
    """The delta counts if each chunk also repeats the whole message, as Perplexity's do."""

    def chunk(new: str, whole: str) -> Any:
        new_chunk = text_chunk(new)
        new_chunk["choices"][0]["message"] = {"role": "assistant", "content": whole}
        return new_chunk

    got = answer(
        played, "perplexity/sonar", chunk("a", "a"), chunk("b", "ab"), text_chunk("", "stop")
    )
    assert got.text == "ab"


def test_whole_answer_in_place_of_a_stream_is_one_chunk(played: Player) -> None:
    """A whole answer in place of a stream is one chunk; so is one inside an event."""
    whole = chat({"role": "assistant", "content": "hi"}, usage=used(3, 2))
    got = result(played, "openai/m", json.dumps(whole), True)
    assert (got.text, got.finish_reason, got.usage.total_tokens) == ("hi", "stop", 5)
    assert answer(played, "openai/m", whole, end=DONE).text == "hi"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_stream_in_answer_to_a_plain_call_is_read(played: Player, kind: str) -> None:
    """An event stream in answer to a plain call is read, whatever its content type."""
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in (text_chunk("a"), text_chunk("b", "stop")))
    headers = {"content-type": kind} if kind else {}
    assert result(played, "openai/m", body, **headers).text == "ab"
    assert result(played, "openai/m", body, True, **headers).text == "ab"


def test_choice_0_is_the_answer_in_any_order(played: Player) -> None:
    """With n > 1 choice 0 is the answer, whatever its position, whole and streamed."""
    choices = [{"index": 1, "message": {"content": "no"}, "finish_reason": "length"},
               {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}]  # fmt: skip
    got = answer(played, "openai/m", {"choices": choices})
    assert (got.text, got.finish_reason) == ("yes", "stop")

    def chunk(index: int, text: str, finish: str | None = None) -> Any:
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}

    events = [chunk(1, "n"), chunk(0, "y"), chunk(2, "?", "stop"), chunk(1, "o", "length"),
              chunk(0, "es"), chunk(0, "", "stop")]  # fmt: skip
    got = answer(played, "openai/m", *events, end=DONE)
    assert (got.text, got.finish_reason) == ("yes", "stop")


def test_repeated_choice_in_a_chunk_is_read(played: Player) -> None:
    """Two pieces of the same choice in one chunk are both yielded."""
    double = {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}
    assert answer(played, "openai/m", double, text_chunk("c", "stop"), end=DONE).text == "abc"


def test_text_after_a_finish_reason_is_read(played: Player) -> None:
    """Text after a finish reason counts, and a second finish reason changes nothing."""
    got = answer(
        played,
        "openai/m",
        text_chunk("a", "stop"),
        text_chunk("b"),
        text_chunk("", "stop"),
        text_chunk(""),
    )
    assert (got.text, got.finish_reason) == ("ab", "stop")


@pytest.mark.parametrize("word", ["", None])
def test_empty_finish_reason_is_none(played: Player, word: str | None) -> None:
    """No finish reason, or an empty one, is None; [DONE] still ends the stream."""
    assert answer(played, "openai/m", chat({"content": "a"}, word)).finish_reason is None
    got = answer(played, "openai/m", text_chunk("a", word), end=DONE)
    assert (got.text, got.finish_reason) == ("a", None)
    body = f"data: {json.dumps(text_chunk('a', word))}\n\n"
    assert result(played, "openai/m", body, True).error_type == "incomplete_stream"


@pytest.mark.parametrize(
    ("word", "finish"),
    [("eos", "stop"), ("eos_token", "stop"), ("model_length", "length"),
     ("model_context_window_exceeded", "length"), ("function_call", "tool_calls"),
     ("sensitive", "content_filter"), ("error", "error"), ("network_error", "error"),
     ("STOP", "stop"), ("unheard_of", "other")],
)  # fmt: skip
def test_finish_reasons_are_mapped(played: Player, word: str, finish: str) -> None:
    """Each server's finish reason is mapped to one of Ember's; unknown ones are `other`."""
    assert answer(played, "openai/m", chat({"content": "a"}, word)).finish_reason == finish


def test_completion_without_choices_is_an_empty_answer(played: Player) -> None:
    """A completion without choices is an empty answer, and its usage is counted."""
    body = {"object": "chat.completion", "choices": [], "model": "m-1", "usage": used(9, 4)}
    got = answer(played, "openai/m", body)
    assert (got.text, got.finish_reason, got.model) == ("", None, "m-1")
    assert got.usage.total_tokens == 13
    assert result(played, "openai/m", json.dumps({"choices": []})).error_type == "bad_response"


def test_refusal_and_reasoning_are_read_from_every_field(played: Player) -> None:
    """Refusals and reasoning are read from each known field, whole and in pieces."""
    for key in ("reasoning", "reasoning_content"):
        got = answer(played, "openai/m", chat({"content": None, "refusal": "No.", key: "hm"}))
        assert (got.text, got.refusal, got.reasoning) == ("", "No.", "hm")
        pieces = [{"choices": [{"index": 0, "delta": {key: p, "refusal": r}}]}
                  for p, r in (("h", "N"), ("m", "o."))]  # fmt: skip
        got = answer(played, "openai/m", *pieces, text_chunk("", "stop"))
        assert (got.refusal, got.reasoning) == ("No.", "hm")


# --- usage of chat completions -----------------------------------------------------------------


@pytest.mark.parametrize(
    "usages",
    [
        [None, None, used(9, 4)],  # OpenAI: in a separate last chunk
        [used(9, 1), used(9, 2), used(9, 4)],  # Perplexity counts up
        [{"prompt_tokens": 9, "completion_tokens": None, "total_tokens": None}, None, used(9, 4)],
        [used(9, 4), used(9, 4), used(9, 4)],  # repeated in each chunk
        [used(9, 4), None, used(0, 0)],  # zeros after the real counts
        [used(9, 4), {}, None],
        [{"prompt_tokens": "9", "completion_tokens": "4", "total_tokens": "13"}, None, None],
    ],
)
def test_last_usage_that_is_not_empty_is_read(played: Player, usages: list[Any]) -> None:
    """The last usage that is not empty or zero is the answer's."""
    events = [{**text_chunk("a", "stop"), "usage": usage} for usage in usages[:-1]]
    got = answer(played, "openai/m", *events, {"choices": [], "usage": usages[-1]}, end=DONE)
    usage = got.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)


def test_chunk_after_the_usage_keeps_it(played: Player) -> None:
    """A chunk after the usage (moderation) does not remove it."""
    usage = {"choices": [], "usage": used(9, 4)}
    last = {"choices": [], "usage": None, "moderation": {}}
    got = answer(played, "openai/m", text_chunk("a", "stop"), usage, last, end=DONE)
    assert got.usage.total_tokens == 13


def test_groq_usage_is_read(played: Player) -> None:
    """Usage that is only in x_groq is read."""
    got = answer(
        played, "groq/m", text_chunk("a"), text_chunk("", "stop", x_groq={"usage": used(9, 4)})
    )
    assert got.usage.total_tokens == 13


def test_perplexity_cost_is_read(played: Player) -> None:
    """The cost that Perplexity reports, including its search fee, is the cost."""
    cost = {"input_tokens_cost": 0.001, "request_cost": 0.005, "total_cost": 0.006}
    body = chat({"content": "a"}, usage=used(9, 4, cost=cost))
    assert answer(played, "perplexity/sonar", body).usage.cost == 0.006


@pytest.mark.parametrize(
    ("usage", "cached", "written"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2}}, 3, 2),
        ({"cached_tokens": 3}, 3, 0),
        ({"num_cached_tokens": 3}, 3, 0),
        ({"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 6}, 3, 0),
        ({"cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}, 3, 2),
        ({"prompt_tokens_details": {"cached_tokens": 3, "cache_creation_input_tokens": 2}}, 3, 2),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 3}, 3, 0),
        (
            {"prompt_tokens_details": {"cached_tokens": 161}},
            9,
            0,
        ),  # limited to the prompt's tokens
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, 0, 0),
    ],
)
def test_cached_tokens_are_read_from_every_field(
    played: Player, usage: dict[str, Any], cached: int, written: int
) -> None:
    """Cached tokens are read from each server's field for them."""
    got = answer(played, "openai/m", chat({"content": "a"}, usage=used(9, 4, **usage))).usage
    assert (got.prompt_tokens, got.cached_tokens, got.cache_write_tokens) == (9, cached, written)


@pytest.mark.parametrize(
    ("usage", "completion", "reasoning", "total"),
    [
        # xAI: the total shows that completion tokens exclude reasoning.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
          "completion_tokens_details": {"reasoning_tokens": 20}}, 25, 20, 35),
        # Others: completion tokens include reasoning, which sometimes exceeds them.
        (used(10, 25, completion_tokens_details={"reasoning_tokens": 20}), 25, 20, 35),
        (used(43, 10, completion_tokens_details={"reasoning_tokens": 11}), 10, 11, 53),
        (used(10, 25, reasoning_tokens=20), 25, 20, 35),  # Copilot
        # Totals larger than their parts: Google's compatible endpoint, Mistral's audio.
        ({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}, 12, 0, 109),
    ],
)  # fmt: skip
def test_completion_tokens_include_reasoning_once(
    played: Player, usage: dict[str, Any], completion: int, reasoning: int, total: int
) -> None:
    """Completion tokens include the reasoning exactly once; the total is the server's."""
    got = answer(played, "openai/m", chat({"content": "a"}, usage=usage)).usage
    found = (got.completion_tokens, got.reasoning_tokens, got.total_tokens)
    assert found == (completion, reasoning, total)


def test_error_before_zero_usage_is_raised(played: Player) -> None:
    """An error followed by zero usage and [DONE] is raised, with the text before it."""
    error = {"error": {"type": "server_error", "message": "x"}}
    events = [text_chunk("so far"), error, {"choices": [], "usage": used(0, 0)}]
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + DONE
    got = result(played, "openai/m", body, True)
    assert isinstance(got, ProviderAPIError)
    assert (got.error_type, got.context["partial_text"]) == ("server", "so far")


def test_blank_lines_before_json_are_ignored(played: Player) -> None:
    """Blank lines before the JSON of a plain answer (OpenRouter, DeepSeek) are ignored."""
    body = "   \n\n" * 500 + json.dumps(chat({"content": "a"}))
    assert result(played, "openrouter/m", body).text == "a"
