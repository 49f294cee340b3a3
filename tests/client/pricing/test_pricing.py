"""The cost of calls: published prices, properties, unknown prices."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from datetime import datetime, timedelta, timezone
from decimal import localcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ember.exceptions import UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing.cost import Billing, cost
from tests.client.pricing.snapshot import PRICES, PROVIDERS, tables

if TYPE_CHECKING:
    pass

MILLION = UsageStats(1_000_000, 1_000_000)
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
ROOT = Path(__file__).resolve().parents[3]


# Single prices from the providers' own pages.


def test_prices_equal_the_published_figures() -> None:
    """Prices are as published, in dollars per million tokens."""
    assert cost("openai", "gpt-4", UsageStats(12, 47)) == 0.00318
    assert cost("openai-responses", "gpt-4o-mini", MILLION) == 0.75
    assert cost("anthropic", "claude-3-opus-20240229", MILLION) == 90.0
    written = UsageStats(1_000_000, 0, cache_write_tokens=1_000_000)
    one_hour = Billing({"cache_write_1h_tokens": 1_000_000})
    assert cost("anthropic", "claude-sonnet-4-5", written) == 7.5  # over 200,000: twice 3.75
    assert cost("anthropic", "claude-haiku-4-5", written) == 1.25
    assert cost("anthropic", "claude-haiku-4-5", written, billing=one_hour) == 2.0


def test_gemini_pro_is_gemini_pro_latest() -> None:
    """The row that its authors doubt is replaced: `gemini-pro` is `gemini-pro-latest`."""
    short, long = UsageStats(100_000, 10_000), UsageStats(300_000, 10_000)
    for usage, dollars in ((short, 0.32), (long, 1.38)):
        assert cost("google", "gemini-pro", usage) == dollars
        assert cost("google", "gemini-pro-latest", usage) == dollars


@pytest.mark.parametrize("provider", ["local", "ollama", "lmstudio", "vllm", "llamacpp", "Local"])
def test_server_on_this_machine_is_free(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on the caller's own machine costs nothing, unless a price is set for it."""
    assert cost(provider, "gpt-4o", MILLION) == 0.0
    monkeypatch.setenv("EMBER_COST_QWEN38B_OUTPUT", "0.5")
    assert cost(provider, "qwen3:8b", MILLION) == 0.5


def test_reported_model_is_priced_before_the_requested_one() -> None:
    """The reported model is priced, or the requested one if the reported is unknown."""
    assert cost("openai", "gpt-4o-mini", MILLION, requested_model="gpt-4o") == 0.75
    assert cost("azure", "", MILLION, requested_model="gpt-4") == 90.0
    assert cost("openai", "gpt-99-turbo", MILLION, requested_model="gpt-4") == 90.0


def test_reported_cost_overrides_the_snapshot() -> None:
    """A cost reported by the provider overrides the snapshot; an invalid amount is ignored."""
    usage = UsageStats(1_000, 100)
    own = cost("openrouter", "openai/gpt-4o", usage, billing=Billing(reported=0.0123))
    assert own == 0.0123
    listed = cost("openrouter", "openai/gpt-4o", usage)
    assert listed == 0.0035
    for nonsense in (-1.0, math.nan, math.inf):
        billing = Billing(reported=nonsense)
        assert cost("openrouter", "openai/gpt-4o", usage, billing=billing) == listed


def test_decimal_precision_of_the_thread_has_no_effect() -> None:
    """A program with a decimal precision of three digits still gets the exact cost."""
    usage = UsageStats(1_234_567, 7_654_321)
    expected = cost("openai", "gpt-4o", usage)
    with localcontext() as context:
        context.prec = 3
        assert cost("openai", "gpt-4o", usage) == expected == 79.6296275


