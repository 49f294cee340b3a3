"""Names that users type: parameters, fields, and names from other libraries."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.api.models import ModelRegistry
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, Chunk, ToolCall, UsageStats
from ember.providers.arguments import PARAMETERS
from ember.providers.call import DOCUMENTED, check_names
from ember_testing import Answer, FakeModel
from ember_testing.faults import rate_limit
from tests.corpus import needs_corpus, rows, sent

# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("system_prompt", "system="),
        ("headers", "extra_headers="),
        ("api_base", "base_url="),
        ("max_retries", "tenacity"),
        ("extra_body", "each entry"),
        ("response_model", "response_format="),
        ("images", "list of parts"),
        ("temprature", "temperature="),
        ("max_token", "max_tokens="),
        ("stops", "stop="),
        ("Temperature", "temperature="),
        ("apikey", "api_key="),
    ],
)
def test_borrowed_and_misspelt_parameters_are_refused(name: str, instead: str) -> None:
    """A name from another library, or a near miss, is an error that suggests the right one."""
    for model in ("openai/m", "anthropic/m", "google/m", "openai-responses/m"):
        with pytest.raises(ModelProviderError, match=name) as caught:
            models(model, "Hi", api_key="k", **{name: 1})
        assert instead in str(caught.value)
        assert caught.value.context["param"] == name


def test_other_parameters_reach_the_provider() -> None:
    """Documented parameters of providers pass, and so do unknown ones."""
    body = sent("openai/m", top_k=3, speed="fast", top_n=2, tomorrows_parameter=1).body
    assert (body["top_k"], body["speed"], body["top_n"]) == (3, "fast", 2)
    assert body["tomorrows_parameter"] == 1


def test_no_documented_parameter_is_refused() -> None:
    """The checks for borrowed and misspelt names accept all parameters of providers."""
    check_names(DOCUMENTED)
    assert DOCUMENTED.issuperset(PARAMETERS)


@needs_corpus
def test_every_recorded_parameter_is_accepted() -> None:
    """Every top-level key of a recorded request is accepted."""
    names: set[str] = set()
    for row in rows().values():
        try:
            body = json.loads(row["request_body"] or "{}")
        except ValueError:
            continue
        names |= body.keys() if isinstance(body, dict) else set()
    assert len(names) > 50
    check_names(names)


def test_custom_provider_gets_every_parameter() -> None:
    """A custom provider gets every name, including those refused elsewhere."""
    got: list[dict[str, Any]] = []

    class Custom(BaseProvider):
        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            got.append(kwargs)
            return ChatResponse("hi", UsageStats(1, 1, cost=0.0))

    register_provider("takes-all", Custom)
    models("takes-all/m", "Hi", system_prompt="x", temprature=1, headers={}, timeout=None)
    assert got == [{"system_prompt": "x", "temprature": 1, "headers": {}, "timeout": None}]


def test_messages_argument_replaces_the_prompt() -> None:
    """`messages=` alone is the prompt; with a prompt it is refused, since one would be lost."""
    turns = [{"role": "user", "content": "mine"}]
    assert sent("openai/m", None, messages=turns).body["messages"] == turns
    with pytest.raises(ModelProviderError, match="both given"):
        models("openai/m", "mine", messages=turns, api_key="k")
    with pytest.raises(ModelProviderError, match="both given"):
        models.instance("openai/m", messages=turns, api_key="k")("mine")
    with pytest.raises(ModelProviderError, match="None"):
        models("openai/m", api_key="k")  # type: ignore[call-arg]  # a deliberate mistake


def test_none_removes_a_bound_parameter(fake_model: FakeModel) -> None:
    """An override of None removes a binding's parameter for that call."""
    calls: list[Any] = []
    fake_model("gpt-5", lambda call: calls.append(call.params) or "Hi")
    binding = models.instance("gpt-5", temperature=0.5)
    binding("Hi", temperature=None)
    binding("Hi")
    assert ["temperature" in params for params in calls] == [False, True]


def test_binding_shows_no_secret_of_its_address() -> None:
    """Neither the repr nor the pickle of a binding contains secrets of `base_url`."""
    import pickle

    binding = models.instance("gpt-4", base_url="https://me:s3cret@gw.example/v1?key=abcdef")
    for text in (repr(binding), pickle.dumps(binding).decode("latin-1")):
        assert "s3cret" not in text
        assert "abcdef" not in text
        assert "gw.example/v1" in text


# --- names of fields -----------------------------------------------------------------------------

RESPONSE = ChatResponse("hi", UsageStats(1, 2))


