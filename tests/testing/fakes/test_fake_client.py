"""The client under `fake_model`: providers, tokens and costs."""

from __future__ import annotations

import math

import pytest

from ember.api import models
from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.api.models import ModelRegistry
from ember.api.models.schemas import ToolCall, UsageStats
from ember_testing import Answer, FakeModel
from ember_testing.faults import quota, rate_limit

ROUTES = {
    "gpt-4": ("openai", "gpt-4"),
    "gpt-4-vision": ("openai", "gpt-4-vision-preview"),
    "o3": ("openai", "o3"),
    "o3-pro": ("openai-responses", "o3-pro"),
    "claude-3-opus": ("anthropic", "claude-3-opus-20240229"),
    "gemini-pro": ("google", "gemini-pro-latest"),
    "openai/gpt-4": ("openai", "gpt-4"),
    "groq/openai/gpt-oss-20b": ("groq", "openai/gpt-oss-20b"),
    "openrouter/anthropic/claude-x": ("openrouter", "anthropic/claude-x"),
    "mistral/mistral-small": ("mistral", "mistral-small"),
    "azure/gpt-4": ("azure", "gpt-4"),
    "xai/grok-4": ("xai", "grok-4"),
}


@pytest.mark.parametrize("model", ROUTES)
@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
def test_name_selects_the_faked_provider(model: str, fake_model: FakeModel) -> None:
    """A call reaches the provider of a model's name, with the provider's id of the model."""
    provider, wire_id = ROUTES[model]
    fake_model(model, "by its name")
    fake_model(f"{provider}/*", "by its provider")
    assert models(model, "hi").text == "by its name"
    assert models(model, "hi").text == "by its provider"
    assert [(c.provider, c.model) for c in fake_model.calls] == [(provider, wire_id)] * 2


def test_pattern_with_a_provider_matches_no_other_provider(fake_model: FakeModel) -> None:
    """A pattern with a provider's prefix does not match the same model at another provider."""
    fake_model("openai/gpt-4", "OpenAI")
    fake_model("azure/gpt-4", "Azure")
    assert models("azure/gpt-4", "hi").text == "Azure"
    assert models("gpt-4", "hi").text == "OpenAI"


@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
def test_call_to_a_custom_base_url_is_faked(fake_model: FakeModel) -> None:
    """A custom base URL is answered as the provider whose API format it uses."""
    fake_model("groq/llama-x", "behind a gateway")
    fake_model("local/smollm2", "embedded")
    answer = models("groq/llama-x", "hi", base_url="http://gateway.test/v1")
    assert answer.text == "behind a gateway"
    assert models("local/smollm2", "hi").text == "embedded"


COSTS = [
    ("gpt-4", UsageStats(1000, 500), 1000 * 30e-6 + 500 * 60e-6),
    ("gpt-4o", UsageStats(1000, 100, cached_tokens=400),
     600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 10e-6),
    ("claude-3-opus", UsageStats(1000, 100, cached_tokens=300, cache_write_tokens=200),
     500 * 15e-6 + 300 * 1.5e-6 + 200 * 18.75e-6 + 100 * 75e-6),
    ("gemini-2.5-flash", UsageStats(1000, 100, cached_tokens=400, reasoning_tokens=60),
     600 * 0.3e-6 + 400 * 0.03e-6 + 100 * 2.5e-6),
]  # fmt: skip


@pytest.mark.parametrize(("model", "usage", "dollars"), COSTS, ids=[row[0] for row in COSTS])
def test_faked_calls_cost_the_published_prices(
    model: str, usage: UsageStats, dollars: float, fake_model: FakeModel
) -> None:
    """Published prices are charged, also for cached reads and writes, streamed or not."""
    fake_model(model, "Paris", "Paris", usage=usage)
    whole = models(model, "hi")
    with models.stream(model, "hi") as stream:
        assert "".join(chunk.text for chunk in stream) == "Paris"
    for used in (whole.usage, stream.usage):
        assert used.cost == pytest.approx(dollars, rel=1e-12)
        assert used.priced(math.inf) == usage.priced(math.inf)


def test_prices_of_the_environment_apply_to_faked_calls(
    fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price set in the environment is in dollars per million tokens, for that model only."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "1000")
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", "2000")
    fake_model("gpt-4*", *["Paris"] * 2, usage=UsageStats(10, 10))
    assert models("gpt-4", "hi").usage.cost == pytest.approx(0.03)
    assert models("gpt-4o", "hi").usage.cost < 0.001
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "a lot")
    fake_model("gpt-4", "Paris")
    with pytest.raises(ModelProviderError, match="EMBER_COST_GPT4_INPUT"):
        models("gpt-4", "hi")


