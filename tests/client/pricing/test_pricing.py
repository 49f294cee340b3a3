from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import warnings
from datetime import datetime, timedelta, timezone
from decimal import localcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.exceptions import ModelProviderError, UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing import cost as pricing
from ember.pricing.cost import Billing, cost

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
PRICES = ROOT / "ember/pricing/prices"
MILLION = UsageStats(1_000_000, 1_000_000)
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
MOMENTS = (
    NOON,
    datetime(2024, 6, 1, 2, tzinfo=timezone.utc),
    datetime(2026, 11, 23, 0, 10, tzinfo=timezone.utc),
    datetime(2026, 11, 23, 1, 0, tzinfo=timezone.utc),
    datetime(2026, 11, 23, 4, 0, tzinfo=timezone.utc),
    datetime(2026, 11, 23, 16, 30, tzinfo=timezone.utc),
    datetime(2027, 3, 1, 8, tzinfo=timezone.utc),
)

# Ember's provider -> genai-prices'.
PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "cerebras": "cerebras",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "groq": "groq",
    "mistral": "mistral",
    "moonshotai": "moonshotai",
    "openai": "openai",
    "openai-responses": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "xai": "x-ai",
}
# Those that only a base URL names; they have the same names in both.
SELLERS = [
    *("arcee", "avian", "aws", "baseten", "cloudflare", "cohere", "databricks", "doubleword"),
    *("huggingface_cerebras", "huggingface_fireworks-ai", "huggingface_groq"),
    *("huggingface_hyperbolic", "huggingface_nebius", "huggingface_novita", "huggingface_nscale"),
    *("huggingface_ovhcloud", "huggingface_publicai", "huggingface_sambanova"),
    *("huggingface_together", "meta", "minimax", "novita", "ovhcloud", "quicksilverpro"),
    *("typesafe", "zai", "zhipuai"),
]
PROVIDERS |= {name: name for name in SELLERS}
# Rows of genai-prices that the snapshot refuses; ember/pricing/genai_prices.py says why.
REFUSED = {
    ("cerebras", "qwen-3-coder-480b"),
    ("google", "gemini-1.0-pro-vision-001"),
    ("google", "gemini-pro"),
    ("openrouter", "gemini-2.5-pro-exp-03-25"),
    ("openrouter", "google/gemini-flash-1.5-8b-exp"),
    ("openrouter", "google/lyria-3-clip-preview"),
    ("openrouter", "google/lyria-3-pro-preview"),
    ("openrouter", "stealth/crouton-alpha"),
}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No price of the caller's environment, and no model warned of yet."""
    for name in list(pricing.os.environ):
        if name.startswith(("EMBER_COST_", "EMBER_MODEL_COSTS_JSON")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(pricing, "_warned", {})


@pytest.fixture
def genai() -> ModuleType:
    """The package that the snapshot is made from."""
    return pytest.importorskip(
        "genai_prices",
        reason="genai-prices, whose data the snapshot holds, is a development dependency"
        " (Python 3.11 and newer): pip install -e '.[dev]'",
    )


# The comparison with genai-prices.


def _is_refused(provider: str, model: Any) -> bool:
    """Whether the snapshot leaves a row out: one without any price is not free by that."""
    nothing = not any(map(vars, _price_sets(model))) and not model.id.endswith(":free")
    return (provider, model.id) in REFUSED or (provider in SELLERS and nothing)


def _name(clause: Any) -> str | None:
    """A name that the clause matches, or None where that takes thought."""
    for kind in ("equals", "starts_with", "ends_with", "contains"):
        if hasattr(clause, kind):
            return str(getattr(clause, kind))
    parts = getattr(clause, "or_", ())
    return next((name for part in parts if (name := _name(part))), None)


def _price_sets(model: Any) -> list[Any]:
    sets = [c.prices for c in model.prices] if isinstance(model.prices, list) else [model.prices]
    return sets + [variant.prices for variant in model.price_variants or ()]


def _usages(model: Any) -> list[tuple[UsageStats, dict[str, int]]]:
    """Usages of every kind, and at both sides of each of the model's tiers."""
    starts = {
        tier.start
        for prices in _price_sets(model)
        for rate in vars(prices).values()
        for tier in getattr(rate, "tiers", ())
    }
    found: list[tuple[UsageStats, dict[str, int]]] = [
        (UsageStats(0, 0), {}),
        (UsageStats(1, 1), {}),
        (UsageStats(1_234_567, 76_543), {}),
        (UsageStats(12_345, 6_789, cached_tokens=11_111, reasoning_tokens=6_000), {}),
        (UsageStats(9_000, 10, cache_write_tokens=5_000), {"cache_write_1h_tokens": 0}),
        (UsageStats(9_000, 10, cache_write_tokens=5_000), {"cache_write_5m_tokens": 5_000}),
        (
            UsageStats(9_001, 17, cached_tokens=2_003, cache_write_tokens=5_009),
            {"cache_write_1h_tokens": 1_013, "cache_write_5m_tokens": 3_996},
        ),
        (
            UsageStats(70_001, 5_003, cached_tokens=30_011, reasoning_tokens=101),
            {
                "input_audio_tokens": 9_001,
                "cache_audio_read_tokens": 2_011,
                "input_image_tokens": 20_021,
                "cache_image_read_tokens": 4_001,
                "input_video_tokens": 3_001,
                "output_audio_tokens": 1_009,
                "output_image_tokens": 1_290,
                "output_video_tokens": 7,
                "output_citation_tokens": 11,
            },
        ),
        (
            UsageStats(500, 60),
            {"web_searches": 3, "storage_searches": 2, "audio_seconds": 61},
        ),
    ]
    for start in sorted(starts):
        for prompt in (start - 1, start, start + 1, start + 77_777):
            found.append((UsageStats(prompt, 999, cached_tokens=1_003), {}))
            found.append((UsageStats(prompt, 3, cache_write_tokens=9, cached_tokens=1), {}))
    return found


def _theirs(usage: UsageStats, counts: dict[str, int]) -> dict[str, int]:
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "cache_audio_read_tokens": 0,
        "cache_image_read_tokens": 0,
        "cache_write_1h_tokens": 0,
        "input_audio_tokens": 0,
        "input_image_tokens": 0,
        **counts,
    }


