"""Every price of genai-prices, over a grid of usages, tiers and times, and the script."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import sys
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from ember.exceptions import UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing.cost import Billing, cost
from tests.client.pricing.snapshot import PRICES, PROVIDERS, REFUSED, SELLERS, tables

if TYPE_CHECKING:
    from collections.abc import Callable

MILLION = UsageStats(1_000_000, 1_000_000)
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
ROOT = Path(__file__).resolve().parents[3]
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


def _is_refused(provider: str, model: Any) -> bool:
    """Whether the snapshot omits a row: a row without prices is unknown, not free."""
    nothing = not any(map(vars, _price_sets(model))) and not model.id.endswith(":free")
    return (provider, model.id) in REFUSED or (provider in SELLERS and nothing)


def _name(clause: Any) -> str | None:
    """A name that the clause matches, or None if it is not a simple clause."""
    for kind in ("equals", "starts_with", "ends_with", "contains"):
        if hasattr(clause, kind):
            return str(getattr(clause, kind))
    parts = getattr(clause, "or_", ())
    return next((name for part in parts if (name := _name(part))), None)


def _price_sets(model: Any) -> list[Any]:
    sets = [c.prices for c in model.prices] if isinstance(model.prices, list) else [model.prices]
    return sets + [variant.prices for variant in model.price_variants or ()]


def _usages(model: Any) -> list[tuple[UsageStats, dict[str, int]]]:
    """Usages of every kind, and on both sides of each of the model's tiers."""
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
    """No tier, each tier that the model prices, and one that it may lack."""
    whens = [variant.when for variant in model.price_variants or () if "route" not in variant.when]
    named = {value: {key: value} for when in whens for key, value in when.items()}
    return [
        (None, {}),
        *({"priority": {"service_tier": "priority"}, **named} if named else {}).items(),
    ]


def _moments(model: Any) -> list[datetime]:
    """The times when the model's prices change, a second before each, and hours of every kind."""
    conditional = model.prices if isinstance(model.prices, list) else []
    conditions = [entry.constraint for entry in (*conditional, *(model.price_variants or ()))]
    days = {condition.start_date for condition in conditions if hasattr(condition, "start_date")}
    midnights = [datetime(day.year, day.month, day.day, tzinfo=timezone.utc) for day in days]
    return [*(MOMENTS if conditions else (NOON,)), *midnights, *(m - SECOND for m in midnights)]


def _names(clause: Any) -> list[str]:
    """Names that the clause matches, and near misses."""
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
    """Every name in the data, and its near misses, matches the same row, or none."""
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
def test_costs_equal_those_of_genai_prices(
    provider: str, genai: ModuleType, figures: Callable[[str], None]
) -> None:
    """Every model of the provider costs exactly what genai-prices computes, over a grid."""
    from genai_prices.data_snapshot import get_snapshot

    theirs = PROVIDERS[provider]
    (source,) = (found for found in get_snapshot().providers if found.id == theirs)
    compared = models = 0
    refused: list[str] = []
    for model in source.models:
        name = _name(model.match) or model.id
        if source.find_model(name) is not model:
            name = model.id
        if source.find_model(name) is not model:
            continue  # earlier rows match all of its names: no call can use it
        sets = [set(vars(prices)) for prices in _price_sets(model)]
        if _is_refused(theirs, model) or (any(sets) and not any("input_mtok" in s for s in sets)):
            refused.append(name)
            continue
        models += 1
        moments = _moments(model)
        for usage, counts in _usages(model):
            for moment in moments:
                for tier, context in _contexts(model):
                    # Not by the name: a search of its row for each cost takes most of the time.
                    expected = model.calc_price(
                        genai.Usage(**_theirs(usage, counts)),
                        source,
                        genai_request_timestamp=moment,
                        price_context=context,
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
    """Every row of genai-prices for our providers is in the snapshot, or omitted for a reason."""
    from genai_prices.data import providers

    held = tables()
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
def test_model_sold_by_another_provider_costs_its_owners_price(
    provider: str, model: str, genai: ModuleType
) -> None:
    """A model sold by another provider, or with a compact date, costs the owner's price."""
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
def test_model_of_a_custom_provider_costs_its_owners_price(model: str, genai: ModuleType) -> None:
    """An unknown provider's model costs its owner's price."""
    usage = genai.Usage(input_tokens=1_000, output_tokens=100)
    expected = genai.calc_price(usage, model, genai_request_timestamp=NOON).total_price
    assert cost("acme", model, UsageStats(1_000, 100), at=NOON) == float(expected)


def test_snapshot_is_what_the_script_writes(
    genai: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The script reports its own output as up to date, and an edited file as outdated."""
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
