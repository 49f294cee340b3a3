"""What servers were seen to send and the recordings at hand do not hold, each with its reading."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse
from tests.corpus import Player, ask

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def result(played: Player, model: str, body: str, stream: bool = False, **headers: str) -> Any:
    """What a call comes to that is answered with this body."""
    played.load({"status": 200, "response_headers": headers, "response_body": body})
    return ask(model, stream)


def answer(played: Player, model: str, *events: Any, end: str = "") -> ChatResponse:
    """The response to one JSON body, or to a stream of several events."""
    if len(events) == 1 and not end:
        got = result(played, model, json.dumps(events[0]))
    else:
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        got = result(played, model, body + end, True)
    assert isinstance(got, ChatResponse), got
    return got


DONE = "data: [DONE]\n\n"


def said(text: object, finish: str | None = None, **more: Any) -> Any:
    """A chunk of a chat stream."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


def chat(message: Any, finish: str | None = "stop", **more: Any) -> Any:
    """A whole chat completion."""
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "model": "m", "choices": [choice], **more}


def used(prompt: int, completion: int, **more: Any) -> Any:
    """A usage in the words of chat completions."""
    return {"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion, **more}  # fmt: skip


def tool(index: int | None = None, **call: Any) -> Any:
    """A tool call's piece."""
    function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    made = {**call, "function": function}
    return made if index is None else {"index": index, **made}


def calls(*deltas: Any, finish: str | None = None) -> Any:
    """A chunk with pieces of tool calls."""
    return {"choices": [{"index": 0, "delta": {"tool_calls": [*deltas]}, "finish_reason": finish}]}


# --- chat completions --------------------------------------------------------------------------


def test_choice_without_delta(played: Player) -> None:
    """Azure's asynchronous filter sends choices without a delta: they say nothing."""
    odd = {"choices": [{"index": 0, "content_filter_offsets": {}, "finish_reason": None}], "id": ""}
    none = {"choices": [{"index": 0, "delta": None, "finish_reason": None}]}
    first = {"choices": [], "model": "", "id": "", "prompt_filter_results": []}
    got = answer(played, "openai/m", first, said("a"), odd, none, said("b", "stop"), odd, end=DONE)
    assert (got.text, got.finish_reason) == ("ab", "stop")


def test_tool_calls_in_the_chunk_that_ends(played: Player) -> None:
    """A call that arrives with the finish reason counts."""
    whole = tool(0, id="c", name="f", arguments='{"a":1}')
    got = answer(played, "openai/m", calls(whole, finish="tool_calls"), end=DONE)
    assert [(c.id, c.name, c.arguments) for c in got.tool_calls] == [("c", "f", {"a": 1})]
    assert got.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "chunks",
    [
        # With indexes: in order, interleaved, out of order.
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
def test_pieces_of_tool_calls(played: Player, chunks: list[list[Any]]) -> None:
    """However two calls are cut and numbered, they are the same two calls."""
    events = [calls(*deltas) for deltas in chunks]
    got = answer(played, "openai/m", *events, said("", "tool_calls"), end=DONE)
    found = [(c.id, c.name, c.arguments) for c in got.tool_calls]
    assert found == [("a", "f", {"x": 1}), ("b", "g", {})]


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("second", ["f", "g"])
def test_calls_without_id_or_index(played: Player, index: int | None, second: str) -> None:
    """Two calls that have a name only are two, without an index and all numbered 0."""
    got = answer(played, "openai/m", calls(tool(index, id="", name="f", arguments="{}")),
                 calls(tool(index, id="", name=second, arguments='{"x":1}')), end=DONE)  # fmt: skip
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("f", {}), (second, {"x": 1})]


def test_name_repeated_in_each_piece(played: Player) -> None:
    """Pieces of one call that repeat its name, and no id, are one call."""
    pieces = ('{"x"', ":1}", "")
    events = [calls(tool(0, name="f", arguments=piece)) for piece in pieces]
    got = answer(played, "openai/m", *events, end=DONE)
    assert [(c.name, c.arguments) for c in got.tool_calls] == [("f", {"x": 1})]


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": ""},
                                      {"name": "f", "arguments": None}])  # fmt: skip