def _contexts(model: Any) -> list[tuple[str | None, dict[str, str]]]:
    """Each tier that the model prices, one that it may not, and none."""
    whens = [variant.when for variant in model.price_variants or () if "route" not in variant.when]
    named = {value: {key: value} for when in whens for key, value in when.items()}
    return [
        (None, {}),
        *({"priority": {"service_tier": "priority"}, **named} if named else {}).items(),
    ]


def _moments(model: Any) -> list[datetime]:
    """The days on which the model's prices change, the days before, and hours of every kind."""
    conditional = model.prices if isinstance(model.prices, list) else []
    conditions = [entry.constraint for entry in (*conditional, *(model.price_variants or ()))]
    days = {condition.start_date for condition in conditions if hasattr(condition, "start_date")}
    midnights = [datetime(day.year, day.month, day.day, tzinfo=timezone.utc) for day in days]
    return [*(MOMENTS if conditions else (NOON,)), *midnights, *(m - SECOND for m in midnights)]


def _names(clause: Any) -> list[str]:
    """Names that the clause matches, and names that it just does not."""
    parts = getattr(clause, "or_", None) or getattr(clause, "and_", None) or ()
    found = [name for part in parts for name in _names(part)]
    for kind in ("equals", "starts_with", "ends_with", "contains"):
        if text := getattr(clause, kind, None):
            found += [text, text.upper(), f"{text}x", f"x{text}", f"x{text}x"]
    if regex := getattr(clause, "regex", None):
        plain = re.sub(r"\\d\{(\d)\}", lambda digits: "20260102"[: int(digits[1])], regex)
        found += [plain.strip("^$").replace("\\.", "."), f"{plain.strip('^$')}x"]
    return found