def test_peak_hours_apply_in_utc() -> None:
    """DeepSeek's peak hours apply in any time zone; a naive datetime is UTC."""
    peak, quiet = 1.5, 0.75
    in_beijing = timezone(timedelta(hours=8))
    for at, dollars in (
        (datetime(2026, 11, 23, 2), peak),
        (datetime(2026, 11, 23, 10, tzinfo=in_beijing), peak),
        (datetime(2026, 11, 23, 2, tzinfo=in_beijing), quiet),
    ):
        assert cost("deepseek", "deepseek-flash", MILLION, at=at) == dollars


def test_responses_wire_and_models_prefix_do_not_change_the_price() -> None:
    """The Responses wire has OpenAI's prices, and Google's `models/` prefix is ignored."""
    responses = cost("openai-responses", "computer-use-preview", MILLION)
    assert responses == cost("openai", "computer-use-preview", MILLION) == 15.0
    assert cost("google", "models/gemini-2.5-flash", MILLION) == 2.8


# Inconsistent numbers.


@pytest.mark.parametrize(
    ("usage", "counts", "dollars"),
    [
        (UsageStats(10, 0, cached_tokens=1_000_010), {}, 0.3000030),
        (UsageStats(10, 0, cache_write_tokens=0), {"cache_write_1h_tokens": 1_000_000}, 6.0),
        (UsageStats(-5, -5), {}, 0.0),
        (UsageStats(0, 1_000_000, reasoning_tokens=2_000_000), {}, 15.0),
    ],
)
def test_contradictory_counts_are_charged_part_by_part(
    usage: UsageStats, counts: dict[str, int], dollars: float
) -> None:
    """Counts that contradict each other are charged part by part, and never refused."""
    assert cost("anthropic", "claude-sonnet-4-6", usage, billing=Billing(counts)) == dollars


def test_input_billed_beyond_the_prompt_is_charged() -> None:
    """Input billed in addition to the prompt (Google's tool results) can be charged."""
    usage = UsageStats(85, 82, reasoning_tokens=54)
    billing = Billing({"input_tokens": 85 + 132})
    assert cost("google", "gemini-2.5-flash", usage, billing=billing) == 0.0002701


# Properties.

KINDS = ("input", "cached", "written", "written_1h", "audio", "output", "reasoning")


def _usage(leaves: dict[str, int]) -> tuple[UsageStats, dict[str, int]]:
    written = leaves["written"] + leaves["written_1h"]
    prompt = leaves["input"] + leaves["cached"] + written + leaves["audio"]
    usage = UsageStats(
        prompt,
        leaves["output"] + leaves["reasoning"],
        cached_tokens=leaves["cached"],
        cache_write_tokens=written,
        reasoning_tokens=leaves["reasoning"],
    )
    return usage, {
        "cache_write_1h_tokens": leaves["written_1h"],
        "input_audio_tokens": leaves["audio"],
    }


@lru_cache(maxsize=1)
def _additive_models() -> list[tuple[str, str]]:
    """A name from every row without a fee per call, since such a fee is not additive."""
    found = []
    for provider, table in tables().items():
        for row in table:
            name = row["match"][0] if isinstance(row["match"], list) else row["match"]
            is_plain = isinstance(name, str) and not name.startswith("/")
            if is_plain and "requests_kcount" not in json.dumps(row["prices"]):
                found.append((provider, name.strip("*")))
    return found


