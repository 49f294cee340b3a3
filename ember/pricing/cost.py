"""The cost of a call in US dollars: exact decimal arithmetic, rounded to a float only at the end.

Prices come from these sources, in order of precedence:

1. the environment: `EMBER_COST_GPT4_INPUT` and `EMBER_COST_GPT4_OUTPUT`, then
   `EMBER_MODEL_COSTS_JSON`; for the model that the response reports, else for the one requested;
2. the provider's own figure (OpenRouter, Perplexity and xAI send one);
3. the price tables (`snapshot`): those that `EMBER_PRICES` names, then those shipped with Ember.
   The call's base URL determines the seller, else it is the provider. A server on the caller's
   machine or network costs nothing.

Prices in the environment are US dollars per million tokens. A variable's name contains the model's
full name in capitals without punctuation: `GPT6SOL` is `gpt-6-sol` and not `gpt-6.2-sol`. The keys
of the JSON are model names, compared in the same way, or `provider/model` for that provider only;
its entries are `{"input": 10, "output": 30}`, with `cached_input` and `cache_write` if those
differ. A variable takes precedence over the JSON. `input` is the price of all input, cached or not,
audio or not, in every service tier. Prices that are not given (the other direction, fees per search
or per request) come from the tables. An empty variable counts as unset.

Counts are split as in genai-prices: each token is charged once, at the most specific price of its
model. If a provider reports parts larger than their whole (more cached tokens than input), the
parts are charged as reported and the rest of the whole is 0, never negative.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember.exceptions import ModelProviderError, UnknownPriceWarning
from ember.models.schemas import UsageStats
from ember.pricing.snapshot import EXACT, Prices, Rate, Unit, is_local, seller, table_prices, units

if TYPE_CHECKING:
    from datetime import datetime

_JSON = "EMBER_MODEL_COSTS_JSON"
_PREFIX = "EMBER_COST_"
# Keys of an override, and the table's price that each replaces. `input` and `output` come first:
# they also drop the prices of their parts, which the other keys then set.
_OVERRIDES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}

# Run by the caller: free on the caller's own machine or network; elsewhere the price is unknown.
_OWN_SERVERS = frozenset({"local", "ollama", "lmstudio", "vllm", "llamacpp"})
_ELSEWHERE = " at "

_FREE: Prices = {}
_NO_COUNTS: Mapping[str, int] = {}
_NO_OVERRIDE: Mapping[str, Decimal] = {}

REPORTED: Prices = {"reported": 1}
"""Placeholder for the cost that the provider reports."""


class PriceQuery(NamedTuple):
    """The values that a price depends on.

    Args:
        provider: The seller's name in Ember; for a model server outside the caller's network,
            with its host: `ollama at gpu.example.com`.
        model: The model that the response reports.
        requested_model: The model that was requested.
        tier: The service tier, then the region if it has its own price: `priority us`.
    """

    provider: str
    model: str
    requested_model: str | None
    tier: str | None


class SubCall(NamedTuple):
    """A part of a call that is billed like a separate call.

    Args:
        model: The model that served it; None for the model of the call.
        usage: Its tokens.
        counts: See `Billing.counts`.
    """

    model: str | None
    usage: UsageStats
    counts: Mapping[str, int]


class Billing(NamedTuple):
    """Data that a price depends on in addition to the public counts.

    Args:
        counts: Amounts by genai-prices' usage keys: `cache_write_1h_tokens`, `input_audio_tokens`,
            `cache_audio_read_tokens`, `output_audio_tokens`, `input_image_tokens`,
            `output_citation_tokens`, `input_audio_seconds`, `web_searches`, `storage_searches`.
            Tokens are parts of the counts in `UsageStats`: 1-hour writes of `cache_write_tokens`,
            cached audio of `cached_tokens` and of `input_audio_tokens`.
        tier: The service tier that served the call: `batch`, `flex`, `priority`, `fast`. A model
            without a price for the tier costs the standard price.
        reported: The cost that the provider reports, in US dollars.
        region: The two-letter region that processed the call, if choosing one may cost extra.
        subcalls: The parts of the call, if they are billed separately; together they contain all
            tokens of the call, and `counts` then holds only fees.
    """

    counts: Mapping[str, int] = _NO_COUNTS
    tier: str | None = None
    reported: float | None = None
    region: str | None = None
    subcalls: Sequence[SubCall] = ()


def cost(
    provider: str,
    model: str,
    usage: UsageStats,
    *,
    billing: Billing | None = None,
    requested_model: str | None = None,
    at: datetime | None = None,
    base_url: str = "",
) -> float:
    """Return the cost of one call.

    Args:
        provider: The provider's name in Ember. If the tables lack it, the prices are those of
            the provider that owns the model's name, if any (`claude...` is Anthropic's).
        model: The model that the response reports; may be "".
        usage: The call's tokens.
        billing: Data that the price depends on in addition to `usage`.
        requested_model: The model that was requested, priced if the reported one is unknown.
        at: The time of the call, UTC if naive; now by default.
        base_url: The base URL of the call, which determines the seller.

    Returns:
        US dollars; `nan`, with one `UnknownPriceWarning` per model, if no price is known.

    Raises:
        ModelProviderError: An override is malformed, or `EMBER_PRICES` cannot be read; the message
            names the variable.
    """
    billing = billing or Billing()
    query = _price_query(provider, model, requested_model, billing, base_url)
    prices = find_prices(query, billing.reported, at)
    if prices == REPORTED:
        return math.nan if billing.reported is None else billing.reported
    subcalls = billing.subcalls or (SubCall(None, usage, billing.counts),)
    if billing.subcalls and billing.counts:
        subcalls = (SubCall(None, UsageStats(), billing.counts), *subcalls)
    total = Decimal(0)
    for subcall in subcalls:
        subquery, subprices = query, prices
        if subcall.model not in (None, model):
            subquery = query._replace(model=subcall.model, requested_model=None)
            subprices = find_prices(subquery, None, at)
        if subprices is None:
            _warn(subquery.provider, subquery.model or subquery.requested_model or "")
            return math.nan
        total = EXACT.add(total, _amount(subprices, subcall.usage, subcall.counts))
    return float(total)


def _price_query(
    provider: str, model: str, requested_model: str | None, billing: Billing, base_url: str
) -> PriceQuery:
    tier, region = billing.tier, billing.region
    if base_url and provider.lower() in _OWN_SERVERS:
        if not is_local(base_url):
            host = base_url.partition("//")[2].partition("/")[0].rpartition("@")[2]
            provider = f"{provider}{_ELSEWHERE}{host}"
    elif base_url:
        provider, named = seller(provider, base_url)
        region = region or named
    if region:
        tier = f"{tier} {region}" if tier else region
    return PriceQuery(provider, model, requested_model, tier)


def find_prices(query: PriceQuery, reported: float | None, at: datetime | None) -> Prices | None:
    """Return the prices of a call by the precedence above, or None if no price is known.

    All price look-ups go through this module's attribute, which may be replaced to apply other
    prices for a while. `reported` and `at` are those of `Billing` and `cost`.
    """
    provider, _, elsewhere = query.provider.partition(_ELSEWHERE)
    override = _override(provider, query.model, query.requested_model)
    if provider.lower() in _OWN_SERVERS:
        prices = None if elsewhere else _FREE
    else:
        prices = table_prices(provider.lower(), query.model, query.requested_model, query.tier, at)
    if override and (prices is not None or {"input", "output"} <= override.keys()):
        return _overridden(prices or _FREE, override)
    if reported is not None and 0 <= reported < math.inf:
        return REPORTED
    return prices


# Arithmetic.


def _amount(prices: Prices, usage: UsageStats, parts: Mapping[str, int]) -> Decimal:
    """Return the exact cost of these counts."""
    counts = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "requests": 1,
        **parts,
    }
    charged: dict[str, int] = {}
    total = Decimal(0)
    for key, unit, inside in _order(tuple(prices)):
        rest = counts.get(unit.usage_key, 0)
        for part in inside:
            rest -= charged[part]
        charged[key] = max(rest, 0)
        if rest > 0:
            amount = EXACT.multiply(_rate(prices[key], counts["input_tokens"]), rest)
            total = EXACT.add(total, EXACT.divide(amount, unit.per))
    return total


def _rate(rate: Rate, input_tokens: int) -> Decimal | int:
    if not isinstance(rate, list):
        return rate
    tiers = (price for start, price in reversed(rate[1:]) if input_tokens > start)
    price: Decimal | int = next(tiers, rate[0])
    return price


@lru_cache(maxsize=256)
def _order(keys: tuple[str, ...]) -> list[tuple[str, Unit, list[str]]]:
    """Return the units of these prices, parts before their wholes, each with its parts."""
    unit = units()
    ordered = sorted(keys, key=lambda key: (-len(unit[key].dimensions), key))
    return [
        (key, unit[key], [part for part in ordered if part != key and _is_in(part, key)])
        for key in ordered
    ]


def _is_in(part: str, whole: str) -> bool:
    return units()[whole].dimensions <= units()[part].dimensions


# The environment's prices.


def _override(provider: str, reported: str, requested: str | None) -> Mapping[str, Decimal]:
    """Return the environment's prices of the reported model, else of the requested one."""
    text = os.environ.get(_JSON, "").strip()
    table: Mapping[str, Mapping[str, Decimal]] = _costs_json(text) if text else {}
    for model in dict.fromkeys((reported, requested or reported)):
        found = table.get(_plain(provider + model)) or table.get(_plain(model)) or _NO_OVERRIDE
        for name, side in _variables(model):
            if text := os.environ.get(name, "").strip():
                found = {**found, side: _dollars_per_million(text, name)}
        if found:
            return found
    return _NO_OVERRIDE