def test_summary_adds_up_faked_calls(fake_model: FakeModel) -> None:
    """A registry's summary adds up answered calls and leaves out failed ones."""
    registry = ModelRegistry()
    fake_model("gpt-4", "one", rate_limit(), quota(), "two", usage=UsageStats(10, 20))
    for expected in (None, "rate_limit", "quota", None):
        if expected is None:
            registry.invoke_model("gpt-4", "hi")
        else:
            with pytest.raises(ProviderAPIError, match=expected):
                registry.invoke_model("gpt-4", "hi")
    summary = registry.get_usage_summary("gpt-4")
    assert summary is not None
    assert (summary.request_count, summary.total_usage.total_tokens) == (2, 60)
    assert summary.cost_usd == pytest.approx(2 * (10 * 30e-6 + 20 * 60e-6))


IMAGE = b"\x89PNG\r\n\x1a\n..."


@pytest.mark.parametrize("model", ["gpt-4", "o3-pro", "claude-3-opus", "gemini-pro"])
def test_recorded_call_has_embers_types_on_every_wire(model: str, fake_model: FakeModel) -> None:
    """A call's conversation, tool results and images have Ember's types on every wire."""
    call = ToolCall("call_1", "weather", {"city": "Paris"})
    fake_model(model, Answer("Looking.", tool_calls=[call]), lambda call: call.prompt)
    conversation: list[dict[str, object]] = [
        {"role": "user", "content": ["What is this?", IMAGE]},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": "And the weather?"},
    ]
    answer = models(model, conversation, system="Be brief.")
    conversation += [dict(answer.message), {"role": "tool", "tool_call_id": answer.tool_calls[0].id,
                                            "content": "sunny"}]  # fmt: skip
    models(model, [*conversation, {"role": "user", "content": "Thanks"}], system="Be brief.")
    first, second = fake_model.calls
    assert (first.system, second.prompt) == ("Be brief.", "Thanks")
    assert [message.role for message in first.messages] == ["user", "assistant", "user"]
    assert [message.text for message in first.messages][1:] == ["A picture.", "And the weather?"]
    assert [(image.mime_type, image.data) for image in first.images] == [("image/png", IMAGE)]
    roles = [message.role for message in second.messages]
    assert [role for role in roles if role == "tool"] == ["tool"]
    assert roles[-1] == "user"
    calls_made = [
        part for turn in second.messages for part in turn.parts if isinstance(part, ToolCall)
    ]
    assert [(tool.name, tool.arguments) for tool in calls_made] == [("weather", {"city": "Paris"})]


@pytest.mark.parametrize("model", ["gpt-4", "o3-pro", "claude-3-opus", "gemini-pro"])
def test_parallel_tool_calls_are_one_message_on_every_wire(
    model: str, fake_model: FakeModel
) -> None:
    """On every wire the tool calls of one answer are one message, and so are their results."""
    asked = [ToolCall(f"call_{city}", "weather", {"city": city}) for city in ("Ulm", "Bonn")]
    fake_model(model, Answer(tool_calls=asked), "Thanks.")
    answer = models(model, "The weather?")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}
               for call in answer.tool_calls]  # fmt: skip
    models(model, [{"role": "user", "content": "The weather?"}, answer.message, *results])
    user, assistant, tool = fake_model.calls[-1].messages
    assert (user.text, assistant.role, tool.role) == ("The weather?", "assistant", "tool")
    assert [part.arguments["city"] for part in assistant.parts if isinstance(part, ToolCall)] == [
        "Ulm", "Bonn"]  # fmt: skip
    assert len(tool.parts) == 2


def test_impossible_replies_are_refused(fake_model: FakeModel) -> None:
    """Replies of a wrong type, or impossible for the provider, are refused with a remedy."""
    with pytest.raises(TypeError, match="needs an answer"):
        fake_model("gpt-4")
    with pytest.raises(TypeError, match="is no answer: pass text"):
        fake_model("gpt-4", 7)  # type: ignore[arg-type]  # what must fail
    with pytest.raises(ValueError, match="without a tool call"):
        Answer(finish_reason="tool_calls")
    with pytest.raises(ValueError, match="which is less"):
        Answer("x", usage=UsageStats(1, 1, cached_tokens=2))
    with pytest.raises(ValueError, match="leave the text out"):
        Answer("Paris", chunks=["Lon", "don"])


def test_list_gives_the_chunks_of_a_stream(fake_model: FakeModel) -> None:
    """A list gives the chunks of a stream; a call that does not stream gets them joined."""
    fake_model("gpt-4", ["Par", "is"], ["Par", "is"])
    with models.stream("gpt-4", "hi") as stream:
        assert [chunk.text for chunk in stream if chunk.text] == ["Par", "is"]
    assert models("gpt-4", "hi").text == "Paris"
