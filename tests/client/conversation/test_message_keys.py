"""Messages without a role or content."""

from __future__ import annotations

from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ModelProviderError

MODELS = ["gpt-5.5", "openai-responses/gpt-5.5", "claude-opus-4-8", "gemini-3-pro-preview"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user"}], "message 0 has no 'content'"),
        ([{"role": "user", "text": "hi"}], "message 0 has no 'content'"),
        ([{"role": "user", "content": None}], "message 0 has no content"),
        ([{"role": "user", "content": "a"}, {"role": "assistant"}], "message 1 has no 'content'"),
        ([{"role": "system", "prompt": "x"}], "message 0 has no 'content'"),
        ([{"role": "tool", "tool_call_id": "c"}], "message 0 has no 'content'"),
        ([{"content": "hi"}], "message 0 has no 'role'"),
        ([{"role": "user", "content": "a"}, {"content": ["b"]}], "message 1 has no 'role'"),
        ([{"role": "user", "content": "a"}, {"role": "king", "content": "b"}], "message 1: 'king'"),
    ],
)
def test_a_message_without_role_or_content_is_refused_with_its_index(
    model: str, messages: list[dict[str, Any]], says: str
) -> None:
    """A message that would be sent empty or misread is refused before it is sent."""
    with pytest.raises(ModelProviderError, match=says):
        models(model, messages, api_key="k", base_url="http://127.0.0.1:9/v1")


def test_answer_without_content_is_a_valid_message(fake_model: Any) -> None:
    """An answer that only calls a tool has no content, but is a valid message."""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    fake_model("gpt-5.5", "done")
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "b"},
    ]
    assert models("gpt-5.5", messages).text == "done"