def _overridden(prices: Prices, override: Mapping[str, Decimal]) -> Prices:
    replaced = dict(prices)
    for name, key in _OVERRIDES.items():
        if name in override:
            replaced = {other: rate for other, rate in replaced.items() if not _is_in(other, key)}
            replaced[key] = override[name]
    return replaced


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).upper()


@lru_cache(maxsize=4096)
def _variables(model: str) -> tuple[tuple[str, str], ...]:
    """Return the names of a model's price variables, each with `input` or `output`.

    Two look-ups per call are several times cheaper than reading the whole environment, which is
    read only once per model, for names that would never be found: `EMBER_COST_GPT_4_INPUT`.
    """
    if not (plain := _plain(model)):
        return ()
    names = {f"{_PREFIX}{plain}_{side.upper()}": side for side in ("input", "output")}
    for name in os.environ:
        stem, _, side = name.removeprefix(_PREFIX).rpartition("_")
        right = f"{_PREFIX}{_plain(stem)}_{side}"
        if name.startswith(_PREFIX) and right in names and name != right:
            what = f"{name} is not read: its name is without punctuation, {right}"
            raise ModelProviderError(what, {"variable": name})
    return tuple(names.items())


@lru_cache(maxsize=8)
def _costs_json(text: str) -> Mapping[str, Mapping[str, Decimal]]:
    try:
        costs = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise _malformed(_JSON, f"{text!r} is not JSON ({error})") from error
    keys = ", ".join(_OVERRIDES)
    table: dict[str, Mapping[str, Decimal]] = {}
    for model, entry in _entries(costs, f"{text!r} is not an object of models"):
        if _plain(model) in table:
            raise _malformed(_JSON, f"{model!r} stands there twice, but for punctuation")
        prices: dict[str, Decimal] = {}
        for key, value in _entries(entry, f"{model!r}: {entry!r} is not an object of {keys}"):
            if key not in _OVERRIDES:
                raise _malformed(_JSON, f"{model!r}: {key!r} is none of {keys}")
            prices[key] = _dollars_per_million(value, _JSON, f"{model!r}: {key!r}: ")
        table[_plain(model)] = prices
    return table


