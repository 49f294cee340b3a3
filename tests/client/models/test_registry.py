"""The registry: custom providers, instances, usage, cost and metrics."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import Any, Optional

import pytest
import trio
from prometheus_client import CollectorRegistry, Counter, Histogram

from ember.api import models
from ember.api.exceptions import ModelProviderError, ProviderAPIError, UnknownPriceWarning
from ember.api.models import ModelRegistry
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, UsageStats
from ember_testing import Answer, FakeModel
from ember_testing.faults import overloaded, rate_limit
from tests.ways import KEY

calls: list[tuple[Any, ...]] = []


def azure_openai_call(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The function that the design document calls but does not define."""
    calls.append((*args, kwargs, threading.current_thread().name))
    return {
        "choices": [{"message": {"content": "Hello from Azure"}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2000},
    }


# As in the design document, except for type names, which the linter requires newer.
class AzureOpenAIProvider(BaseProvider):
    """Azure-hosted OpenAI models."""

    def __init__(self, api_key: str):
        super().__init__(api_key)
        self.endpoint = os.getenv("AZURE_OPENAI_ENDPOINT")

    def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
        # Azure-specific API call
        response = azure_openai_call(self.endpoint, prompt, model, **kwargs)
        return ChatResponse(
            data=response["choices"][0]["message"]["content"],
            usage=UsageStats(
                prompt_tokens=response["usage"]["prompt_tokens"],
                completion_tokens=response["usage"]["completion_tokens"],
            ),
        )

    def _get_api_key_from_env(self) -> Optional[str]:  # noqa: UP045 - as written
        return os.getenv("AZURE_OPENAI_API_KEY")


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the document's provider under another name; return a model's name for it."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://azure.invalid")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    calls.clear()
    register_provider("my-azure", AzureOpenAIProvider)
    return "my-azure/gpt-4"


# --- a custom provider --------------------------------------------------------------------------


