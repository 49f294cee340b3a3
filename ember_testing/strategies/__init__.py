"""Hypothesis strategies for code that calls language models.

    @given(strategies.streams())
    def test_reader(sent):
        assert my_reader(sent.wire, sent.served.pieces).text == sent.means.text

Responses are bytes of the four wire formats (`openai`, `openai-responses`, `anthropic`, `google`),
with the answer or the error that they mean: see `ProviderResponse`. `fake_model` accepts each as a
reply. Every strategy is built from smaller ones and shrinks to the simplest case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

from ember_testing.exceptions import missing_extra

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as missing:
    __tracebackhide__ = True  # the message about a missing package is enough
    raise missing_extra("ember_testing.strategies", missing) from None
from hypothesis.errors import InvalidArgument
from hypothesis.strategies import SearchStrategy

from ember.models.schemas import FinishReason, ToolCall, UsageStats
from ember_testing import faults
from ember_testing.strategies.damage import Damages, damaged, recordings
from ember_testing.wires import WIRES, answer_response, error_response
from ember_testing.wires.answer import Answer, Failure
from ember_testing.wires.response import ProviderResponse

__all__ = [
    "answers",
    "errors",
    "from_cassette",
    "messages",
    "model_names",
    "parameters",
    "price_tables",
    "prompts",
    "responses",
    "streams",
    "tool_calls",
    "usages",
    "wires",
]

_T = TypeVar("_T")
_MODELS: Mapping[str, Sequence[str]] = {
    "openai": ("gpt-4", "gpt-4o-mini", "gpt-4.1", "o3", "groq/openai/gpt-oss-20b", "mistral/tiny"),
    "openai-responses": ("o3-pro", "gpt-5-codex"),
    "anthropic": ("claude-3-opus", "claude-sonnet-4-5", "anthropic/claude-x"),
    "google": ("gemini-pro", "gemini-2.5-flash", "google/gemini-x"),
}
_REASONS: Mapping[str, Sequence[FinishReason]] = {
    "openai": ("stop", "length", "other", "error"),
    "openai-responses": ("stop", "length", "other"),
    "anthropic": ("stop", "length", "other"),
    "google": ("stop", "length", "other", "error"),
}
# Characters that break parsers: those that look like line ends, and the syntax of JSON and SSE.
_TROUBLE = '\u2028\u2029\x85\r\n\x00"\\{}[]:'
_FAILURES = (
    faults.rate_limit,
    faults.overloaded,
    faults.quota,
    faults.server_error,
    faults.authentication,
    faults.not_found,
    faults.context_length,
)


def _characters(*ranges: tuple[int, int]) -> SearchStrategy[str]:
    # Not characters(): its first draw builds a table of all of Unicode, which takes seconds.
    return st.one_of([st.integers(first, last).map(chr) for first, last in ranges])


# Plain characters first: a failing text shrinks to those. No surrogates: UTF-8 has none.
_LETTERS = _characters((0x30, 0x39), (0x61, 0x7A), (0xC0, 0xD6), (0x391, 0x3A1), (0x4E00, 0x9FA5))
_ANY = _characters((0x30, 0x7E), (0, 0xD7FF), (0xE000, 0x10FFFF)) | st.sampled_from(_TROUBLE)
_LOWER = st.sampled_from("abcdefghijklmnopqrstuvwxyz")
_NAMES = st.builds(str.__add__, _LOWER, st.lists(_LOWER | st.just("_"), max_size=15).map("".join))


def _texts(*, min_size: int = 0, max_size: int) -> SearchStrategy[str]:
    # A list, not text(): that would merge the alphabets, and _TROUBLE would be rare.
    return st.lists(_ANY, min_size=min_size, max_size=max_size).map("".join)


def wires() -> SearchStrategy[str]:
    """Generate names of wire formats."""
    return st.sampled_from(WIRES)


def model_names(*, wires: SearchStrategy[str] | None = None) -> SearchStrategy[str]:
    """Generate names of models that Ember can route, with a provider's prefix and without.

    Args:
        wires: The models' wire formats; by default all.
    """
    return _of_each(wires, lambda wire: st.sampled_from(_MODELS[wire]))


def prompts(*, max_size: int = 80) -> SearchStrategy[str]:
    """Generate prompts as text; never blank, because that cannot be answered.

    Args:
        max_size: Maximum number of characters.

    Raises:
        InvalidArgument: `max_size` is less than 1.
    """
    if max_size < 1:
        raise InvalidArgument(f"max_size={max_size!r} leaves no room for a prompt")
    before = max_size // 2
    return st.tuples(
        _texts(max_size=before),
        _LETTERS,
        _texts(max_size=max_size - 1 - before),
    ).map("".join)


def messages(
    *,
    prompts: SearchStrategy[str] | None = None,
    max_turns: int = 3,
    systems: SearchStrategy[str | None] | None = None,
) -> SearchStrategy[list[dict[str, str]]]:
    """Generate conversations as lists of messages: user and assistant in turn, user last.

    Args:
        prompts: Texts of the messages.
        max_turns: Maximum number of questions.
        systems: The system prompt at the start, or None for no such message.

    Raises:
        InvalidArgument: `max_turns` is less than 1.
    """
    if max_turns < 1:
        raise InvalidArgument(f"max_turns={max_turns!r} leaves no room for a question")
    texts = _prompts(prompts)
    system = st.none() | texts if systems is None else systems

    def conversation(
        first: str | None, pairs: list[tuple[str, str]], last: str
    ) -> list[dict[str, str]]:
        turns = [] if first is None else [{"role": "system", "content": first}]
        for question, reply in pairs:
            turns.append({"role": "user", "content": question})
            turns.append({"role": "assistant", "content": reply})
        return [*turns, {"role": "user", "content": last}]

    pairs = st.lists(st.tuples(texts, texts), max_size=max_turns - 1)
    return st.builds(conversation, system, pairs, texts)


def parameters(*, wires: SearchStrategy[str] | None = None) -> SearchStrategy[dict[str, Any]]:
    """Generate parameters that a call may have besides its prompt.

    Args:
        wires: The wire formats; by default, only parameters that all of them have.
    """
    common: dict[str, SearchStrategy[Any]] = {
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0.0625, 1),
        "max_tokens": st.integers(1, 4096),
        "system": _prompts(None),
    }
    stops: dict[str, SearchStrategy[Any]] = {"stop": st.lists(_prompts(None), max_size=3)}
    own: Mapping[str, dict[str, SearchStrategy[Any]]] = {
        "openai": {**stops, "seed": st.integers(0, 2**31)},
        "openai-responses": {},
        "anthropic": stops,
        "google": {**stops, "seed": st.integers(0, 2**31)},
    }
    if wires is None:
        return st.fixed_dictionaries({}, optional=common)
    return _of_each(wires, lambda wire: st.fixed_dictionaries({}, optional={**common, **own[wire]}))


def usages(
    *, wires: SearchStrategy[str] | None = None, max_tokens: int = 100_000
) -> SearchStrategy[UsageStats]:
    """Generate counts that a provider can report: the parts never exceed the whole.

    Args:
        wires: The wire formats; by default, only what all report (Google counts no cache writes).
        max_tokens: Maximum of each kind of token.

    Raises:
        InvalidArgument: `max_tokens` is negative.
    """
    if max_tokens < 0:
        raise InvalidArgument(f"max_tokens={max_tokens!r} is less than none")
    tokens = st.integers(0, max_tokens)

    def of(wire: str) -> SearchStrategy[UsageStats]:
        # Drawn for every wire, so that a failing example can shrink from one wire to another.
        written = tokens.map(lambda _: 0) if wire == "google" else tokens
        # The plainest counts come last, so that the tokens a failure needs shrink into those.
        return st.builds(_usage, tokens, written, tokens, tokens, tokens)

    return of("google") if wires is None else _of_each(wires, of)


def _usage(cached: int, written: int, thought: int, fresh: int, output: int) -> UsageStats:
    return UsageStats(
        # At least one, as every provider counts: an answer without usage is a different case.
        1 + fresh + cached + written,
        1 + output + thought,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thought,
    )


def price_tables(
    *,
    names: SearchStrategy[str] | None = None,
    prices: SearchStrategy[float] | None = None,
    max_size: int = 4,
) -> SearchStrategy[dict[str, dict[str, float]]]:
    """Generate tables for `EMBER_MODEL_COSTS_JSON`, as dicts.

    Args:
        names: Names of the models.
        prices: US dollars per million tokens.
        max_size: Maximum number of models.
    """
    price = st.integers(0, 10_000_00).map(lambda cents: cents / 100) if prices is None else prices
    row = st.fixed_dictionaries({"input": price, "output": price})
    return st.dictionaries(model_names() if names is None else names, row, max_size=max_size)


def tool_calls() -> SearchStrategy[ToolCall]:
    """Generate tool calls whose arguments hold any JSON."""
    leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _texts(max_size=10)
    value = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
        max_leaves=6,
    )
    ids = st.integers(1, 10**9).map(lambda number: f"call_{number}")
    arguments = st.dictionaries(_NAMES, value, max_size=3)
    # builds() would also generate the omitted fields.
    return st.tuples(ids, _NAMES, arguments).map(lambda drawn: ToolCall(*drawn))


def answers(
    *, wires: SearchStrategy[str] | None = None, usages: SearchStrategy[UsageStats] | None = None
) -> SearchStrategy[Answer]:
    """Generate answers: text in pieces, tool calls, reasoning, refusals, every finish reason.

    Args:
        wires: The wire formats; by default, only answers that all can express.
        usages: Token counts.
    """
    given = usages
    if wires is None:
        return _answers("anthropic", _usages("google") if given is None else given)
    return _of_each(wires, lambda wire: _answers(wire, _usages(wire) if given is None else given))


def _usages(wire: str) -> SearchStrategy[UsageStats]:
    return usages(wires=st.just(wire))


def _answers(wire: str, usage: SearchStrategy[UsageStats]) -> SearchStrategy[Answer]:
    reasoning = st.none() | _texts(min_size=1, max_size=20)
    calls = st.lists(tool_calls(), min_size=1, max_size=3, unique_by=lambda call: call.id)
    refusal = _texts(min_size=1, max_size=20)
    # All three begin with the same draws, so that a failing refusal shrinks to plain text.
    chunks = st.lists(_texts(max_size=12), max_size=5)
    answer = partial(st.builds, Answer, usage=usage, chunks=chunks)
    text = answer(reasoning=reasoning, finish_reason=st.sampled_from(_REASONS[wire]))
    tools = answer(reasoning=reasoning, tool_calls=calls, finish_reason=st.just("tool_calls"))
    refusals = answer(refusal=refusal, finish_reason=st.just("content_filter"))
    return text | tools | refusals


def responses(
    *, wires: SearchStrategy[str] | None = None, answers: SearchStrategy[Answer] | None = None
) -> SearchStrategy[ProviderResponse]:
    """Generate whole answers as bytes of a wire format, each with the answer that it means.

    Args:
        wires: The wire formats.
        answers: The answers; by default, all that the format can express.
    """
    return _sent(wires, answers, stream=False)


def streams(
    *, wires: SearchStrategy[str] | None = None, answers: SearchStrategy[Answer] | None = None
) -> SearchStrategy[ProviderResponse]:
    """Generate streamed answers as bytes, split anywhere: inside a line, inside a character.

    Args:
        wires: The wire formats.
        answers: The answers; by default, all that the format can express.
    """
    return _sent(wires, answers, stream=True).flatmap(_recut)


def _sent(
    wires: SearchStrategy[str] | None, answers: SearchStrategy[Answer] | None, *, stream: bool
) -> SearchStrategy[ProviderResponse]:
    def of(wire: str) -> SearchStrategy[ProviderResponse]:
        names = st.sampled_from(_MODELS[wire])
        return st.builds(
            sent,
            st.just(wire),
            names,
            _answers(wire, _usages(wire)) if answers is None else answers,
        )

    def sent(wire: str, model: str, answer: Answer) -> ProviderResponse:
        if answer.usage is None:
            raise InvalidArgument(f"{answer!r} has no usage: pass answers(...) of this module")
        served = answer_response(
            wire, model.rpartition("/")[2], answer, answer.usage, 1, stream=stream
        )
        return ProviderResponse(wire, model, stream, served, answer)

    return _of_each(wires, of)


def _recut(sent: ProviderResponse) -> SearchStrategy[ProviderResponse]:
    cuts = st.lists(st.integers(0, len(sent.body)), max_size=6)
    return cuts.map(lambda places: _with_pieces(sent, places))


def _with_pieces(sent: ProviderResponse, places: Sequence[int]) -> ProviderResponse:
    body, edges = sent.body, [0, *sorted(set(places)), len(sent.body)]
    pieces = [body[start:end] for start, end in pairwise(edges) if start < end]
    return replace(sent, served=sent.served._replace(pieces=pieces))


def errors(
    *,
    wires: SearchStrategy[str] | None = None,
    failures: SearchStrategy[Failure] | None = None,
) -> SearchStrategy[ProviderResponse]:
    """Generate errors as bytes of a wire format, each with the `error_type` that it means.

    Args:
        wires: The wire formats.
        failures: The errors; by default all of `ember_testing.faults`, some with a time to wait.
    """
    plain = st.sampled_from(_FAILURES).map(lambda make: make())
    waits = st.integers(1, 36_000).map(lambda tenths: tenths / 10)
    with_wait = st.sampled_from((faults.rate_limit, faults.overloaded)).flatmap(
        lambda make: waits.map(make)
    )

    def sent(wire: str, stream: bool, failure: Failure) -> ProviderResponse:
        return ProviderResponse(
            wire,
            _MODELS[_known(wire)][0],
            stream,
            error_response(wire, failure),
            None,
            failure.error_type,
            failure.retry_after,
        )

    return st.builds(
        sent, _wires(wires), st.booleans(), plain | with_wait if failures is None else failures
    )


def from_cassette(
    path: str | os.PathLike[str], *, damages: SearchStrategy[Damages] | None = None
) -> SearchStrategy[ProviderResponse]:
    """Generate damaged copies of recorded answers, which a parser must survive.

    Keys are dropped, numbers changed, events duplicated, removed and swapped, the end is cut off,
    and the body is split into other pieces. What a copy means is left open.

    Args:
        path: The cassette.
        damages: The damage to each answer; `st.just(())` leaves them as they were recorded.

    Raises:
        InvalidArgument: The cassette holds no call of a model.
        CassetteError: The cassette cannot be read.
    """
    recorded = recordings(path)
    if not recorded:
        raise InvalidArgument(f"{os.fspath(path)!r} holds no answered call of a model")
    numbers = st.integers(0, 2**16)
    kinds = st.sampled_from(("drop", "number", "double", "leave out", "swap", "truncate"))
    drawn = st.lists(st.tuples(kinds, numbers, numbers), min_size=1, max_size=4)
    return st.builds(
        damaged, st.sampled_from(recorded), drawn.map(tuple) if damages is None else damages
    ).flatmap(_recut)


def _wires(given: SearchStrategy[str] | None) -> SearchStrategy[str]:
    return st.sampled_from(WIRES) if given is None else given


def _of_each(
    wires: SearchStrategy[str] | None, of: Callable[[str], SearchStrategy[_T]]
) -> SearchStrategy[_T]:
    """Draw a wire format, then from its strategy."""
    # One strategy per format, not per example: creating one takes ten times as long as drawing.
    strategies: dict[str, SearchStrategy[_T]] = {}

    def once(wire: str) -> SearchStrategy[_T]:
        if wire not in strategies:
            strategies[wire] = of(_known(wire))
        return strategies[wire]

    return _wires(wires).flatmap(once)


def _prompts(given: SearchStrategy[str] | None) -> SearchStrategy[str]:
    return prompts() if given is None else given


def _known(wire: str) -> str:
    if wire not in _MODELS:
        raise InvalidArgument(f"wires gave {wire!r}: there are {', '.join(_MODELS)}")
    return wire
