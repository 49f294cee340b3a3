"""Which prices apply: by a call's address, newer tables, regions, and parts of a call."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ember.exceptions import ModelProviderError, UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing.cost import Billing, SubCall, cost
from ember.pricing.snapshot import is_local

MILLION = UsageStats(1_000_000, 1_000_000)
PRICES = Path(__file__).resolve().parents[3] / "ember/pricing/prices"
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def quiet_cost(*args: Any, **kwargs: Any) -> float:
    """The cost, without a warning if it is unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownPriceWarning)
        return cost(*args, **kwargs)


@pytest.mark.parametrize(
    ("base_url", "model", "dollars"),
    [
        ("https://api.z.ai/api/paas/v4", "glm-4.6", 0.6 + 2.2),
        ("https://api.z.ai:443/api/paas/v4", "glm-4.6", 0.6 + 2.2),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "openai.gpt-oss-20b-1:0", 0.07 + 0.3),
        ("https://api.moonshot.cn/v1", "kimi-k2-0905-preview", 0.6 + 2.5),
        ("https://api.novita.ai/openai/v1", "deepseek/deepseek-r1", None),
        ("https://router.huggingface.co/together/v1", "openai/gpt-oss-20b", None),
    ],
)
def test_base_url_selects_the_sellers_prices(
    base_url: str, model: str, dollars: float | None
) -> None:
    """A seller's base_url selects its own table, whatever prefix the call has."""
    for prefix in ("openai", "openai-responses"):
        found = cost(prefix, model, MILLION, at=NOON, base_url=base_url)
        assert found > 0
        if dollars is not None:
            assert found == pytest.approx(dollars)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.z.ai.example.com/v1",
        "https://example.com/https://api.z.ai/v1",
        "http://proxy:8080/v1",
        "https://somebody--app.modal.run/v1",
        "https://router.huggingface.co/v1",
    ],
)
def test_lookalike_addresses_select_no_seller(base_url: str) -> None:
    """Lookalikes of a seller's address, and hosts that anyone can use, select no seller."""
    assert math.isnan(quiet_cost("openai", "glm-4.6", MILLION, base_url=base_url))
    assert cost("openai", "gpt-4", MILLION, base_url=base_url) == 90.0


def test_all_sellers_have_https_addresses() -> None:
    """Every seller's hosts begin with https://: other addresses are not searched for."""
    about = json.loads((PRICES / "about.json").read_bytes())
    hosts = [facts["hosts"] for facts in about["providers"].values() if facts["hosts"]]
    assert hosts
    assert all(pattern.startswith("https://") for pattern in hosts)


LOCAL = [
    "http://localhost:11434/v1", "http://127.0.0.1/v1", "http://127.8.8.8:1/v1", "http://[::1]:8/v1",
    "http://10.1.2.3/v1", "http://172.16.0.1/v1", "http://172.31.255.255/v1",
    "http://192.168.1.9/v1", "http://169.254.1.1/v1", "http://[fe80::1%25eth0]/v1",
    "http://[fd00::7]/v1", "http://[::ffff:10.0.0.1]/v1", "http://0.0.0.0:8000/v1",
    "http://gpu/v1", "http://me:secret@gpu:8/v1", "https://box.local/v1", "http://a.b.internal/v1",
    "http://vllm.models.svc/v1", "http://vllm.models.svc.cluster.local/v1", "http://BOX.LOCAL./v1",
    "http+unix://%2Frun%2Fvllm.sock/v1", "http://x.localhost/v1",
]  # fmt: skip
ELSEWHERE = [
    "https://gpu.example.com/v1", "http://8.8.8.8/v1", "http://172.32.0.1/v1",
    "http://11.0.0.1/v1", "http://203.0.113.5/v1", "http://[2001:db8::1]/v1",
    "https://local.example/v1", "https://internal.com/v1",
    "https://10.0.0.1.nip.io/v1", "https://ollama.com/v1",
]  # fmt: skip


@pytest.mark.parametrize("provider", ["ollama", "vllm", "lmstudio", "llamacpp", "VLLM"])
@pytest.mark.parametrize("base_url", LOCAL)
def test_servers_on_the_callers_network_are_free(provider: str, base_url: str) -> None:
    """A model server on this machine or its private network costs nothing."""
    assert cost(provider, "llama3.2", MILLION, base_url=base_url) == 0.0