def test_call_without_arguments(played: Player, function: dict[str, Any]) -> None:
    """A call of a tool that takes nothing has an empty dict, whole and streamed, on every wire."""
    call = {"id": "c1", "type": "function", "function": function}
    whole = answer(played, "openai/m", chat({"content": None, "tool_calls": [call]}, "tool_calls"))
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}
    streamed = answer(played, "openai/m", chunk, said("", "tool_calls"), end=DONE)
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
    got = answer(played, "openai/m", *[calls(p) for p in pieces], said("", "tool_calls"), end=DONE)
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
def test_content_that_is_no_string(played: Player, content: Any, text: str) -> None:
    """Objects, lists and null as content, whole and streamed, are the text that they hold."""
    assert answer(played, "openai/m", chat({"content": content})).text == text
    assert answer(played, "openai/m", said(content), said("", "stop"), end=DONE).text == text


def test_message_beside_delta(played: Player) -> None:
    """Perplexity repeats the whole message beside each delta: the delta counts."""

    def chunk(new: str, whole: str) -> Any:
        made = said(new)
        made["choices"][0]["message"] = {"role": "assistant", "content": whole}
        return made

    got = answer(played, "perplexity/sonar", chunk("a", "a"), chunk("b", "ab"), said("", "stop"))
    assert got.text == "ab"


def test_server_that_does_not_stream(played: Player) -> None:
    """A whole answer in place of a stream is one chunk; so is one inside an event."""
    whole = chat({"role": "assistant", "content": "hi"}, usage=used(3, 2))
    got = result(played, "openai/m", json.dumps(whole), True)
    assert (got.text, got.finish_reason, got.usage.total_tokens) == ("hi", "stop", 5)
    assert answer(played, "openai/m", whole, end=DONE).text == "hi"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_stream_that_was_not_asked_for(played: Player, kind: str) -> None:
    """A plain call that is answered with events, under any content type, is read all the same."""
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in (said("a"), said("b", "stop")))
    headers = {"content-type": kind} if kind else {}
    assert result(played, "openai/m", body, **headers).text == "ab"
    assert result(played, "openai/m", body, True, **headers).text == "ab"


def test_several_choices_in_any_order(played: Player) -> None:
    """With n > 1 choice 0 is the answer, wherever it stands, whole and streamed."""
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


def test_one_choice_twice_in_a_chunk(played: Player) -> None:
    """Two pieces of the same choice in one chunk are both yielded."""
    double = {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}
    assert answer(played, "openai/m", double, said("c", "stop"), end=DONE).text == "abc"


def test_finish_before_text_and_twice(played: Player) -> None:
    """Text after a finish reason counts, and a second finish reason changes nothing."""
    got = answer(played, "openai/m", said("a", "stop"), said("b"), said("", "stop"), said(""))
    assert (got.text, got.finish_reason) == ("ab", "stop")


@pytest.mark.parametrize("word", ["", None])
def test_finish_that_says_nothing(played: Player, word: str | None) -> None:
    """No finish reason, or an empty one, is None; [DONE] still ends the stream."""
    assert answer(played, "openai/m", chat({"content": "a"}, word)).finish_reason is None
    got = answer(played, "openai/m", said("a", word), end=DONE)
    assert (got.text, got.finish_reason) == ("a", None)
    body = f"data: {json.dumps(said('a', word))}\n\n"
    assert result(played, "openai/m", body, True).error_type == "incomplete_stream"


@pytest.mark.parametrize(
    ("word", "finish"),
    [("eos", "stop"), ("eos_token", "stop"), ("model_length", "length"),
     ("model_context_window_exceeded", "length"), ("function_call", "tool_calls"),
     ("sensitive", "content_filter"), ("error", "error"), ("network_error", "error"),
     ("STOP", "stop"), ("unheard_of", "other")],
)  # fmt: skip
def test_words_for_the_end(played: Player, word: str, finish: str) -> None:
    """Each server's word is one of Ember's; one that nobody knows is `other`."""
    assert answer(played, "openai/m", chat({"content": "a"}, word)).finish_reason == finish