def _entries(value: Any, otherwise: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise _malformed(_JSON, otherwise)
    return cast("dict[str, Any]", value).items()


def _dollars_per_million(value: Any, variable: str, where: str = "") -> Decimal:
    price = Decimal("nan")
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            price = Decimal(value)
    # The bound, a million dollars per token, keeps the arithmetic exact.
    if not price.is_finite() or not 0 <= price <= 10**12:
        raise _malformed(variable, f"{where}{value!r} is not a price")
    return price


def _malformed(variable: str, what: str) -> ModelProviderError:
    example = """{"gpt-6-sol": {"input": 2.0, "output": 10.0}}""" if variable == _JSON else "30.0"
    return ModelProviderError(
        f"{variable}: {what}. Give US dollars per million tokens, such as {example}, or unset it.",
        {"variable": variable},
    )


# Unknown prices.

_warned: dict[tuple[str, str], object] = {}


def _warn(provider: str, model: str) -> None:
    ours = object()
    # One atomic step, so that only one of two concurrent threads warns.
    if _warned.setdefault((provider, model), ours) is ours:
        names = " and ".join(name for name, _ in _variables(model))
        warnings.warn(
            f"No price is known for {model!r} of {provider!r}: its cost is nan. Set {names}"
            f" (US dollars per million tokens), or {_JSON}.",
            UnknownPriceWarning,
            stacklevel=_frames_of_ember(),
        )


def _frames_of_ember() -> int:
    """Return the `stacklevel` of the caller's own line, seen from `_warn`."""
    frame, level = sys._getframe(1), 1  # pyright: ignore[reportPrivateUsage] - documented
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_CALLERS):
        frame, level = frame.f_back, level + 1
    return level


_EMBER = str(Path(__file__).parents[1])
# The only caller of an asyncio task's call is the code that runs the event loop.
_NOT_THE_CALLERS = tuple(
    f"{folder}{os.sep}"
    for folder in (_EMBER, f"{_EMBER}_testing", Path(os.__file__).with_name("asyncio"))
)
