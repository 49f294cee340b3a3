"""`fake_model`: answers in the providers' wire formats, and invalid use."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading

import pytest

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember.api.models import ModelRegistry
from ember.api.models.schemas import ChatResponse, ToolCall, UsageStats
from ember_testing import Answer, FakeModel, UnansweredCall, fake_model, faults

MODELS = [
    "gpt-4",
    "o3-pro",
    "claude-3-opus",
    "gemini-pro",
    "groq/openai/gpt-oss-20b",
    "azure/gpt-4",
]
FAULTS = {
    "rate_limit": faults.rate_limit,
    "quota": faults.quota,
    "overloaded": faults.overloaded,
    "server": faults.server_error,
    "authentication": faults.authentication,
    "not_found": faults.not_found,
    "context_length": faults.context_length,
}


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_a_faked_answer_is_read_back(model: str, fake_model: FakeModel) -> None:
    """Every field of a faked answer is read back on each wire, whole and streamed."""
    usage = UsageStats(120, 40, cached_tokens=30, reasoning_tokens=5)
    answer = Answer(
        "Let me look.",
        tool_calls=[ToolCall("toolu_1", "weather", {"city": "Paris"})],
        reasoning="The user wants the weather.",
        usage=usage,
    )
    fake_model("*", answer, answer)
    whole = models(model, "What is the weather?")
    with models.stream(model, "What is the weather?") as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]
    assert pieces == ["Let", " me", " look."]
    for response in (whole, stream.response):
        assert response.text == "Let me look."
        assert response.reasoning == "The user wants the weather."
        assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == [
            ("toolu_1", "weather", {"city": "Paris"})
        ]
        assert response.finish_reason == "tool_calls"
        assert response.usage.priced(math.inf) == usage.priced(math.inf)
        assert response.usage.cost > 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("error_type", FAULTS)
def test_a_fault_is_the_providers_own_error(
    model: str, error_type: str, fake_model: FakeModel
) -> None:
    """Ember's error mapping reads a fault as the error of the same name on every wire."""
    fake_model("*", FAULTS[error_type]())
    with pytest.raises(ProviderAPIError) as caught:
        models(model, "hi")
    assert caught.value.error_type == error_type
    assert caught.value.retryable == (error_type in ("rate_limit", "overloaded", "server"))


@pytest.mark.parametrize("model", MODELS)
def test_retry_after_in_the_form_of_each_provider(model: str, fake_model: FakeModel) -> None:
    """`retry_after` of a rate limit is read in seconds, from a header or Google's body."""
    fake_model("*", faults.rate_limit(retry_after=2.5))
    with pytest.raises(ProviderAPIError) as caught:
        models(model, "hi")
    assert caught.value.retry_after == 2.5


def test_answers_are_used_in_order_and_a_last_function_repeats(fake_model: FakeModel) -> None:
    """Each answer is used once, in order; a function in last place answers all further calls."""
    fake_model("gpt-4", "one", ChatResponse("two", UsageStats(3, 4)), lambda call: call.prompt * 2)
    answers = [models("gpt-4", "ab") for _ in range(4)]
    assert [answer.text for answer in answers] == ["one", "two", "abab", "abab"]
    assert answers[1].usage.total_tokens == 7


def test_calls_are_kept_with_all_their_arguments(fake_model: FakeModel) -> None:
    """Each call is kept with its model, prompt, system prompt, parameters and headers."""
    fake_model("claude-*", lambda call: "ok")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    models("claude-3-opus", [*turns, {"role": "user", "content": "c"}], system="S", max_tokens=7)
    (call,) = fake_model.calls
    assert (call.provider, call.model) == ("anthropic", "claude-3-opus-20240229")
    assert (call.prompt, call.system) == ("c", "S")
    assert call.params == {"max_tokens": 7}
    assert call.headers["x-api-key"] == "fake-key"
    assert not call.stream


def test_tasks_threads_and_earlier_registries_are_faked() -> None:
    """Tasks, threads, and registries and bindings made before the fake are all answered."""
    registry = ModelRegistry()
    binding = models.instance("gpt-4", temperature=0)
    texts: list[str] = []
    with fake_model() as fake:
        fake("gpt-4", lambda call: f"to {call.prompt}")

        async def ask() -> list[ChatResponse]:
            return await asyncio.gather(
                *(registry.invoke_model_async("gpt-4", str(n)) for n in range(20))
            )

        assert [answer.text for answer in asyncio.run(ask())] == [f"to {n}" for n in range(20)]
        threads = [
            threading.Thread(target=lambda n=n: texts.append(binding(str(n)).text))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(texts) == [f"to {n}" for n in range(8)]


def test_the_context_manager_takes_what_the_fixture_takes() -> None:
    """The context manager takes the same arguments as the fixture; mistakes are reported."""
    with fake_model("gpt-4", "Paris", ["Ro", "me"], usage=UsageStats(1000, 500)) as fake:
        fake("claude-*", "Oslo")
        answers = [models(model, "hi") for model in ("gpt-4", "gpt-4", "claude-3-opus")]
    assert [answer.text for answer in answers] == ["Paris", "Rome", "Oslo"]
    assert answers[0].usage.cost == pytest.approx(0.06)
    with pytest.raises(TypeError, match="needs an answer"), fake_model("gpt-4"):
        pass
    with pytest.raises(TypeError, match="name their model"), fake_model(usage=UsageStats(1, 1)):
        pass


def test_a_call_without_an_answer_cannot_be_swallowed() -> None:
    """An unanswered call lists the fakes, and fails even if the code catches all exceptions."""
    message = r"openai/gpt-5.*there is 'claude-\*'"
    with pytest.raises(UnansweredCall, match=message), fake_model() as fake:
        fake("claude-*", lambda call: "ok")
        with contextlib.suppress(BaseException):
            models("gpt-5", "hi")


def test_one_call_too_many_says_how_many_there_were() -> None:
    """A call past the last answer says how many answers there were."""
    with (
        pytest.raises(UnansweredCall, match="call 2 of openai/gpt-4: 1 answers"),
        fake_model() as f,
    ):
        f("gpt-4", "only one")
        models("gpt-4", "hi")
        models("gpt-4", "hi")


def test_unused_answer_fails_the_block() -> None:
    """An answer left over fails the block and names its model."""
    with pytest.raises(AssertionError, match="gpt-4: 1 of 2 answers"), fake_model() as fake:
        fake("gpt-4", "asked for", "not asked for")
        models("gpt-4", "hi")