def test_custom_provider(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's provider answers, with its key, and with its cost by the model's price."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "30.0")
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", "60.0")
    response = models(azure, "Hello from Azure", temperature=0.5)
    assert calls[0][:4] == (
        "https://azure.invalid",
        "Hello from Azure",
        "gpt-4",
        {"temperature": 0.5},
    )
    assert response.text == response.data == "Hello from Azure"
    assert (response.provider, response.model) == ("my-azure", "gpt-4")
    assert response.usage.cost == 0.15
    assert ModelRegistry().get_model(azure).api_key == KEY


def test_provider_without_its_key(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is a set-up error that names the class."""
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(ModelProviderError, match="AzureOpenAIProvider found no API key"):
        ModelRegistry().invoke_model(azure, "Hello")


def test_synchronous_provider_serves_acall_from_a_thread(azure: str) -> None:
    """`complete` alone is enough for `acall` in both event loops, which are not blocked."""
    response = asyncio.run(models.acall(azure, "Hello"))
    assert response.text == "Hello from Azure"
    assert trio.run(models.acall, azure, "Hello").text == "Hello from Azure"
    main = threading.main_thread().name
    assert main not in {thread for *_, thread in calls}


def test_synchronous_provider_streams_one_chunk(azure: str) -> None:
    """A provider that does not stream gives its whole answer as one chunk, sync and async."""
    stream = models.stream(azure, "Hello")
    assert [chunk.text for chunk in stream] == ["Hello from Azure"]
    assert stream.response.usage.total_tokens == 3000

    async def chunks() -> list[str]:
        return [chunk.text async for chunk in models.astream(azure, "Hello")]

    assert asyncio.run(chunks()) == ["Hello from Azure"]


def test_asynchronous_provider_is_awaited() -> None:
    """A provider's `acomplete` is used instead of a thread."""

    class Awaited(BaseProvider):
        async def acomplete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            await asyncio.sleep(0)
            return ChatResponse(threading.current_thread().name, UsageStats(1, 1, cost=0.0))

        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            raise NotImplementedError

    register_provider("awaited", Awaited)
    response = asyncio.run(models.acall("awaited/m", "Hi"))
    assert response.text == threading.main_thread().name


def test_second_registration_replaces_the_first() -> None:
    """Instances of the replaced class are dropped; other instances and all usage are kept."""

    def provider(answer: str) -> type[BaseProvider]:
        class Provider(BaseProvider):
            def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
                return ChatResponse(answer, UsageStats(1, 1, cost=0.0))

        return Provider

    registry = ModelRegistry()
    register_provider("replaced", provider("first"))
    register_provider("untouched", provider("other"))
    binding = models.instance("replaced/m")
    untouched, openai = registry.get_model("untouched/m"), registry.get_model("gpt-4")
    assert registry.invoke_model("replaced/m", "Hi").text == binding("Hi").text == "first"
    register_provider("replaced", provider("second"))
    assert registry.invoke_model("replaced/m", "Hi").text == binding("Hi").text == "second"
    summary = registry.get_usage_summary("replaced/m")
    assert summary is not None
    assert summary.request_count == 2
    assert registry.get_model("untouched/m") is untouched
    assert registry.get_model("gpt-4") is openai


def test_provider_may_call_the_registry_while_it_is_made() -> None:
    """A provider whose constructor requests another model does not deadlock the registry."""

    class Relay(BaseProvider):
        def __init__(self, api_key: str | None = None) -> None:
            super().__init__(api_key)
            self.inner = models.instance("gpt-4")

        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            return ChatResponse(self.inner.model, UsageStats(1, 1, cost=0.0))

    register_provider("relay", Relay)
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(models("relay/m", "Hi").text), daemon=True
    )
    thread.start()
    thread.join(10)
    assert answers == ["gpt-4"]


def test_provider_that_returns_no_chat_response_is_an_error() -> None:
    """A return value that is not a ChatResponse is an error with the value; a stream's too."""

    class Wrong(BaseProvider):
        def complete(self, prompt: str, model: str, **kwargs: Any) -> Any:
            return {"text": "hi"}

    register_provider("wrong", Wrong)
    with pytest.raises(ModelProviderError, match=r"must return a ChatResponse.*'text': 'hi'") as e:
        models("wrong/m", "Hi")
    assert e.value.context["response"] == {"text": "hi"}
    with pytest.raises(ModelProviderError, match="must return a ChatResponse"):
        list(models.stream("wrong/m", "Hi"))


# --- usage --------------------------------------------------------------------------------------


ANSWER = Answer(chunks=["Hello", "!"], usage=UsageStats(9, 12), model="gpt-4-0613")


def test_summary_is_kept_by_the_name_that_was_called(
    fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each registry counts separately, by the name used in the call; None before a call."""
    monkeypatch.setenv("EMBER_COST_GPT40613_INPUT", "30")
    monkeypatch.setenv("EMBER_COST_GPT40613_OUTPUT", "60")
    registry, other = ModelRegistry(), ModelRegistry()
    fake_model("gpt-4", ANSWER, ANSWER, ANSWER)
    for name in ("gpt-4", "gpt-4", "openai/gpt-4"):
        registry.invoke_model(name, "Hi")
    summary = registry.get_usage_summary("gpt-4")
    assert summary is not None
    assert summary.request_count == 2
    assert summary.total_usage.total_tokens == 42
    assert summary.cost_usd == summary.total_usage.cost == 0.00198
    prefixed = registry.get_usage_summary("openai/gpt-4")
    assert prefixed is not None
    assert prefixed.request_count == 1
    assert registry.get_usage_summary("gpt-4o") is other.get_usage_summary("gpt-4") is None


def test_unknown_price_is_counted_and_left_out(fake_model: FakeModel) -> None:
    """Unpriced requests are counted separately; the cost of only such requests is nan, not 0."""
    registry = ModelRegistry()
    fake_model("gpt-of-tomorrow", "Hello!", usage=UsageStats(9, 12))
    with pytest.warns(UnknownPriceWarning):
        registry.invoke_model("gpt-of-tomorrow", "Hi")
    summary = registry.get_usage_summary("gpt-of-tomorrow")
    assert summary is not None
    assert (summary.request_count, summary.unpriced_requests) == (1, 1)
    assert math.isnan(summary.cost_usd)
    assert summary.total_usage.total_tokens == 21


@pytest.mark.parametrize("streamed", [False, True])
def test_malformed_price_loses_nothing_that_was_paid_for(
    streamed: bool, fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable and contains the answer, whose tokens are counted."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "cheap")
    registry = ModelRegistry()
    fake_model("gpt-4", "Hello!", usage=UsageStats(9, 12))
    if streamed:
        stream = registry.stream_model("gpt-4", "Hi")
        with pytest.raises(ModelProviderError, match="cheap") as caught:
            list(stream)
        assert stream.response.text == stream.text == "Hello!"
    else:
        with pytest.raises(ModelProviderError, match="cheap") as caught:
            registry.invoke_model("gpt-4", "Hi")
    assert caught.value.context["response"].text == "Hello!"
    summary = registry.get_usage_summary("gpt-4")
    assert summary is not None
    assert (summary.request_count, summary.total_usage.total_tokens) == (1, 21)


def test_malformed_price_of_a_custom_provider(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a custom provider, plain and streamed."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "cheap")
    registry = ModelRegistry()
    with pytest.raises(ModelProviderError, match="cheap") as caught:
        registry.invoke_model(azure, "Hi")
    assert caught.value.context["response"].text == "Hello from Azure"
    with pytest.raises(ModelProviderError, match="cheap"):
        list(registry.stream_model(azure, "Hi"))
    summary = registry.get_usage_summary(azure)
    assert summary is not None
    assert (summary.request_count, summary.total_usage.total_tokens) == (2, 6000)


def test_stream_left_early_is_one_request(fake_model: FakeModel) -> None:
    """A stream that is left early is counted once, with the usage reported until then."""
    registry = ModelRegistry()
    fake_model("gpt-4", ANSWER)
    with registry.stream_model("gpt-4", "Hi") as stream:
        assert next(stream).text == "Hello"
    summary = registry.get_usage_summary("gpt-4")
    assert summary is not None
    assert (summary.request_count, summary.total_usage.total_tokens) == (1, 0)


def test_abandoned_stream_is_one_request(fake_model: FakeModel) -> None:
    """A stream that is garbage-collected unclosed is counted too, since it may be billed."""
    registry = ModelRegistry()
    fake_model("gpt-4", ANSWER)
    stream = registry.stream_model("gpt-4", "Hi")
    next(stream)
    assert registry.get_usage_summary("gpt-4") is None
    del stream
    summary = registry.get_usage_summary("gpt-4")
    assert summary is not None
    assert summary.request_count == 1


def test_response_of_a_running_stream_is_an_error(fake_model: FakeModel) -> None:
    """`.response` and `.usage` of a running stream raise an error that says what to do."""
    fake_model("gpt-4", ANSWER)
    stream = models.stream("gpt-4", "Hi")
    assert next(stream).text == stream.text == "Hello"
    with pytest.raises(ModelProviderError, match="has not ended: iterate it to its end"):
        _ = stream.usage
    assert "".join(map(str, stream)) == "!"
    assert stream.text == "Hello!"
    assert stream.usage.total_tokens == 21


# --- metrics ------------------------------------------------------------------------------------


def test_metrics_of_the_design_document(fake_model: FakeModel) -> None:
    """Calls and streams update the document's two metrics if no others are given."""
    collected = CollectorRegistry()
    metrics = {
        "model_invocations": Counter("llm_calls", "Total LLM calls", ["model"], registry=collected),
        "invocation_duration": Histogram(
            "llm_duration", "Call duration", ["model"], registry=collected
        ),
    }
    registry = ModelRegistry(metrics=metrics)
    fake_model("gpt-4", ANSWER, ANSWER, ANSWER)
    registry.invoke_model("gpt-4", "Hello")
    list(registry.stream_model("gpt-4", "Hello"))
    asyncio.run(registry.invoke_model_async("gpt-4", "Hello"))
    registry.stream_model("gpt-4", "never read")
    labels = {"model": "gpt-4"}
    assert collected.get_sample_value("llm_calls_total", labels) == 3
    assert collected.get_sample_value("llm_duration_count", labels) == 3
    assert (collected.get_sample_value("llm_duration_sum", labels) or 0) > 0


def test_error_metrics(fake_model: FakeModel) -> None:
    """Failed calls and streams are counted with their error type."""
    collected = CollectorRegistry()
    errors = Counter("errors", "errors", ["model", "error_type"], registry=collected)
    registry = ModelRegistry(metrics={"model_errors": errors})
    fake_model("gpt-4", overloaded(), rate_limit())
    with pytest.raises(ProviderAPIError):
        registry.invoke_model("gpt-4", "Hi")
    with pytest.raises(ProviderAPIError):
        list(registry.stream_model("gpt-4", "Hi"))
    with pytest.raises(ModelProviderError):
        registry.invoke_model("gpt-4", "")
    found = {
        sample.labels["error_type"]: sample.value
        for metric in collected.collect()
        for sample in metric.samples
        if sample.name == "errors_total"
    }
    assert found == {"overloaded": 1, "rate_limit": 1, "ModelProviderError": 1}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("model_invocations", lambda r: Counter("c", "c", registry=r)),
        ("model_invocations", lambda r: Counter("c", "c", ["modell"], registry=r)),
        ("model_errors", lambda r: Counter("c", "c", ["model"], registry=r)),
        ("invocation_duration", lambda r: Counter("c", "c", ["model"], registry=r)),
        ("model_cost", lambda r: object()),
    ],
)
def test_metric_with_other_labels_is_refused(name: str, make: Any) -> None:
    """A metric with other labels or of another kind is refused before any call is billed."""
    with pytest.raises(ModelProviderError, match=rf"metrics\['{name}'\] cannot be filled"):
        ModelRegistry(metrics={name: make(CollectorRegistry())})


def test_checking_a_metric_adds_no_series() -> None:
    """The check of a metric leaves no series in it before the first call."""
    collected = CollectorRegistry()
    counter = Counter("c", "c", ["model", "error_type"], registry=collected)
    ModelRegistry(metrics={"model_errors": counter})
    assert [sample for metric in collected.collect() for sample in metric.samples] == []


def test_misspelt_metric_name_is_refused() -> None:
    """A misspelt metric is an error that lists the valid names."""
    with pytest.raises(ModelProviderError, match=r"model_invocation'.*model_invocations"):
        ModelRegistry(metrics={"model_invocation": object()})