def test_no_choice_at_all(played: Player) -> None:
    """A completion without any choice is an empty answer, and what it used is counted."""
    body = {"object": "chat.completion", "choices": [], "model": "m-1", "usage": used(9, 4)}
    got = answer(played, "openai/m", body)
    assert (got.text, got.finish_reason, got.model) == ("", None, "m-1")
    assert got.usage.total_tokens == 13
    assert result(played, "openai/m", json.dumps({"choices": []})).error_type == "bad_response"


def test_refusal_and_reasoning(played: Player) -> None:
    """Refusals and reasoning are read under each name, whole and in pieces."""
    for key in ("reasoning", "reasoning_content"):
        got = answer(played, "openai/m", chat({"content": None, "refusal": "No.", key: "hm"}))
        assert (got.text, got.refusal, got.reasoning) == ("", "No.", "hm")
        pieces = [{"choices": [{"index": 0, "delta": {key: p, "refusal": r}}]}
                  for p, r in (("h", "N"), ("m", "o."))]  # fmt: skip
        got = answer(played, "openai/m", *pieces, said("", "stop"))
        assert (got.refusal, got.reasoning) == ("No.", "hm")


# --- usage of chat completions -----------------------------------------------------------------


@pytest.mark.parametrize(
    "usages",
    [
        [None, None, used(9, 4)],  # OpenAI: a last chunk of its own
        [used(9, 1), used(9, 2), used(9, 4)],  # Perplexity counts up
        [{"prompt_tokens": 9, "completion_tokens": None, "total_tokens": None}, None, used(9, 4)],
        [used(9, 4), used(9, 4), used(9, 4)],  # the same again and again
        [used(9, 4), None, used(0, 0)],  # zeros after the truth
        [used(9, 4), {}, None],
        [{"prompt_tokens": "9", "completion_tokens": "4", "total_tokens": "13"}, None, None],
    ],
)
def test_usage_in_odd_places(played: Player, usages: list[Any]) -> None:
    """The last usage that counts anything is the answer's."""
    events = [{**said("a", "stop"), "usage": usage} for usage in usages[:-1]]
    got = answer(played, "openai/m", *events, {"choices": [], "usage": usages[-1]}, end=DONE)
    usage = got.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)


def test_chunks_after_the_usage(played: Player) -> None:
    """A chunk that follows the usage (moderation) does not take it away."""
    usage = {"choices": [], "usage": used(9, 4)}
    last = {"choices": [], "usage": None, "moderation": {}}
    got = answer(played, "openai/m", said("a", "stop"), usage, last, end=DONE)
    assert got.usage.total_tokens == 13


def test_usage_of_groq(played: Player) -> None:
    """Usage under x_groq alone is the usage."""
    got = answer(played, "groq/m", said("a"), said("", "stop", x_groq={"usage": used(9, 4)}))
    assert got.usage.total_tokens == 13


def test_cost_of_perplexity(played: Player) -> None:
    """What Perplexity says it charged, its fee for the search included, is the cost."""
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
        ),  # more than the prompt: never above it
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, 0, 0),
    ],
)
def test_names_of_cached_tokens(
    played: Player, usage: dict[str, Any], cached: int, written: int
) -> None:
    """Cached tokens are found under each server's name for them."""
    got = answer(played, "openai/m", chat({"content": "a"}, usage=used(9, 4, **usage))).usage
    assert (got.prompt_tokens, got.cached_tokens, got.cache_write_tokens) == (9, cached, written)


@pytest.mark.parametrize(
    ("usage", "completion", "reasoning", "total"),
    [
        # xAI: the total says that reasoning is beside the completion.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
          "completion_tokens_details": {"reasoning_tokens": 20}}, 25, 20, 35),
        # Others: inside, and sometimes more than the whole.
        (used(10, 25, completion_tokens_details={"reasoning_tokens": 20}), 25, 20, 35),
        (used(43, 10, completion_tokens_details={"reasoning_tokens": 11}), 10, 11, 53),
        (used(10, 25, reasoning_tokens=20), 25, 20, 35),  # Copilot
        # Totals that nothing explains: Google's compatible endpoint, Mistral's sound.
        ({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}, 12, 0, 109),
    ],
)  # fmt: skip
def test_reasoning_and_totals(
    played: Player, usage: dict[str, Any], completion: int, reasoning: int, total: int
) -> None:
    """Completion tokens hold the reasoning exactly once; the total is the server's."""
    got = answer(played, "openai/m", chat({"content": "a"}, usage=usage)).usage
    found = (got.completion_tokens, got.reasoning_tokens, got.total_tokens)
    assert found == (completion, reasoning, total)


