"""Arguments that cannot be sent, and their error messages."""

from __future__ import annotations

from typing import Any

import pytest

from ember.api import models
from ember.exceptions import ModelProviderError
from tests.corpus import sent

MODELS = {
    "openai": "gpt-4o",
    "openai-responses": "openai-responses/gpt-5.5",
    "anthropic": "claude-opus-4-6",
    "google": "gemini-3.8-flash",
}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tools": "weather"}, "tools= is a list"),
        ({"tools": [7]}, "a tool is a dict"),
        ({"tool_choice": 7}, "tool_choice="),
        ({"response_format": "json"}, "response_format="),
        ({"timeout": -1}, "timeout="),
        ({"temperature": float("nan")}, "cannot be sent as JSON: .*nan|Out of range"),
        ({"metadata": object()}, "'metadata' cannot be sent"),
        ({"extra_headers": {"x": "a\nb"}}, "header 'x'"),
        ({"api_key": "sk-\nx"}, "look at the key"),
        ({"api_key": b"sk-secret"}, "api_key= is a string, not bytes"),
        ({"base_url": 7}, "base_url= is a string such as .*, not 7"),
        ({"extra_headers": ["x"]}, "extra_headers= is a dict of names and values, not list"),
        (
            {"extra_headers": {"authorization": b"sk-secret"}},
            "'authorization': a value of type byt",
        ),
        ({"extra_headers": {7: "x"}}, "strings only, not 7"),
        ({"tools": [{"type": "function", "function": 7}]}, "a tool is a dict .*, not 7"),
        ({"tools": [{"name": "f", "parameters": 7}]}, "'f' needs a JSON schema .*, not 7"),
        ({"response_format": {"type": "json_schema", "json_schema": 7}}, "no dict: 7"),
    ],
)
def test_argument_that_cannot_be_sent_is_refused(arguments: dict[str, Any], says: str) -> None:
    """An argument that cannot be sent is refused by name on every wire, without the key."""
    for model in MODELS.values():
        with pytest.raises(ModelProviderError, match=says) as caught:
            sent(model, **arguments)
        assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        ("gpt-4o", {"tools": [{"functionDeclarations": [7]}]}, "a tool is a dict .*, not 7"),
        ("claude-opus-5", {"stop": 7}, "stop= is a string or a list of strings, not 7"),
        ("gemini-3.8-flash", {"stop": {"a": 1}}, "stop= is a string .*, not {'a': 1}"),
        ("openai-responses/gpt-5.5", {"reasoning": "x"}, "reasoning= is a dict, not 'x'"),
        ("openai-responses/gpt-5.5", {"text": 7}, "text= is a dict, not 7"),
        ("openrouter/m", {"reasoning": 7}, "reasoning= is a dict, not 7"),
        ("claude-opus-5", {"output_config": "x"}, "output_config= is a dict, not 'x'"),
        ("gemini-3.8-flash", {"thinkingConfig": 7}, "thinkingConfig= is a dict, not 7"),
        ("gemini-3.8-flash", {"generationConfig": 7, "n": 1}, "generationConfig= is a dict"),
        ("gemini-3.8-flash", {"reasoning_effort": "none"}, "takes reasoning_effort minimal, low"),
        ("gemini-3.8-flash", {"reasoning_effort": ["low"]}, r"not \['low'\]"),
    ],
)
def test_arguments_translated_for_one_wire_are_checked(
    model: str, arguments: dict[str, Any], says: str
) -> None:
    """Arguments that Ember translates for one wire are checked: none raises a TypeError."""
    with pytest.raises(ModelProviderError, match=says):
        sent(model, **arguments)


def test_stream_true_in_a_plain_call_is_refused() -> None:
    """`stream=True` in a plain call is refused, with the function to use instead."""
    with pytest.raises(ModelProviderError, match=r"models\.stream\(\)"):
        models("gpt-4o", "hi", stream=True, api_key="k")
    with pytest.raises(ModelProviderError, match="and models"):
        models.stream("gpt-4o", "hi", stream=False, api_key="k")