@pytest.mark.parametrize("base_url", ELSEWHERE)
def test_server_on_another_host_has_an_unknown_price(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any other host the price is unknown, and the warning says what to set."""
    assert not is_local(base_url)
    with pytest.warns(UnknownPriceWarning, match="EMBER_COST_LLAMA32_INPUT") as caught:
        assert math.isnan(cost("vllm", "llama3.2", MILLION, base_url=base_url))
    assert "vllm at " in str(caught[0].message)
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", '{"vllm/llama3.2": {"input": 1, "output": 2}}')
    assert cost("vllm", "llama3.2", MILLION, base_url=base_url) == 3.0


def test_the_warning_is_at_the_callers_line() -> None:
    """The warning of an unknown price points at the caller's line, outside of Ember."""
    with pytest.warns(UnknownPriceWarning) as caught:
        cost("openai", "gpt-unheard-of", MILLION)
    assert caught[0].filename == __file__


def test_the_warning_of_a_task_is_at_the_line_that_runs_its_loop() -> None:
    """In a task, which has no caller, the warning points to the line that runs the loop."""

    async def unpriced() -> None:
        cost("openai", "gpt-unheard-of-in-tasks", MILLION)

    async def gathered() -> None:
        await asyncio.gather(unpriced())

    with pytest.warns(UnknownPriceWarning) as caught:
        asyncio.run(gathered())
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("gpt-4o", 1), ("gpt-5-2025-08-07", 1), ("gpt-5.2", 1), ("gpt-5.4", 1.1),
        ("gpt-5.6-luna", 1.1), ("gpt-6-sol", 1.1), ("o3", 1),
    ],
)  # fmt: skip
def test_openai_regional_hosts_cost_a_tenth_more(model: str, factor: float) -> None:
    """Tokens cost a tenth more on OpenAI's regional hosts, for the models that list it."""
    counts = {"web_searches": 1000}
    plain = cost("openai", model, UsageStats(1000, 1000), at=NOON)
    searched = cost("openai", model, UsageStats(), billing=Billing(counts), at=NOON)
    for region in ("us", "eu"):
        url = f"https://{region}.api.openai.com/v1"
        for provider in ("openai", "openai-responses"):
            found = cost(provider, model, UsageStats(1000, 1000), at=NOON, base_url=url)
            assert found == pytest.approx(plain * factor)
            fees = cost(
                provider, model, UsageStats(), billing=Billing(counts), at=NOON, base_url=url
            )
            assert fees == searched
    assert cost("openai", model, MILLION, base_url="https://api.openai.com/v1") == cost(
        "openai", model, MILLION
    )


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("claude-opus-4-8", 1.1), ("claude-sonnet-4-6", 1.1), ("claude-opus-5", 1.1),
        ("claude-opus-4-5", 1), ("claude-haiku-4-5", 1), ("claude-3-opus-20240229", 1),
    ],
)  # fmt: skip
def test_anthropic_processing_in_the_us_costs_a_tenth_more(model: str, factor: float) -> None:
    """Processing in the US costs a tenth more since Claude 4.6, also in fast mode."""
    usage = UsageStats(1000, 1000, cached_tokens=10)
    plain = cost("anthropic", model, usage)
    assert cost("anthropic", model, usage, billing=Billing(region="us")) == pytest.approx(
        plain * factor
    )
    fast = cost("anthropic", model, usage, billing=Billing(tier="fast"))
    both = cost("anthropic", model, usage, billing=Billing(tier="fast", region="us"))
    assert both == pytest.approx(fast * factor)