def _leaves(most: int) -> st.SearchStrategy[dict[str, int]]:
    """Counts of all kinds up to `most`, an eighth of them 0, from a single draw."""

    def counts(data: bytes) -> dict[str, int]:
        drawn = (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
        return {kind: max(0, n - 2**13) % (most + 1) for kind, n in zip(KINDS, drawn, strict=True)}

    size = 2 * len(KINDS)
    return st.binary(min_size=size, max_size=size).map(counts)


@settings(
    max_examples=max(2_000, settings().max_examples),  # of two usages each
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # one draw of bytes; slow on a busy machine
)
@given(
    target=st.sampled_from(_additive_models()),
    tier=st.sampled_from([None, "batch", "flex", "priority", "fast"]),
    first=_leaves(6_000),
    second=_leaves(6_000),
    long=st.booleans(),
)
def test_random_costs_are_additive_and_never_negative(
    target: tuple[str, str],
    tier: str | None,
    first: dict[str, int],
    second: dict[str, int],
    long: bool,
) -> None:
    """Thousands of random costs are not negative, add up, and do not fall with more tokens."""
    provider, model = target
    # Both usages are below the lowest tier (30,000 each, of 100,000) or above the highest.
    base = 2_000_000 if long else 0
    leaves = [
        {**first, "input": first["input"] + base},
        {**second, "input": second["input"] + base},
    ]
    both = {kind: leaves[0][kind] + leaves[1][kind] for kind in KINDS}
    one, other, together = (
        cost(provider, model, usage, billing=Billing(counts, tier=tier), at=NOON)
        for usage, counts in map(_usage, [*leaves, both])
    )
    assert 0 <= one <= together
    assert 0 <= other <= together
    # Each cost is rounded once: three errors of half a unit in the last place.
    assert math.isclose(one + other, together, rel_tol=4e-16, abs_tol=0)


@settings(max_examples=max(200, settings().max_examples), deadline=None, database=None)
@given(
    usage=st.builds(UsageStats, *[st.integers(-(10**6), 10**30)] * 6),
    audio=st.integers(-5, 10**12),
    model=st.text(max_size=12) | st.sampled_from(["gpt-4o", "claude-haiku-4-5", "gemini-2.5-pro"]),
    provider=st.text(max_size=12) | st.sampled_from(sorted(PROVIDERS)),
)
def test_any_names_and_numbers_cost_an_amount_or_nan(
    usage: UsageStats, audio: int, model: str, provider: str
) -> None:
    """For any names and numbers, a cost is an amount or nan."""
    billing = Billing({"input_audio_tokens": audio}, tier="flex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownPriceWarning)
        dollars = cost(provider, model, usage, billing=billing, requested_model=model)
    assert math.isnan(dollars) or dollars >= 0


# Unknown prices.


def test_unknown_price_warns_once_per_model() -> None:
    """An unknown price is nan, never 0.0, with one warning that names the variables to set."""
    with pytest.warns(UnknownPriceWarning) as caught:
        costs = [cost("acme", model, MILLION) for model in ("foo-1.5", "foo-1.5", "bar", "foo-1.5")]
    assert all(map(math.isnan, costs))
    assert [str(each.message).partition(":")[0] for each in caught] == [
        "No price is known for 'foo-1.5' of 'acme'",
        "No price is known for 'bar' of 'acme'",
    ]
    assert "EMBER_COST_FOO15_INPUT and EMBER_COST_FOO15_OUTPUT" in str(caught[0].message)


@pytest.mark.parametrize("model", ["whisper-1", "tts-1", "gpt-transcribe"])
def test_what_is_not_sold_by_the_token_is_unknown(model: str) -> None:
    """A model sold by the hour or the character has an unknown price, not a price of 0."""
    with pytest.warns(UnknownPriceWarning):
        assert math.isnan(cost("openai", model, MILLION))


# The file.


def test_snapshot_names_its_date_source_and_license() -> None:
    """The snapshot has its date, source, license and each provider's own pages."""
    held = json.loads((PRICES / "about.json").read_text())
    assert datetime.fromisoformat(held["generated"])
    assert held["source"]["package"] == "genai-prices"
    assert held["source"]["licence"] == "MIT"
    for provider in PROVIDERS.keys() - {"openai-responses"}:
        assert held["providers"][provider]["pricing_urls"][0].startswith("https://")


def test_prices_are_read_at_the_first_cost_only() -> None:
    """Importing Ember reads no prices, and genai-prices is never imported."""
    code = (
        "import sys; from ember.models import schemas; from ember.pricing import cost, snapshot; "
        "assert snapshot._read.cache_info().currsize == 0; "
        "cost.cost('openai', 'gpt-4', schemas.UsageStats(1, 1)); "
        "assert snapshot._read.cache_info().currsize == 2; "  # about.json, and its provider's
        "assert 'genai_prices' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
