"""Generated traffic is read back, and damage to it causes only Ember's errors."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ember.api import models
from ember.api.exceptions import EmberError, ProviderAPIError
from ember.api.models.schemas import ChatResponse, UsageStats
from ember_testing import Answer, FakeModel, fake_model, strategies
from ember_testing.wires.response import ProviderResponse

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
CASSETTES = sorted((Path(__file__).parents[3] / "cassettes").rglob("*.sqlite"))
# Each example has a wire, an answer and cuts of its own. `.ci/run` draws a thousand.
unhurried = settings(
    deadline=None,
    max_examples=max(150, settings().max_examples),
    suppress_health_check=[HealthCheck.too_slow],
)


def examples(strategy: st.SearchStrategy[Any], check: Callable[[FakeModel, Any], None]) -> None:
    """Check every example in one fake."""
    with fake_model() as fake:

        @unhurried
        @given(strategy)
        def each(example: Any) -> None:
            check(fake, example)

        each()


def play(fake: FakeModel, sent: ProviderResponse) -> tuple[ChatResponse | EmberError, str]:
    """Return the response or error of the public function, and the text streamed before."""
    fake(sent.model, sent)
    pieces: list[str] = []
    try:
        if not sent.stream:
            return models(sent.model, "hi"), ""
        with models.stream(sent.model, "hi") as stream:
            for chunk in stream:
                pieces.append(chunk.text)
        return stream.response, "".join(pieces)
    except EmberError as error:
        return error, "".join(pieces)
    finally:
        fake.reset()


def means_what_it_should(fake: FakeModel, sent: ProviderResponse) -> None:
    """Check that the client reads every field of the generated answer."""
    response, streamed = play(fake, sent)
    means = sent.means
    assert isinstance(response, ChatResponse)
    assert means is not None
    assert means.usage is not None
    assert response.text == means.text
    assert streamed == (means.text if sent.stream else "")
    assert response.finish_reason == means.reason
    assert response.reasoning == means.reasoning
    assert response.refusal == means.refusal
    assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == [
        (c.id, c.name, c.arguments) for c in means.tool_calls
    ]
    assert response.usage.priced(math.inf) == means.usage.priced(math.inf)


def test_streams_are_read_back() -> None:
    """Every generated stream, split anywhere, is read as its answer."""
    examples(strategies.streams(), means_what_it_should)


def test_responses_are_read_back() -> None:
    """Every generated whole response is read as its answer."""
    examples(strategies.responses(), means_what_it_should)


def test_answers_through_the_fake_are_read_back() -> None:
    """The client reads back any answer written by `fake_model`, on every wire."""

    def check(fake: FakeModel, drawn: tuple[Any, bool]) -> None:
        answer, stream = drawn
        for model in ("gpt-4", "o3-pro", "claude-3-opus", "gemini-pro"):
            fake(model, answer)
            if stream:
                with models.stream(model, "hi") as pieces:
                    assert "".join(chunk.text for chunk in pieces) == answer.text
                response = pieces.response
            else:
                response = models(model, "hi")
            assert response.text == answer.text
            assert response.finish_reason == answer.reason
            assert response.usage.priced(0) == answer.usage.priced(0)

    examples(st.tuples(strategies.answers(), st.booleans()), check)


def test_errors_mean_their_type() -> None:
    """Every generated error has its `error_type`, and keeps its `retry_after`."""

    def check(fake: FakeModel, sent: ProviderResponse) -> None:
        error, _ = play(fake, sent)
        assert isinstance(error, ProviderAPIError)
        assert (error.error_type, error.retry_after) == (sent.error_type, sent.retry_after)

    examples(strategies.errors(), check)


def survives(fake: FakeModel, sent: ProviderResponse) -> None:
    """Check that damage raises at most an EmberError, which keeps the text streamed before."""
    result, streamed = play(fake, sent)
    if isinstance(result, ProviderAPIError) and streamed:
        assert result.context["partial_text"].startswith(streamed)
    elif isinstance(result, ChatResponse) and sent.stream:
        assert result.text == streamed


def test_damaged_recording_raises_ember_error_and_keeps_text() -> None:
    """No damage to a recording makes the client raise another error, hang, or lose text."""
    examples(st.one_of([strategies.from_cassette(path) for path in CASSETTES]), survives)


def test_truncated_stream_is_an_error_that_keeps_text() -> None:
    """A truncated stream is an error that keeps the text, unless it was already complete."""

    def check(fake: FakeModel, drawn: tuple[ProviderResponse, float]) -> None:
        sent, share = drawn
        head = sent.body[: int(len(sent.body) * share)]
        cut = ProviderResponse(sent.wire, sent.model, True, sent.served._replace(pieces=(head,)))
        result, streamed = play(fake, cut)
        assert sent.means is not None
        assert sent.means.text.startswith(streamed)
        if isinstance(result, ProviderAPIError):
            # Before the first event any error may be raised.
            begun = b"\n\n" in head or b"\r\n\r\n" in head
            assert result.error_type == "incomplete_stream" or not begun
            assert result.context.get("partial_text", "") == streamed
        else:
            assert streamed == sent.means.text

    examples(st.tuples(strategies.streams(), st.floats(0, 1)), check)


def test_undamaged_recording_reads_as_the_call() -> None:
    """Without damage a replay is read like the original call."""
    path = next(path for path in CASSETTES if "stream" in path.name.lower()) if CASSETTES else None
    assert path is not None

    def check(fake: FakeModel, sent: ProviderResponse) -> None:
        result, _ = play(fake, sent)
        if sent.served.status == 200:
            assert isinstance(result, ChatResponse)
            assert result.text
        else:
            assert isinstance(result, ProviderAPIError)
            assert result.context["status_code"] == sent.served.status

    examples(strategies.from_cassette(path, damages=st.just(())), check)


@given(
    model=strategies.model_names(),
    conversation=strategies.messages(),
    params=strategies.parameters(),
)
@unhurried
def test_generated_arguments_reach_the_fake(model: str, conversation: Any, params: Any) -> None:
    """Generated models, conversations and parameters are accepted, and reach the fake."""
    with fake_model() as fake:
        fake(model, lambda call: call.prompt)
        assert models(model, conversation, **params).text == conversation[-1]["content"]
        (call,) = fake.calls
        texts = [turn["content"] for turn in conversation if turn["role"] != "system"]
        assert [message.text for message in call.messages] == texts
        assert json.dumps(call.body)


@given(table=strategies.price_tables(names=st.just("gpt-4")), usage=strategies.usages())
@unhurried
def test_generated_price_table_is_charged(table: Any, usage: UsageStats) -> None:
    """A call is charged by a generated price table."""
    with (
        mock.patch.dict(os.environ, EMBER_MODEL_COSTS_JSON=json.dumps(table)),
        fake_model() as fake,
    ):
        plain = UsageStats(usage.prompt_tokens, usage.completion_tokens)
        fake("gpt-4", "Paris", usage=plain)
        cost = models("gpt-4", "hi").usage.cost
        if table:
            row = table["gpt-4"]
            due = plain.prompt_tokens * row["input"] + plain.completion_tokens * row["output"]
            assert cost == pytest.approx(due / 1e6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: strategies.prompts(max_size=0),
        lambda: strategies.messages(max_turns=0),
        lambda: strategies.usages(max_tokens=-1),
        lambda: strategies.responses(wires=st.just("smoke")).example(),
    ],
)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_impossible_arguments_raise(make: Callable[[], Any]) -> None:
    """Impossible arguments are refused with the value."""
    with pytest.raises(InvalidArgument, match=r"0|-1|smoke"):
        make()


def least(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    """Return the smallest example, without the database and Hypothesis's explain phase."""
    phases = [Phase.generate, Phase.shrink]
    return find(strategy, condition, settings=settings(unhurried, database=None, phases=phases))