def test_overridden_price_applies_in_every_region_and_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token price from the environment applies in every region and tier."""
    monkeypatch.setenv("EMBER_COST_CLAUDEOPUS48_INPUT", "7")
    billing = Billing(tier="fast", region="us")
    assert cost("anthropic", "claude-opus-4-8", UsageStats(1_000_000, 0), billing=billing) == 7.0


def test_subcalls_are_billed_one_by_one() -> None:
    """Each part of a call is billed by its own model and length; fees are billed once."""
    long, short = UsageStats(150_000, 0), UsageStats(100_000, 0)
    model = "claude-sonnet-4-5"  # above 200,000 tokens it costs twice as much
    billing = Billing(
        {"web_searches": 2}, subcalls=(SubCall(None, long, {}), SubCall(None, short, {}))
    )
    assert cost("anthropic", model, long + short, billing=billing) == pytest.approx(0.75 + 0.02)
    advised = Billing(subcalls=(SubCall(None, short, {}), SubCall("claude-opus-4-8", short, {})))
    assert cost("anthropic", model, short + short, billing=advised) == pytest.approx(0.3 + 0.5)
    unknown = Billing(subcalls=(SubCall(None, short, {}), SubCall("claude-nobody", short, {})))
    with pytest.warns(UnknownPriceWarning, match="claude-nobody"):
        assert math.isnan(cost("anthropic", model, short, billing=unknown))


NEWER: list[Any] = [
    {
        "id": "openai",
        "api_pattern": "https://api\\.openai\\.com",
        "future": {"ignored": True},
        "model_match": {"starts_with": "gpt-"},
        "models": [
            {
                "id": "gpt-7",
                "match": {"or": [{"equals": "gpt-7"}, {"starts_with": "gpt-7-"}]},
                "prices": [
                    {"prices": {"input_mtok": 3, "output_mtok": {"base": 5, "tiers": [
                        {"start": 1000, "price": 9}]}}},
                    {"constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": 1}},
                    {"constraint": {"type": "future"}, "prices": {"input_mtok": 99}},
                ],
                "price_variants": [{"when": {"service_tier": "flex"}, "prices": {"input_mtok": 2}}],
            },
            {"id": "gpt-4", "match": {"equals": "gpt-4"}, "prices": {"input_mtok": 4.5}},
            {"id": "odd", "match": {"future": "odd"}, "prices": {"input_mtok": 1}},
            {"id": "hum", "match": {"equals": "hum"}, "prices": {"input_mtok": 1, "hums": 2}},
        ],
    },
    {
        "id": "x-ai",
        "models": [{"id": "grok-9", "match": {"equals": "grok-9"}, "prices": {"input_mtok": 8}}],
    },
]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_prices_from_a_file_override_the_snapshot(
    wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in EMBER_PRICES overrides the shipped tables, which price all other models."""
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"units": {}, "providers": NEWER} if wrapped else NEWER))
    before = quiet_cost("openai", "gpt-7", UsageStats(100, 100), at=NOON)
    monkeypatch.setenv("EMBER_PRICES", str(file))
    assert math.isnan(before)
    million_in, million_out = UsageStats(1_000_000, 0), UsageStats(0, 1_000_000)
    assert cost("openai", "gpt-7-mini", million_in, at=NOON) == 3.0
    assert cost("openai", "gpt-7", million_in, at=datetime(2027, 2, 1)) == 1.0
    assert cost("openai", "gpt-7", million_out, at=NOON) == 5.0
    assert cost("openai", "gpt-7", MILLION, at=NOON) == 12.0
    assert cost("openai", "gpt-7", million_in, billing=Billing(tier="flex"), at=NOON) == 2.0
    assert cost("openai", "gpt-4", million_in) == 4.5
    assert cost("xai", "grok-9", million_in) == 8.0
    assert cost("openai", "gpt-4o", million_in) == 2.5  # the shipped table's
    assert cost("anthropic", "claude-opus-4-8", million_in) == 5.0
    assert math.isnan(quiet_cost("openai", "odd", million_in))
    assert math.isnan(quiet_cost("openai", "hum", million_in))
    assert cost("openai", "gpt-4", million_in, billing=Billing(reported=0.5)) == 0.5
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", "1")
    assert cost("openai", "gpt-4", million_in) == 1.0


def test_prices_can_come_from_genai_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMBER_PRICES=genai-prices reads the installed package's own data."""
    pytest.importorskip("genai_prices", reason="genai-prices is a development dependency")
    monkeypatch.setenv("EMBER_PRICES", "genai-prices")
    assert cost("openai", "gpt-4", MILLION) == 90.0
    assert cost("google", "gemini-pro", UsageStats(100_000, 0)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "content", [None, "{", "[1]", '{"a": 1}', '[{"id": "x"}]', '[{"id": "x", "models": [{}]}]', "7"]
)
def test_unreadable_price_file_is_an_error(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unreadable prices are an error at the first cost, with the variable and the remedy."""
    file = tmp_path / "data.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("EMBER_PRICES", str(file))
    with pytest.raises(
        ModelProviderError, match=r"EMBER_PRICES: no prices .*genai-prices"
    ) as caught:
        cost("openai", "gpt-4", MILLION)
    assert caught.value.context["variable"] == "EMBER_PRICES"


def test_missing_genai_prices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is an error, not a silent fallback."""
    from ember.pricing import snapshot

    snapshot._tables_from.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.setenv("EMBER_PRICES", "genai-prices")
    with pytest.raises(ModelProviderError, match="EMBER_PRICES"):
        cost("openai", "gpt-4", MILLION)