@pytest.mark.parametrize("provider", sorted(PROVIDERS.keys() - {"openai-responses"}))
def test_names_are_matched_as_genai_prices_matches_them(provider: str, genai: ModuleType) -> None:
    """Every name in the data, and its near misses, finds the same model's price, or none."""
    from genai_prices.data_snapshot import get_snapshot

    theirs = PROVIDERS[provider]
    (source,) = (found for found in get_snapshot().providers if found.id == theirs)
    usage = genai.Usage(input_tokens=1_000, output_tokens=100)
    names = {name for model in source.models for name in _names(model.match)}
    priced = 0
    for name in sorted(names):
        model = source.find_model(name, all_providers=get_snapshot().providers)
        sets = [vars(prices).keys() for prices in _price_sets(model)] if model else []
        if model and (_is_refused(theirs, model) or not all("input_mtok" in s for s in sets)):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownPriceWarning)
            found = cost(provider, name, UsageStats(1_000, 100), at=NOON)
        if model is None:
            assert math.isnan(found), name
        else:
            price = model.calc_price(usage, source, genai_request_timestamp=NOON)
            assert found == float(price.total_price), name
            priced += 1
    assert priced > len(source.models) / 2


@pytest.mark.parametrize("provider", sorted(PROVIDERS.keys() - {"openai-responses"}))
def test_equals_genai_prices(
    provider: str, genai: ModuleType, figures: Callable[[str], None]
) -> None:
    """Every model of the provider costs exactly what genai-prices says, over a grid of usages."""
    from genai_prices.data_snapshot import get_snapshot

    theirs = PROVIDERS[provider]
    snapshot = get_snapshot()
    (source,) = (found for found in snapshot.providers if found.id == theirs)
    compared = models = 0
    refused: list[str] = []
    for model in source.models:
        name = _name(model.match) or model.id
        if source.find_model(name) is not model:
            name = model.id
        if source.find_model(name) is not model:
            continue  # an earlier row claims each of its names: no call can meet it
        sets = [set(vars(prices)) for prices in _price_sets(model)]
        if _is_refused(theirs, model) or (any(sets) and not any("input_mtok" in s for s in sets)):
            refused.append(name)
            continue
        models += 1
        moments = _moments(model)
        for usage, counts in _usages(model):
            for moment in moments:
                for tier, context in _contexts(model):
                    expected = snapshot.calc(
                        genai.Usage(**_theirs(usage, counts)), name, theirs, None, moment, context
                    ).total_price
                    found = cost(
                        provider, name, usage, billing=Billing(counts, tier=tier), at=moment
                    )
                    assert found == float(expected), (name, usage, counts, tier, moment)
                    compared += 1
    figures(f"{provider}: {models} models, {compared} costs equal genai-prices'")
    assert models
    for name in refused:
        if (theirs, name) != ("google", "gemini-pro"):
            with pytest.warns(UnknownPriceWarning):
                assert math.isnan(cost(provider, name, MILLION))


def test_the_whole_package_is_covered(genai: ModuleType) -> None:
    """Every row of genai-prices for our providers is in the snapshot, or refused for a reason."""
    from genai_prices.data import providers

    held = _tables()
    compared: set[str] = set()
    for provider in providers:
        names = [
            ours for ours, theirs in PROVIDERS.items() if theirs == provider.id and ours in held
        ]
        for ours in names:
            tokenless = sum(
                any(map(vars, sets)) and not any("input_mtok" in vars(s) for s in sets)
                for sets in map(_price_sets, provider.models)
            )
            refused = sum(_is_refused(provider.id, model) for model in provider.models)
            added = ours == "google"  # the alias `gemini-pro`
            assert len(held[ours]) == len(provider.models) - tokenless - refused + added
            compared.add(ours)
    assert compared == PROVIDERS.keys() - {"openai-responses"}


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("azure", "gpt-4.1-2025-04-14"),
        ("azure", "claude-sonnet-4-5"),
        ("azure", "kimi-k2-0905-preview"),
        ("google", "claude-3-5-sonnet@20240620"),
        ("openai", "GPT-4o-20241120"),
    ],
)
def test_a_model_sold_for_another(provider: str, model: str, genai: ModuleType) -> None:
    """A model sold for another, or with a compact date in its name, costs the owner's price."""
    usage = UsageStats(1_000, 100, cached_tokens=10)
    expected = genai.calc_price(
        genai.Usage(input_tokens=1_000, output_tokens=100, cache_read_tokens=10),
        model,
        provider_id=provider,
        genai_request_timestamp=NOON,
        price_context={"processing": "batch"},
    )
    billing = Billing(tier="batch" if provider != "openai" else "Batch")
    assert cost(provider, model, usage, billing=billing, at=NOON) == float(expected.total_price)


