"""Answers of the Messages API that servers were seen to send but that were not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client.providers.answers import DONE, answer, result
from tests.corpus import Player

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


START = {"type": "message_start", "message": {"id": "m", "model": "c", "content": [],
         "usage": {"input_tokens": 0, "output_tokens": 0}}}  # fmt: skip
STOP = {"type": "message_stop"}


def stopped(usage: Any, reason: str = "end_turn") -> Any:
    """The `message_delta` event, the last but one."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def text(content: str) -> Any:
    """A piece of text."""
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": content},
    }


def test_openrouter_done_event_and_zero_usage_are_ignored(played: Player) -> None:
    """`event: data` with [DONE] after message_stop is ignored; a usage of 0 is corrected."""
    events = [START, text("a"), stopped({"input_tokens": 7, "output_tokens": 3, "cost": 0.5}), STOP]
    got = answer(played, "anthropic/c", *events, end="event: data\ndata: [DONE]\n\n")
    assert got.text == "a"
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (7, 3)
    assert got.usage.cost == 0.5
    body = "".join(f"data: {json.dumps(e)}\n\n" for e in events[:-1]) + DONE
    assert result(played, "anthropic/c", body, True).error_type == "incomplete_stream"


def test_anthropic_answers_without_content(played: Player) -> None:
    """An answer without content, whole and streamed, is an empty text with its finish reason."""
    whole = {"type": "message", "content": [], "stop_reason": "end_turn",
             "usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None,
                       "cache_creation_input_tokens": None}}  # fmt: skip
    got = answer(played, "anthropic/c", whole)
    assert (got.text, got.finish_reason, got.usage.prompt_tokens) == ("", "stop", 5)
    got = answer(played, "anthropic/c", START, stopped({"output_tokens": 1}, "max_tokens"), STOP)
    assert (got.text, got.finish_reason) == ("", "length")


def test_anthropic_refusal_is_reported_with_its_explanation(played: Player) -> None:
    """A refusal is reported as one, with its explanation."""
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
def test_anthropic_stop_reasons_are_mapped(played: Player, word: str, finish: str) -> None:
    """Each stop reason is mapped to one of Ember's."""
    got = answer(played, "anthropic/c", {"type": "message", "content": [], "stop_reason": word})
    assert got.finish_reason == finish


def test_anthropic_cache_counts_are_part_of_the_prompt(played: Player) -> None:
    """Cache reads and writes are part of the prompt; later nulls do not overwrite them."""
    first = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10}
    start = {"type": "message_start", "message": {"content": [], "usage": first}}
    last = {"output_tokens": 3, "input_tokens": None, "cache_read_input_tokens": None}
    got = answer(played, "anthropic/c", start, text("a"), stopped(last), STOP).usage
    assert (got.prompt_tokens, got.cached_tokens, got.cache_write_tokens) == (115, 100, 10)
    assert got.total_tokens == 118