def test_error_and_then_zeros(played: Player) -> None:
    """An error followed by a usage of zeros and [DONE] is the error, with the text before it."""
    error = {"error": {"type": "server_error", "message": "x"}}
    events = [said("so far"), error, {"choices": [], "usage": used(0, 0)}]
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + DONE
    got = result(played, "openai/m", body, True)
    assert isinstance(got, ProviderAPIError)
    assert (got.error_type, got.context["partial_text"]) == ("server", "so far")


def test_json_after_keep_alive_blanks(played: Player) -> None:
    """Blank lines before the JSON of a plain answer (OpenRouter, DeepSeek) are nothing."""
    body = "   \n\n" * 500 + json.dumps(chat({"content": "a"}))
    assert result(played, "openrouter/m", body).text == "a"


# --- Anthropic ---------------------------------------------------------------------------------

START = {"type": "message_start", "message": {"id": "m", "model": "c", "content": [],
         "usage": {"input_tokens": 0, "output_tokens": 0}}}  # fmt: skip
STOP = {"type": "message_stop"}


def stopped(usage: Any, reason: str = "end_turn") -> Any:
    """The event before the last."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def text(said: str) -> Any:
    """A piece of text."""
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": said},
    }


def test_anthropic_wire_of_openrouter(played: Player) -> None:
    """`event: data` with [DONE] after message_stop is nothing; usage from 0 on is corrected."""
    events = [START, text("a"), stopped({"input_tokens": 7, "output_tokens": 3, "cost": 0.5}), STOP]
    got = answer(played, "anthropic/c", *events, end="event: data\ndata: [DONE]\n\n")
    assert got.text == "a"
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (7, 3)
    assert got.usage.cost == 0.5
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in events[:-1]) + DONE
    assert result(played, "anthropic/c", body, True).error_type == "incomplete_stream"


def test_anthropic_answers_without_content(played: Player) -> None:
    """No content, whole and streamed, is an empty text with the reason of its end."""
    whole = {"type": "message", "content": [], "stop_reason": "end_turn",
             "usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None,
                       "cache_creation_input_tokens": None}}  # fmt: skip
    got = answer(played, "anthropic/c", whole)
    assert (got.text, got.finish_reason, got.usage.prompt_tokens) == ("", "stop", 5)
    got = answer(played, "anthropic/c", START, stopped({"output_tokens": 1}, "max_tokens"), STOP)
    assert (got.text, got.finish_reason) == ("", "length")


def test_anthropic_refusal(played: Player) -> None:
    """A refusal is visible as such, with its explanation."""
    details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
    whole = {"type": "message", "content": [], "stop_reason": "refusal", "stop_details": details}
    got = answer(played, "anthropic/c", whole)
    assert (got.finish_reason, got.refusal) == ("content_filter", "Not this.")
    whole["stop_details"] = None
    assert answer(played, "anthropic/c", whole).refusal == "refused"


@pytest.mark.parametrize(
    ("word", "finish"),
    [("model_context_window_exceeded", "length"), ("pause_turn", "other"),
     ("tool_use", "tool_calls")],
)  # fmt: skip
def test_anthropic_words_for_the_end(played: Player, word: str, finish: str) -> None:
    """Each stop reason is one of Ember's."""
    got = answer(played, "anthropic/c", {"type": "message", "content": [], "stop_reason": word})
    assert got.finish_reason == finish


def test_anthropic_cache_counts(played: Player) -> None:
    """Cached reads and writes are part of the prompt; later nulls take nothing away."""
    first = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10}
    start = {"type": "message_start", "message": {"content": [], "usage": first}}
    last = {"output_tokens": 3, "input_tokens": None, "cache_read_input_tokens": None}
    got = answer(played, "anthropic/c", start, text("a"), stopped(last), STOP).usage
    assert (got.prompt_tokens, got.cached_tokens, got.cache_write_tokens) == (115, 100, 10)
    assert got.total_tokens == 118