@pytest.mark.parametrize(
    "model", ["claude-3-opus-20240229", "gpt-4", "grok-4-0709", "gemini-2.5-pro"]
)
def test_a_custom_provider_is_priced_by_the_model(model: str, genai: ModuleType) -> None:
    """A provider that nobody knows costs what the model's owner asks."""
    usage = genai.Usage(input_tokens=1_000, output_tokens=100)
    expected = genai.calc_price(usage, model, genai_request_timestamp=NOON).total_price
    assert cost("acme", model, UsageStats(1_000, 100), at=NOON) == float(expected)


# Single figures, from the providers' own pages.


def test_published_figures() -> None:
    """Prices stand as published, in dollars per million tokens."""
    assert cost("openai", "gpt-4", UsageStats(12, 47)) == 0.00318
    assert cost("openai-responses", "gpt-4o-mini", MILLION) == 0.75
    assert cost("anthropic", "claude-3-opus-20240229", MILLION) == 90.0
    written = UsageStats(1_000_000, 0, cache_write_tokens=1_000_000)
    one_hour = Billing({"cache_write_1h_tokens": 1_000_000})
    assert cost("anthropic", "claude-sonnet-4-5", written) == 7.5  # over 200,000: twice 3.75
    assert cost("anthropic", "claude-haiku-4-5", written) == 1.25
    assert cost("anthropic", "claude-haiku-4-5", written, billing=one_hour) == 2.0


def test_gemini_pro_is_gemini_pro_latest() -> None:
    """The row that its authors do not trust is replaced: `gemini-pro` is `gemini-pro-latest`."""
    short, long = UsageStats(100_000, 10_000), UsageStats(300_000, 10_000)
    for usage, dollars in ((short, 0.32), (long, 1.38)):
        assert cost("google", "gemini-pro", usage) == dollars
        assert cost("google", "gemini-pro-latest", usage) == dollars


