"""Prices from the environment: `EMBER_COST_*` and `EMBER_MODEL_COSTS_JSON`."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ember.exceptions import ModelProviderError, UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing import cost as pricing
from ember.pricing.cost import Billing, cost

if TYPE_CHECKING:
    pass

MILLION = UsageStats(1_000_000, 1_000_000)
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
ROOT = Path(__file__).resolve().parents[3]


def test_variables_are_dollars_per_million_and_match_the_whole_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`GPT4` matches `gpt-4` in any spelling, but not `gpt-4-turbo`."""
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


def test_json_of_the_design_document_sets_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON sets the prices of its models, known and custom, and no others."""
    monkeypatch.setenv(
        "EMBER_MODEL_COSTS_JSON",
        '{"gpt-4-turbo": {"input": 11.0, "output": 30.0},'
        ' "custom-model": {"input": 5, "output": "15"}}',
    )
    assert cost("openai", "gpt-4-turbo", MILLION) == 41.0
    assert cost("acme", "custom-model", MILLION) == 20.0
    assert cost("openai", "gpt-4", MILLION) == 90.0
    assert cost("openai", "unheard-of", MILLION, requested_model="custom_model") == 20.0


def test_json_key_with_a_provider_applies_to_that_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key `provider/model` applies to that provider only, and overrides the plain model name."""
    monkeypatch.setenv(
        "EMBER_MODEL_COSTS_JSON",
        '{"azure/gpt-4": {"input": 1, "output": 1}, "gpt-4": {"input": 2, "output": 2},'
        ' "groq/openai/gpt-oss-120b": {"input": 3, "output": 3}}',
    )
    assert cost("azure", "gpt-4", MILLION) == 2.0
    assert cost("openai", "gpt-4", MILLION) == 4.0
    assert cost("groq", "openai/gpt-oss-120b", MILLION) == 6.0


def test_precedence_of_price_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precedence: a variable, the JSON, the cost that the provider reports, the snapshot."""
    billing = Billing(reported=7.0)
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 7.0
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", '{"gpt-4": {"input": 1, "output": 2}}')
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 3.0
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "10")
    assert cost("openai", "gpt-4", MILLION, billing=billing) == 12.0


def test_unset_price_is_that_of_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price that is not set is the snapshot's; if there is none, the cost is unknown."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "0")
    assert cost("openai", "gpt-4", MILLION) == 60.0
    monkeypatch.setenv("EMBER_COST_NEWMODEL_INPUT", "1")
    assert cost("acme", "new-model", MILLION, billing=Billing(reported=0.25)) == 0.25
    with pytest.warns(UnknownPriceWarning, match="EMBER_COST_NEWMODEL_OUTPUT"):
        assert math.isnan(cost("acme", "new-model", MILLION))


def test_input_override_prices_cached_written_and_long_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An override also prices cached, written and long input, unless the JSON sets others."""
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
    """An invalid price is an error at the first cost, with variable, value and remedy."""
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
    """JSON that is not a table of prices is an error for any model, which says what is wrong."""
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", text)
    with pytest.raises(ModelProviderError) as error:
        cost("anthropic", "claude-haiku-4-5", UsageStats(1, 1))
    assert str(error.value).startswith("EMBER_MODEL_COSTS_JSON: ")
    assert complaint in str(error.value)
    assert "or unset it" in str(error.value)


@pytest.mark.parametrize("name", ["EMBER_COST_MY_MODEL_2_INPUT", "EMBER_COST_mymodel2_OUTPUT"])
def test_misspelt_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is never read because of its punctuation is reported, not ignored."""
    pricing._variables.cache_clear()
    monkeypatch.setenv(name, "1")
    right = "EMBER_COST_MYMODEL2_" + name.rpartition("_")[2]
    with pytest.raises(ModelProviderError, match=f"{name} is not read.*{right}"):
        cost("acme", "my-model-2", MILLION)
    assert cost("openai", "gpt-4", MILLION) == 90.0