# --- Google ------------------------------------------------------------------------------------


def candidate(text: str, finish: object = None, **more: Any) -> Any:
    """A chunk of Google's."""
    made: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish is not None:
        made["finishReason"] = finish
    return {"candidates": [made], **more}


def test_google_without_model_and_with_several_ends(played: Player) -> None:
    """The model asked for stands in; a finish reason in several chunks ends none of them early."""
    events = [candidate("a", "STOP"), candidate("b", "STOP"), candidate("c", "STOP")]
    got = answer(played, "google/gemini-9", *events)
    assert (got.text, got.model, got.finish_reason) == ("abc", "gemini-9", "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("CONTINUATION", "length"), ("SPII", "content_filter"), ("MODEL_ARMOR", "content_filter"),
     ("MALFORMED_FUNCTION_CALL", "error"), ("LANGUAGE", "other"), ("NEW_ONE", "other"),
     (1, "stop"), (2, "length"), (3, "content_filter"), (8, "content_filter"), (99, "other")],
)  # fmt: skip
def test_google_words_for_the_end(played: Player, reason: object, finish: str) -> None:
    """Finish reasons by name and by number are Ember's."""
    assert answer(played, "google/g", candidate("a", reason)).finish_reason == finish


@pytest.mark.parametrize("reason", ["FINISH_REASON_UNSPECIFIED", 0, None])
def test_google_end_that_is_none(played: Player, reason: object) -> None:
    """An unspecified reason ends nothing."""
    body = f"data: {json.dumps(candidate('a', reason))}\n\n"
    assert result(played, "google/g", body, True).error_type == "incomplete_stream"


def test_google_blocked_prompt(played: Player) -> None:
    """A blocked prompt is an answer of its own kind, whole and streamed, and never silence."""
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 4},
    }
    for got in (answer(played, "google/g", blocked), answer(played, "google/g", blocked, {})):
        assert (got.text, got.finish_reason, got.refusal) == ("", "content_filter", "SAFETY")
        assert got.usage.prompt_tokens == 4


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        # What a later chunk leaves out stays...
        ([{"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}, {}, None],
         (9, 4, 13)),
        ([{"promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 14},
          {"candidatesTokenCount": 4}, {"promptTokenCount": 9}], (9, 9, 14)),
        # ... unless that chunk adds up by itself: then it is the whole account.
        ([{"promptTokenCount": 9, "candidatesTokenCount": 21, "totalTokenCount": 30}, None,
          {"promptTokenCount": 87, "thoughtsTokenCount": 78, "totalTokenCount": 165}],
         (87, 78, 165)),
        ([{"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}, None,
          {"promptTokenCount": 9, "totalTokenCount": 9}], (9, 4, 9)),
    ],
)  # fmt: skip
def test_google_usage_of_chunks(
    played: Player, usages: list[Any], expected: tuple[int, int, int]
) -> None:
    """Usage is cumulative over the chunks, and nothing that was counted gets lost."""
    events = [candidate("a", "STOP", usageMetadata=usage) for usage in usages]
    got = answer(played, "google/g", *events).usage
    assert (got.prompt_tokens, got.completion_tokens, got.total_tokens) == expected


def test_google_text_where_no_finish_is(played: Player) -> None:
    """Content without parts, parts that are one object, candidates without content: no accident."""
    odd = {"candidates": [{"content": {"parts": {"text": "a"}}}]}
    empty = {"candidates": [{"finishReason": "STOP"}]}
    assert answer(played, "google/g", odd, {"candidates": [{"content": {}}]}, empty).text == "a"


# --- Responses ---------------------------------------------------------------------------------


def delta(said: str, kind: str = "output_text") -> Any:
    """A piece of text."""
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": said}


def ended(kind: str = "completed", **response: Any) -> Any:
    """The terminal event."""
    whole = {"object": "response", "status": kind, "model": "m", "output": []}
    return {"type": f"response.{kind}", "response": whole | response}


def spoken(*texts: str) -> Any:
    """Output items with these texts."""
    return [{"type": "message", "content": [{"type": "output_text", "text": t}]} for t in texts]


COUNTS = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}


def test_responses_terminal_event_without_output(played: Player) -> None:
    """Where the last event has no output, the deltas are the answer (the ChatGPT backend)."""
    events = [delta("a"), {"type": "keepalive"}, delta("b"), ended(usage=COUNTS)]
    got = answer(played, "openai-responses/m", *events, end=DONE)
    assert (got.text, got.finish_reason, got.usage.total_tokens) == ("ab", "stop", 13)


def test_responses_text_that_no_delta_brought(played: Player) -> None:
    """Text that stands in the last event only is yielded too."""
    got = answer(played, "openai-responses/m", delta("a"), ended(output=spoken("ab", "c")))
    assert got.text == "abc"  # and the chunks joined are the same: see ask()
    got = result(played, "openai-responses/m", json.dumps(ended()["response"] | {
        "output": spoken("x")}), True)  # fmt: skip
    assert got.text == "x"


def test_responses_that_only_kept_the_line_open(played: Player) -> None:
    """A stream that broke off after its keepalives may be asked for again."""
    body = 'event: keepalive\ndata: {"type":"keepalive","sequence_number":1}\n\n'
    error = result(played, "openai-responses/m", body, True)
    assert (error.error_type, error.retryable) == ("incomplete_stream", True)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("steered", "other")],
)
def test_responses_incomplete(played: Player, reason: str, finish: str) -> None:
    """An incomplete response is a whole answer with its reason, plain and streamed."""
    details = {"incomplete_details": {"reason": reason}, "output": spoken("a")}
    whole = {"object": "response", "status": "incomplete", **details}
    got = answer(played, "openai-responses/m", whole)
    assert (got.text, got.finish_reason) == ("a", finish)
    got = answer(played, "openai-responses/m", delta("a"), ended("incomplete", **details))
    assert (got.text, got.finish_reason) == ("a", finish)