@pytest.mark.parametrize(
    ("value", "name", "instead"),
    [
        (RESPONSE, "content", ".text"),
        (RESPONSE, "choices", ".text"),
        (RESPONSE, "output_text", ".text"),
        (RESPONSE.usage, "input_tokens", ".prompt_tokens"),
        (RESPONSE.usage, "output_tokens", ".completion_tokens"),
        (Chunk("hi"), "choices", ".text"),
        (Chunk("hi"), "delta", ".text"),
    ],
)
def test_field_name_of_another_library_is_explained(value: object, name: str, instead: str) -> None:
    """A field name from another library raises an error with Ember's; `hasattr` is False."""
    with pytest.raises(AttributeError, match=rf"no attribute '{name}': use {instead}"):
        getattr(value, name)
    assert not hasattr(value, name)


def test_unknown_field_is_an_ordinary_error() -> None:
    """Any other name raises an ordinary AttributeError."""
    with pytest.raises(AttributeError, match=r"'ChatResponse' object has no attribute 'txt'$"):
        RESPONSE.txt  # type: ignore[attr-defined]  # noqa: B018 - what is tested


def test_usage_get() -> None:
    """`usage.get` works like `dict.get`."""
    assert (RESPONSE.usage.get("prompt_tokens"), RESPONSE.usage.get("nothing", 7)) == (1, 7)
    assert RESPONSE.usage.get("nothing") is None


def test_response_as_dict_is_json() -> None:
    """`as_dict()` is valid JSON, with an unknown price and with tool calls."""
    call = ToolCall("1", "f", {"a": math.inf})
    response = ChatResponse("hi", UsageStats(1, 2), tool_calls=[call], raw={"x": math.nan})
    as_json = json.loads(json.dumps(response.as_dict(), allow_nan=False))
    assert (as_json["data"], as_json["usage"]["cost"], as_json["raw"]) == ("hi", None, {"x": None})
    assert as_json["tool_calls"][0]["arguments"] == {"a": None}


# --- await and for -------------------------------------------------------------------------------


def test_awaiting_a_sync_call_says_what_to_write(fake_model: FakeModel) -> None:
    """`await models(...)` and the wrong kind of `for` raise errors that say what to write."""
    fake_model("gpt-5", lambda call: "Hi")

    async def awaited(value: Any) -> None:
        await value

    async def each(value: Any) -> None:
        async for _ in value:
            pass

    with pytest.raises(TypeError, match=r"await models\.acall"):
        asyncio.run(awaited(models("gpt-5", "Hi")))
    with pytest.raises(TypeError, match=r"models\.astream"):
        asyncio.run(each(models.stream("gpt-5", "Hi")))
    with pytest.raises(TypeError, match=r"async for.*without an await"):
        asyncio.run(awaited(models.astream("gpt-5", "Hi")))
    with pytest.raises(TypeError, match=r"models\.stream"):
        list(models.astream("gpt-5", "Hi"))  # type: ignore[call-overload]  # the mistake
    assert fake_model.calls


# --- the registry's total, and the log -----------------------------------------------------------


def test_total_of_all_models(fake_model: FakeModel) -> None:
    """`total()` adds the usage of all models; before any call it is zero."""
    registry = ModelRegistry()
    assert (registry.total().request_count, registry.total().cost_usd) == (0, 0.0)
    for model in ("gpt-4o", "claude-3-opus"):
        fake_model(model, Answer(text="Hi", usage=UsageStats(1000, 0)))
        registry.invoke_model(model, "Hi")
    total = registry.total()
    assert (total.request_count, total.total_usage.prompt_tokens) == (2, 2000)
    assert total.cost_usd == pytest.approx(0.0025 + 0.015)


def test_log_of_a_call(fake_model: FakeModel, caplog: pytest.LogCaptureFixture) -> None:
    """Each call, also a streamed or failed one, logs a line at INFO, without prompt and key."""
    fake_model("gpt-4o", Answer(text="Paris", usage=UsageStats(9, 12)), "Hi", rate_limit())
    key = "sk-0123456789abcdef"
    with caplog.at_level(logging.INFO, "ember"):
        models("gpt-4o", "my secret prompt", api_key=key)
        list(models.stream("gpt-4o", "my secret prompt", api_key=key))
        with pytest.raises(ProviderAPIError):
            models("gpt-4o", "my secret prompt", api_key=key)
    lines = [record.getMessage() for record in caplog.records if record.name == "ember"]
    assert len(lines) == 3
    assert lines[0].startswith("gpt-4o: 200 in ")
    assert "9 + 12 tokens, $0.0001" in lines[0]
    assert "429 rate_limit" in lines[2]
    assert not [line for line in lines if "secret" in line or key in line or "Paris" in line]
