"""Answers of the Responses API that servers were seen to send but that were not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ember.exceptions import ProviderAPIError
from tests.client.providers.answers import DONE, answer, result
from tests.corpus import Player

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def delta(text: str, kind: str = "output_text") -> Any:
    """A piece of text."""
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": text}


def ended(kind: str = "completed", **response: Any) -> Any:
    """The terminal event."""
    whole = {"object": "response", "status": kind, "model": "m", "output": []}
    return {"type": f"response.{kind}", "response": whole | response}


def output_items(*texts: str) -> Any:
    """Output items with these texts."""
    return [{"type": "message", "content": [{"type": "output_text", "text": t}]} for t in texts]


COUNTS = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}


def test_responses_deltas_are_the_answer_if_the_last_event_has_no_output(played: Player) -> None:
    """If the last event has no output (the ChatGPT backend), the deltas are the answer."""
    events = [delta("a"), {"type": "keepalive"}, delta("b"), ended(usage=COUNTS)]
    got = answer(played, "openai-responses/m", *events, end=DONE)
    assert (got.text, got.finish_reason, got.usage.total_tokens) == ("ab", "stop", 13)


def test_responses_text_of_the_last_event_alone_is_yielded(played: Player) -> None:
    """Text that only the last event contains is yielded too."""
    got = answer(played, "openai-responses/m", delta("a"), ended(output=output_items("ab", "c")))
    assert got.text == "abc"  # ask() compares it with the joined chunks
    got = result(played, "openai-responses/m", json.dumps(ended()["response"] | {
        "output": output_items("x")}), True)  # fmt: skip
    assert got.text == "x"


def test_responses_stream_of_keep_alive_events_may_be_retried(played: Player) -> None:
    """A stream that broke off after only keep-alive events may be retried."""
    body = 'event: keepalive\ndata: {"type":"keepalive","sequence_number":1}\n\n'
    error = result(played, "openai-responses/m", body, True)
    assert (error.error_type, error.retryable) == ("incomplete_stream", True)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("steered", "other")],
)
def test_responses_incomplete_is_a_whole_answer_with_its_reason(
    played: Player, reason: str, finish: str
) -> None:
    """An incomplete response is a whole answer with its reason, plain and streamed."""
    details = {"incomplete_details": {"reason": reason}, "output": output_items("a")}
    whole = {"object": "response", "status": "incomplete", **details}
    got = answer(played, "openai-responses/m", whole)
    assert (got.text, got.finish_reason) == ("a", finish)
    got = answer(played, "openai-responses/m", delta("a"), ended("incomplete", **details))
    assert (got.text, got.finish_reason) == ("a", finish)


def test_responses_refusal_is_a_content_filter(played: Player) -> None:
    """A refusal, in pieces or whole, is content_filter with its text."""
    got = answer(
        played, "openai-responses/m", delta("N", "refusal"), delta("o", "refusal"), ended()
    )
    assert (got.refusal, got.finish_reason) == ("No", "content_filter")
    part = {"type": "refusal", "refusal": "No"}
    whole = ended(output=[{"type": "message", "content": [part]}])["response"]
    got = answer(played, "openai-responses/m", whole)
    assert (got.refusal, got.finish_reason) == ("No", "content_filter")


def test_responses_usage_without_details_is_counted(played: Player) -> None:
    """Usage without details counts; several messages are one text; output_text is a last resort."""
    got = answer(
        played, "openai-responses/m", ended(output=output_items("a", "b"), usage=COUNTS)["response"]
    )
    assert (got.text, got.usage.prompt_tokens, got.usage.cached_tokens) == ("ab", 9, 0)
    got = answer(played, "openai-responses/m", ended(output_text="only here")["response"])
    assert got.text == "only here"
    got = answer(
        played, "openai-responses/m", ended(output=output_items("a"), output_text="a")["response"]
    )
    assert got.text == "a"


def test_responses_details_of_the_usage_are_read(played: Player) -> None:
    """Cached tokens, cache writes and reasoning are read from the details of the usage."""
    details = {
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    body = ended(output=output_items("a"), usage=COUNTS | details)["response"]
    usage = answer(played, "openai-responses/m", body).usage
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (3, 2, 1)


def test_responses_failure_with_status_200_is_an_error(played: Player) -> None:
    """A failed response with HTTP status 200 raises the error for its code."""
    failed = ended("failed", error={"code": "rate_limit_exceeded", "message": "slow"})["response"]
    got = result(played, "openai-responses/m", json.dumps(failed))
    assert isinstance(got, ProviderAPIError)
    assert got.error_type == "rate_limit"


def test_responses_queued_answer_is_unfinished(played: Player) -> None:
    """A queued response is recognizable as unfinished."""
    queued = {"object": "response", "status": "queued", "output": [], "usage": None}
    got = answer(played, "openai-responses/m", queued)
    assert (got.text, got.finish_reason) == ("", "other")


def test_responses_custom_tool_call_is_read(played: Player) -> None:
    """A custom tool's call is in `tool_calls`; calls of the provider's own tools are not."""
    output = [{"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
              {"type": "web_search_call", "id": "w", "status": "completed"}]  # fmt: skip
    got = answer(played, "openai-responses/m", ended(output=output)["response"])
    assert [(c.id, c.name, c.arguments) for c in got.tool_calls] == [("c", "sql", "SELECT 1")]
    assert got.finish_reason == "tool_calls"