@pytest.mark.parametrize("provider", ["local", "ollama", "lmstudio", "vllm", "llamacpp", "Local"])
def test_the_callers_own_machine_is_free(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on the caller's own machine costs nothing, unless a price is set for it."""
    assert cost(provider, "gpt-4o", MILLION) == 0.0
    monkeypatch.setenv("EMBER_COST_QWEN38B_OUTPUT", "0.5")
    assert cost(provider, "qwen3:8b", MILLION) == 0.5


def test_reported_model_then_requested_model() -> None:
    """The model that the response reports is priced, and the requested one where it is unknown."""
    assert cost("openai", "gpt-4o-mini", MILLION, requested_model="gpt-4o") == 0.75
    assert cost("azure", "", MILLION, requested_model="gpt-4") == 90.0
    assert cost("openai", "gpt-99-turbo", MILLION, requested_model="gpt-4") == 90.0


def test_the_providers_own_figure_comes_first() -> None:
    """What the provider says it charged beats the snapshot; what is no amount is passed over."""
    usage = UsageStats(1_000, 100)
    own = cost("openrouter", "openai/gpt-4o", usage, billing=Billing(reported=0.0123))
    assert own == 0.0123
    listed = cost("openrouter", "openai/gpt-4o", usage)
    assert listed == 0.0035
    for nonsense in (-1.0, math.nan, math.inf):
        billing = Billing(reported=nonsense)
        assert cost("openrouter", "openai/gpt-4o", usage, billing=billing) == listed


def test_the_threads_decimal_precision_is_without_effect() -> None:
    """A program that computes with three digits still gets the exact cost."""
    usage = UsageStats(1_234_567, 7_654_321)
    expected = cost("openai", "gpt-4o", usage)
    with localcontext() as context:
        context.prec = 3
        assert cost("openai", "gpt-4o", usage) == expected == 79.6296275


def test_the_hour_is_that_of_utc() -> None:
    """DeepSeek's peak is found from any time zone, and a naive moment is UTC."""
    peak, quiet = 1.5, 0.75
    in_beijing = timezone(timedelta(hours=8))
    for at, dollars in (
        (datetime(2026, 11, 23, 2), peak),
        (datetime(2026, 11, 23, 10, tzinfo=in_beijing), peak),
        (datetime(2026, 11, 23, 2, tzinfo=in_beijing), quiet),
    ):
        assert cost("deepseek", "deepseek-flash", MILLION, at=at) == dollars


def test_names_of_one_providers_two_wires_and_with_a_path() -> None:
    """The Responses wire has OpenAI's prices, and Google's `models/` is no part of a name."""
    responses = cost("openai-responses", "computer-use-preview", MILLION)
    assert responses == cost("openai", "computer-use-preview", MILLION) == 15.0
    assert cost("google", "models/gemini-2.5-flash", MILLION) == 2.8


# Numbers that make no sense.


@pytest.mark.parametrize(
    ("usage", "counts", "dollars"),
    [
        (UsageStats(10, 0, cached_tokens=1_000_010), {}, 0.3000030),
        (UsageStats(10, 0, cache_write_tokens=0), {"cache_write_1h_tokens": 1_000_000}, 6.0),
        (UsageStats(-5, -5), {}, 0.0),
        (UsageStats(0, 1_000_000, reasoning_tokens=2_000_000), {}, 15.0),
    ],
)
def test_parts_that_exceed_their_whole(
    usage: UsageStats, counts: dict[str, int], dollars: float
) -> None:
    """Counts that contradict each other are charged part by part, and never refused."""
    assert cost("anthropic", "claude-sonnet-4-6", usage, billing=Billing(counts)) == dollars


def test_counts_for_billing_go_before_the_public_ones() -> None:
    """Input that a provider bills beside the prompt (Google's tool results) can be charged."""
    usage = UsageStats(85, 82, reasoning_tokens=54)
    billing = Billing({"input_tokens": 85 + 132})
    assert cost("google", "gemini-2.5-flash", usage, billing=billing) == 0.0002701


# Laws.

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


def _tables() -> dict[str, list[dict[str, Any]]]:
    """The snapshot's rows by provider."""
    return {
        path.stem: json.loads(path.read_text())
        for path in PRICES.iterdir()
        if path.name != "about.json"
    }


@lru_cache(maxsize=1)
def _additive_models() -> list[tuple[str, str]]:
    """A name of every row that asks no fee by the call: such a fee does not add up."""
    found = []
    for provider, table in _tables().items():
        for row in table:
            name = row["match"][0] if isinstance(row["match"], list) else row["match"]
            is_plain = isinstance(name, str) and not name.startswith("/")
            if is_plain and "requests_kcount" not in json.dumps(row["prices"]):
                found.append((provider, name.strip("*")))
    return found


def _leaves(most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({kind: st.integers(0, most) for kind in KINDS})


@settings(max_examples=5_000, deadline=None, database=None)  # of two usages each
@given(
    target=st.sampled_from(_additive_models()),
    tier=st.sampled_from([None, "batch", "flex", "priority", "fast"]),
    first=_leaves(6_000),
    second=_leaves(6_000),
    long=st.booleans(),
)
def test_laws_of_random_usages(
    target: tuple[str, str],
    tier: str | None,
    first: dict[str, int],
    second: dict[str, int],
    long: bool,
) -> None:
    """Of 10,000 random usages none is negative; two add up, and more tokens never cost less."""
    provider, model = target
    # Below the lowest of all tiers both ways (30,000 each, of 100,000), or above the highest.
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
    # Each is rounded once: three roundings of half a unit in the last place.
    assert math.isclose(one + other, together, rel_tol=4e-16, abs_tol=0)


@settings(max_examples=500, deadline=None, database=None)
@given(
    usage=st.builds(UsageStats, *[st.integers(-(10**6), 10**30)] * 6),
    audio=st.integers(-5, 10**12),
    model=st.text(max_size=12) | st.sampled_from(["gpt-4o", "claude-haiku-4-5", "gemini-2.5-pro"]),
    provider=st.text(max_size=12) | st.sampled_from(sorted(PROVIDERS)),
)
def test_never_negative_and_never_raises(
    usage: UsageStats, audio: int, model: str, provider: str
) -> None:
    """Whatever the names and the numbers, a cost is an amount or nan."""
    billing = Billing({"input_audio_tokens": audio}, tier="flex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownPriceWarning)
        dollars = cost(provider, model, usage, billing=billing, requested_model=model)
    assert math.isnan(dollars) or dollars >= 0


# The unknown.


def test_unknown_price_warns_once_a_model() -> None:
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
    """A model that is sold by the hour or the character is not free by the token."""
    with pytest.warns(UnknownPriceWarning):
        assert math.isnan(cost("openai", model, MILLION))


# The environment.


def test_variables_are_dollars_per_million_and_match_the_whole_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`GPT4` is `gpt-4` in any spelling, and not `gpt-4-turbo`."""
    turbo = cost("openai", "gpt-4-turbo", MILLION)
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "1.5")
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", " 2.25 ")
    assert cost("openai", "gpt-4", MILLION) == 3.75
    assert cost("anything", "GPT_4", MILLION) == 3.75
    assert cost("openai", "gpt-4-0613", MILLION) == 90.0
    assert cost("openai", "gpt-4-0613", MILLION, requested_model="gpt-4") == 3.75
    assert cost("openai", "gpt-4-turbo", MILLION) == turbo
    monkeypatch.delenv("EMBER_COST_GPT4_INPUT")
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", "")
    assert cost("openai", "gpt-4", MILLION) == 90.0


def test_the_design_documents_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON prices its models, known and custom, and leaves the others alone."""
    monkeypatch.setenv(
        "EMBER_MODEL_COSTS_JSON",
        '{"gpt-4-turbo": {"input": 11.0, "output": 30.0},'
        ' "custom-model": {"input": 5, "output": "15"}}',
    )
    assert cost("openai", "gpt-4-turbo", MILLION) == 41.0
    assert cost("acme", "custom-model", MILLION) == 20.0
    assert cost("openai", "gpt-4", MILLION) == 90.0
    assert cost("openai", "unheard-of", MILLION, requested_model="custom_model") == 20.0


def test_json_of_one_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key `provider/model` is for that provider, and beats the bare model name there."""
    monkeypatch.setenv(
        "EMBER_MODEL_COSTS_JSON",
        '{"azure/gpt-4": {"input": 1, "output": 1}, "gpt-4": {"input": 2, "output": 2},'
        ' "groq/openai/gpt-oss-120b": {"input": 3, "output": 3}}',
    )
    assert cost("azure", "gpt-4", MILLION) == 2.0
    assert cost("openai", "gpt-4", MILLION) == 4.0
    assert cost("groq", "openai/gpt-oss-120b", MILLION) == 6.0


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable beats the JSON, the JSON beats the provider's figure, that beats the snapshot."""
    billing = Billing(reported=7.0)
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 7.0
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", '{"gpt-4": {"input": 1, "output": 2}}')
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 3.0
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "10")
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 12.0


def test_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side that is not named keeps the snapshot's price; without one the call is not priced."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "0")
    assert cost("openai", "gpt-4", MILLION) == 60.0
    monkeypatch.setenv("EMBER_COST_NEWMODEL_INPUT", "1")
    assert cost("acme", "new-model", MILLION, billing=Billing(reported=0.25)) == 0.25
    with pytest.warns(UnknownPriceWarning, match="EMBER_COST_NEWMODEL_OUTPUT"):
        assert math.isnan(cost("acme", "new-model", MILLION))


def test_overridden_input_is_all_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached, written and long input costs the override's price, unless the JSON names others."""
    usage = UsageStats(1_000_000, 0, cached_tokens=400_000, cache_write_tokens=200_000)
    billing = Billing({"cache_write_1h_tokens": 50_000, "web_searches": 1_000}, tier="batch")

    def dollars() -> float:
        return cost("anthropic", "claude-sonnet-4-5", usage, billing=billing)

    monkeypatch.setenv("EMBER_COST_CLAUDESONNET45_INPUT", "1")
    assert dollars() == 11.0  # a thousand searches are 10
    entry: dict[str, float] = {"cached_input": 0.1}
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", json.dumps({"claude-sonnet-4-5": entry}))
    assert dollars() == 10.64
    entry["cache_write"] = 2
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", json.dumps({"claude-sonnet-4-5": entry}))
    assert dollars() == 10.84


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "-inf", "1e13", "$30", "30 USD", "0x10", "1,5", "--", "sNaN"]
)
def test_malformed_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is no price is refused at the first cost, by variable, value and remedy."""
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", value)
    for _ in range(2):
        with pytest.raises(ModelProviderError) as error:
            cost("openai", "gpt-4", UsageStats(1, 1))
        message = str(error.value)
        assert message.startswith(f"EMBER_COST_GPT4_OUTPUT: {value!r} is not a price")
        assert "US dollars per million tokens, such as 30.0, or unset it" in message
        assert error.value.context["variable"] == "EMBER_COST_GPT4_OUTPUT"
    assert cost("openai", "gpt-4o", UsageStats(1, 1)) > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not an object of models"),
        ('{"gpt-4": 30}', "'gpt-4': 30 is not an object of input, output"),
        ('{"gpt-4": {"prompt": 1}}', "'prompt' is none of input, output"),
        ('{"gpt-4": {"input": -1}}', "'input': -1 is not a price"),
        ('{"gpt-4": {"input": NaN}}', "'input': nan is not a price"),
        ('{"gpt-4": {"input": true}}', "'input': True is not a price"),
        ('{"gpt-4": {"input": null}}', "'input': None is not a price"),
        ('{"gpt-4": {"input": "cheap"}}', "'input': 'cheap' is not a price"),
        ('{"gpt-4": {"input": 1}, "GPT4": {"input": 2}}', "'GPT4' stands there twice"),
    ],
)
def test_malformed_json(text: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that is no table of prices is refused for whichever model, with what is wrong in it."""
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", text)
    with pytest.raises(ModelProviderError) as error:
        cost("anthropic", "claude-haiku-4-5", UsageStats(1, 1))
    assert str(error.value).startswith("EMBER_MODEL_COSTS_JSON: ")
    assert complaint in str(error.value)
    assert "or unset it" in str(error.value)