def test_examples_shrink_to_the_simplest() -> None:
    """Examples shrink to the simplest: one short word, no split, no earlier turn."""
    assert len(least(strategies.prompts(), lambda _: True)) == 1
    assert len(least(strategies.messages(), lambda _: True)) == 1
    assert least(strategies.usages(), lambda _: True) == UsageStats(1, 1)
    assert least(strategies.parameters(), lambda _: True) == {}
    # The tokens needed are plain output, neither cached nor reasoning.
    assert least(strategies.usages(), lambda u: u.total_tokens > 1000) == UsageStats(1, 1000)


def test_streams_shrink_to_the_first_wire() -> None:
    """A failure on every wire shrinks to OpenAI's, unsplit, with only what it needs."""
    sent = least(strategies.streams(), lambda sent: len(sent.means.text) > 1)
    assert sent.wire == "openai"
    assert sent.means.text == "00"
    assert sent.means.usage == UsageStats(1, 1)
    assert (sent.means.reasoning, sent.means.refusal, sent.means.reason) == (None, None, "stop")
    assert len(sent.served.pieces) == 1


def test_one_strategy_serves_all_examples_of_a_wire() -> None:
    """One strategy serves all examples of a wire: one per example took a minute of shrinking."""
    with mock.patch.object(strategies, "tool_calls", wraps=strategies.tool_calls) as calls:

        @settings(unhurried, max_examples=50)
        @given(strategies.streams(), strategies.answers(wires=strategies.wires()))
        def each(sent: ProviderResponse, answer: Answer) -> None:
            assert sent.means
            assert answer.usage

        each()
    assert 0 < calls.call_count <= 2 * 4  # two strategies, four wires


def test_no_strategy_builds_the_unicode_table(tmp_path: Path) -> None:
    """No strategy makes Hypothesis build its Unicode table, which fails its health check."""
    code = """
        from hypothesis import given, settings
        from hypothesis.internal import charmap
        from ember_testing import strategies

        for name in sorted({*strategies.__all__} - {"from_cassette"}):
            @settings(max_examples=25, database=None, deadline=None)
            @given(getattr(strategies, name)())
            def draw(value):
                assert charmap._charmap is None, name
            draw()
    """
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "unicode_data").exists()
