"""Answers of the Gemini API that servers were seen to send but that were not recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client.providers.answers import answer, result
from tests.corpus import Player

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def candidate(text: str, finish: object = None, **more: Any) -> Any:
    """A chunk of Google's."""
    chunk: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish is not None:
        chunk["finishReason"] = finish
    return {"candidates": [chunk], **more}


def test_google_repeated_finish_reason_does_not_end_the_stream(played: Player) -> None:
    """The requested model is the default; a repeated finish reason does not end a stream early."""
    events = [candidate("a", "STOP"), candidate("b", "STOP"), candidate("c", "STOP")]
    got = answer(played, "google/gemini-9", *events)
    assert (got.text, got.model, got.finish_reason) == ("abc", "gemini-9", "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("CONTINUATION", "length"), ("SPII", "content_filter"), ("MODEL_ARMOR", "content_filter"),
     ("MALFORMED_FUNCTION_CALL", "error"), ("LANGUAGE", "other"), ("NEW_ONE", "other"),
     (1, "stop"), (2, "length"), (3, "content_filter"), (8, "content_filter"), (99, "other")],
)  # fmt: skip
def test_google_finish_reasons_are_mapped(played: Player, reason: object, finish: str) -> None:
    """Finish reasons by name and by number are mapped to Ember's."""
    assert answer(played, "google/g", candidate("a", reason)).finish_reason == finish


@pytest.mark.parametrize("reason", ["FINISH_REASON_UNSPECIFIED", 0, None])
def test_google_unspecified_finish_reason_does_not_end_the_stream(
    played: Player, reason: object
) -> None:
    """An unspecified finish reason does not end a stream."""
    body = f"data: {json.dumps(candidate('a', reason))}\n\n"
    assert result(played, "google/g", body, True).error_type == "incomplete_stream"


def test_google_blocked_prompt_is_a_content_filter(played: Player) -> None:
    """A blocked prompt is `content_filter` with the reason, whole and streamed."""
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
        # Counts that a later chunk omits are kept...
        ([{"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}, {}, None],
         (9, 4, 13)),
        ([{"promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 14},
          {"candidatesTokenCount": 4}, {"promptTokenCount": 9}], (9, 9, 14)),
        # ... unless that chunk's total is the sum of its counts: then it replaces them.
        ([{"promptTokenCount": 9, "candidatesTokenCount": 21, "totalTokenCount": 30}, None,
          {"promptTokenCount": 87, "thoughtsTokenCount": 78, "totalTokenCount": 165}],
         (87, 78, 165)),
        ([{"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}, None,
          {"promptTokenCount": 9, "totalTokenCount": 9}], (9, 4, 9)),
    ],
)  # fmt: skip
def test_google_usage_is_cumulative_over_the_chunks(
    played: Player, usages: list[Any], expected: tuple[int, int, int]
) -> None:
    """Usage is cumulative over the chunks, and no count is lost."""
    events = [candidate("a", "STOP", usageMetadata=usage) for usage in usages]
    got = answer(played, "google/g", *events).usage
    assert (got.prompt_tokens, got.completion_tokens, got.total_tokens) == expected


def test_google_content_without_parts_is_read(played: Player) -> None:
    """Content without parts, parts that are one object and candidates without content are read."""
    odd = {"candidates": [{"content": {"parts": {"text": "a"}}}]}
    empty = {"candidates": [{"finishReason": "STOP"}]}
    assert answer(played, "google/g", odd, {"candidates": [{"content": {}}]}, empty).text == "a"