@pytest.mark.parametrize("name", ["EMBER_COST_MY_MODEL_2_INPUT", "EMBER_COST_mymodel2_OUTPUT"])
def test_misspelt_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would never be read because of its punctuation is said, not passed over."""
    pricing._variables.cache_clear()
    monkeypatch.setenv(name, "1")
    right = "EMBER_COST_MYMODEL2_" + name.rpartition("_")[2]
    with pytest.raises(ModelProviderError, match=f"{name} is not read.*{right}"):
        cost("acme", "my-model-2", MILLION)
    assert cost("openai", "gpt-4", MILLION) == 90.0


# The file.


def test_the_file_says_where_it_comes_from() -> None:
    """The snapshot is dated, sourced and licensed, and gives each provider's own pages."""
    held = json.loads((PRICES / "about.json").read_text())
    assert datetime.fromisoformat(held["generated"])
    assert held["source"]["package"] == "genai-prices"
    assert held["source"]["licence"] == "MIT"
    for provider in PROVIDERS.keys() - {"openai-responses"}:
        assert held["providers"][provider]["pricing_urls"][0].startswith("https://")


def test_prices_are_read_at_the_first_cost_only() -> None:
    """Importing costs nothing: no price is read, and genai-prices is never imported."""
    code = (
        "import sys; from ember.models import schemas; from ember.pricing import cost, snapshot; "
        "assert snapshot._table.cache_info().currsize == 0; "
        "cost.cost('openai', 'gpt-4', schemas.UsageStats(1, 1)); "
        "assert snapshot._table.cache_info().currsize == 1; "  # its own provider's
        "assert 'genai_prices' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_file_is_what_the_script_writes(
    genai: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The script finds its own output up to date, and an edited file not."""
    spec = importlib.util.spec_from_file_location("snapshot", ROOT / ".ci/snapshot_prices.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["snapshot_prices.py", "--check"])
    assert script.main() == 0
    edited = tmp_path / "prices"
    shutil.copytree(script.TARGET, edited)
    openai = edited / "openai.json"
    openai.write_text(openai.read_text().replace('"input_mtok":30,', '"input_mtok":3,', 1))
    (edited / "defunct.json").write_text("[]")
    monkeypatch.setattr(script, "TARGET", edited)
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["snapshot_prices.py"])
    assert script.main() == 0
    written, held = (
        {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
        for folder in (edited, PRICES)
    )
    written["about.json"]["generated"] = held["about.json"]["generated"]
    assert written == held