def test_responses_refusal(played: Player) -> None:
    """A refusal in pieces or whole is content_filter with its words."""
    got = answer(
        played, "openai-responses/m", delta("N", "refusal"), delta("o", "refusal"), ended()
    )
    assert (got.refusal, got.finish_reason) == ("No", "content_filter")
    part = {"type": "refusal", "refusal": "No"}
    whole = ended(output=[{"type": "message", "content": [part]}])["response"]
    got = answer(played, "openai-responses/m", whole)
    assert (got.refusal, got.finish_reason) == ("No", "content_filter")


def test_responses_without_details(played: Player) -> None:
    """Usage without details counts; several messages are one text; output_text is a last resort."""
    got = answer(
        played, "openai-responses/m", ended(output=spoken("a", "b"), usage=COUNTS)["response"]
    )
    assert (got.text, got.usage.prompt_tokens, got.usage.cached_tokens) == ("ab", 9, 0)
    got = answer(played, "openai-responses/m", ended(output_text="only here")["response"])
    assert got.text == "only here"
    got = answer(
        played, "openai-responses/m", ended(output=spoken("a"), output_text="a")["response"]
    )
    assert got.text == "a"


def test_responses_failed_in_a_plain_answer(played: Player) -> None:
    """A failed response of status 200 raises by its code."""
    failed = ended("failed", error={"code": "rate_limit_exceeded", "message": "slow"})["response"]
    got = result(played, "openai-responses/m", json.dumps(failed))
    assert isinstance(got, ProviderAPIError)
    assert got.error_type == "rate_limit"


def test_responses_in_the_background(played: Player) -> None:
    """A queued response is visible as not yet an answer."""
    queued = {"object": "response", "status": "queued", "output": [], "usage": None}
    got = answer(played, "openai-responses/m", queued)
    assert (got.text, got.finish_reason) == ("", "other")


def test_responses_custom_tool(played: Player) -> None:
    """A custom tool's call is the caller's to answer; the provider's own tools are not."""
    output = [{"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
              {"type": "web_search_call", "id": "w", "status": "completed"}]  # fmt: skip
    got = answer(played, "openai-responses/m", ended(output=output)["response"])
    assert [(c.id, c.name, c.arguments) for c in got.tool_calls] == [("c", "sql", "SELECT 1")]
    assert got.finish_reason == "tool_calls"
