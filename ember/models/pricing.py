"""What a call costs, in US dollars: exact decimal arithmetic, one rounding to a float at the end.

A price is taken from what a replayed recording was charged at (`price_pins`), then, in this order:

1. the environment: `EMBER_COST_GPT4_INPUT` and `EMBER_COST_GPT4_OUTPUT`, then
   `EMBER_MODEL_COSTS_JSON`; for the model that the response reports, else for the one requested;
2. the provider's own figure (OpenRouter sends one);
3. `prices.json`, a dated snapshot of https://github.com/pydantic/genai-prices (MIT); a server on
   one's own machine costs nothing, since nobody bills it.

The environment's prices are US dollars per million tokens. A variable's name holds the model's
whole name in capitals with all punctuation dropped: `GPT4` is `gpt-4` and not `gpt-4-turbo`. The
JSON's keys are model names, compared in the same way, or `provider/model` for that provider alone;
its entries are `{"input": 10, "output": 30}`, with `cached_input` and `cache_write` if those
differ. A variable beats the JSON. `input` is the price of all input, cached or not, audio or not,
in every service tier. What is not named (the other direction, fees by search or by request) keeps
the snapshot's price. An empty variable counts as not set.

Counts are split as genai-prices splits them: a token is charged once, at the most specific price
that its model has. Where a provider's parts exceed their whole (more cached tokens than input), the
parts are charged as reported and the rest of the whole is nothing, never less.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember.exceptions import ModelProviderError, UnknownPriceWarning
from ember.models import price_pins

if TYPE_CHECKING:
    from ember.models.schemas import UsageStats

__all__ = ["Billing", "cost"]

_SAME_PRICES = {"openai-responses": "openai"}
_OWN_MACHINE = frozenset({"local", "ollama", "lmstudio", "vllm", "llamacpp"})

_JSON = "EMBER_MODEL_COSTS_JSON"
_PREFIX = "EMBER_COST_"
# What an override may name, and the snapshot's price that it replaces. `input` and `output` come
# first: they also drop the prices of their parts, which the others then set.
_OVERRIDES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}

# Not the thread's context, whose precision a program may have changed. Sixty digits hold every
# product of a price and a count.
_EXACT = Context(prec=60)

# A number; or [base, [above this many input tokens, the price of all tokens], ...].
_Rate = Decimal | int | list[Any]
_Prices = Mapping[str, _Rate]
# What must hold (None, a date, a time of day), and the prices that then apply.
_Conditional = tuple[str | None, _Prices]


class _Found(NamedTuple):
    prices: _Prices | list[_Conditional]
    variants: Mapping[str, list[_Conditional]]


class _Unit(NamedTuple):
    usage_key: str
    per: int
    dimensions: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Billing:
    """What a price needs besides the public counts.

    Args:
        counts: Amounts by genai-prices' usage keys: `cache_write_1h_tokens`, `input_audio_tokens`,
            `cache_audio_read_tokens`, `output_audio_tokens`, `input_image_tokens`, `web_searches`.
            Tokens are parts of the counts in `UsageStats`: 1-hour writes of `cache_write_tokens`,
            cached audio of `cached_tokens` and of `input_audio_tokens`. A key that says what a
            field of `UsageStats` says (`input_tokens`) goes before it.
        tier: The service tier that served the call: `batch`, `flex`, `priority`, `fast`. Where the
            model has no price of its own for it, the standard price.
        reported: The provider's own figure in US dollars.
    """

    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    tier: str | None = None
    reported: float | None = None


_NO_BILLING = Billing()


def cost(
    provider: str,
    model: str,
    usage: UsageStats,
    *,
    billing: Billing | None = None,
    requested_model: str | None = None,
    at: datetime | None = None,
) -> float:
    """What one call costs.

    Args:
        provider: The provider's name in Ember. One that the snapshot does not have is priced as the
            provider to which the model's name belongs, if any (`claude...` is Anthropic's).
        model: The model as the response reports it; may be "".
        usage: The call's tokens.
        billing: What the price needs besides.
        requested_model: The model as it was asked for, priced where the reported one is unknown.
        at: The moment of the call, UTC if naive; now by default.

    Returns:
        US dollars; `nan`, with one `UnknownPriceWarning` a model, where no price is known.

    Raises:
        ModelProviderError: An override is malformed; the message names the variable.
    """
    billing = billing or _NO_BILLING
    charge = price_pins.Charge(provider, model, requested_model, billing.tier)
    prices = price_pins.pinned(charge)
    if prices is None:
        prices = _in_force(charge, billing.reported, at)
        if prices is None:
            _warn(provider, model or requested_model or "")
            return math.nan
        price_pins.note(charge, prices)
    if prices == price_pins.REPORTED:
        return math.nan if billing.reported is None else billing.reported
    return _dollars(prices, usage, billing.counts)


def _in_force(
    charge: price_pins.Charge, reported: float | None, at: datetime | None
) -> _Prices | None:
    """The prices of a call, by the precedence above; None where none is known."""
    provider, model, requested_model, tier = charge
    override = _override(provider, model)
    if not override and requested_model and requested_model != model:
        override = _override(provider, requested_model)
    prices = _standard(provider.lower(), model, requested_model, tier, at)
    if override and (prices is not None or {"input", "output"} <= override.keys()):
        return _overridden(prices or {}, override)
    if reported is not None and 0 <= reported < math.inf:
        return price_pins.REPORTED
    return prices


# Arithmetic.


def _dollars(prices: _Prices, usage: UsageStats, parts: Mapping[str, int]) -> float:
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
            amount = _EXACT.multiply(_rate(prices[key], counts["input_tokens"]), rest)
            total = _EXACT.add(total, _EXACT.divide(amount, unit.per))
    return float(total)


def _rate(rate: _Rate, input_tokens: int) -> Decimal | int:
    if not isinstance(rate, list):
        return rate
    price: Decimal | int = rate[0]
    for start, above in rate[1:]:
        if input_tokens > start:
            price = above
    return price


@lru_cache(maxsize=256)
def _order(keys: tuple[str, ...]) -> list[tuple[str, _Unit, list[str]]]:
    """The units of these prices, parts before their wholes, each with the parts inside it."""
    units = _units()
    ordered = sorted(keys, key=lambda key: (-len(units[key].dimensions), key))
    return [
        (key, units[key], [part for part in ordered if part != key and _is_in(part, key)])
        for key in ordered
    ]


def _is_in(part: str, whole: str) -> bool:
    return _units()[whole].dimensions <= _units()[part].dimensions


# The environment's prices.


def _override(provider: str, model: str) -> Mapping[str, Decimal]:
    found: Mapping[str, Decimal] = {}
    if text := os.environ.get(_JSON, "").strip():
        table = _costs_json(text)
        found = table.get(_plain(provider + model)) or table.get(_plain(model)) or {}
    for name, side in _variables(model):
        if text := os.environ.get(name, "").strip():
            found = {**found, side: _dollars_per_million(text, name)}
    return found


def _overridden(prices: _Prices, override: Mapping[str, Decimal]) -> _Prices:
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
    """The variables of a model's prices, each with what it gives the price of.

    Two look-ups a call are several times cheaper than reading the whole environment, which is read
    once a model only, for names that would never be found: `EMBER_COST_GPT_4_INPUT`.
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
    for model, entry in _items(costs, f"{text!r} is not an object of models"):
        if _plain(model) in table:
            raise _malformed(_JSON, f"{model!r} stands there twice, but for punctuation")
        prices: dict[str, Decimal] = {}
        for key, value in _items(entry, f"{model!r}: {entry!r} is not an object of {keys}"):
            if key not in _OVERRIDES:
                raise _malformed(_JSON, f"{model!r}: {key!r} is none of {keys}")
            prices[key] = _dollars_per_million(value, _JSON, f"{model!r}: {key!r}: ")
        table[_plain(model)] = prices
    return table


def _items(value: Any, otherwise: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise _malformed(_JSON, otherwise)
    return cast("dict[str, Any]", value).items()


def _dollars_per_million(value: Any, variable: str, where: str = "") -> Decimal:
    price = Decimal("nan")
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            price = Decimal(value)
    # The bound, a million dollars a token, keeps the arithmetic exact.
    if not price.is_finite() or not 0 <= price <= 10**12:
        raise _malformed(variable, f"{where}{value!r} is not a price")
    return price


def _malformed(variable: str, what: str) -> ModelProviderError:
    example = """{"gpt-4": {"input": 30.0, "output": 60.0}}""" if variable == _JSON else "30.0"
    return ModelProviderError(
        f"{variable}: {what}. Give US dollars per million tokens, such as {example}, or unset it.",
        {"variable": variable},
    )


# The snapshot.


def _standard(
    provider: str, model: str, requested_model: str | None, tier: str | None, at: datetime | None
) -> _Prices | None:
    """The snapshot's prices of a call at a moment, or None where it has none."""
    if provider in _OWN_MACHINE:
        return {}
    found = _find(provider, model) or (
        _find(provider, requested_model) if requested_model else None
    )
    if found is None:
        return None
    prices = found.prices
    variants = found.variants.get(tier.lower(), []) if tier else []
    if not variants and not isinstance(prices, list):
        return prices
    moment = at or datetime.now(timezone.utc)
    moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    if isinstance(prices, list):
        prices = next(
            (each for when, each in reversed(prices) if _holds(when, moment)), prices[0][1]
        )
    for when, variant in reversed(variants):
        if _holds(when, moment):
            prices = {**prices, **variant}
    return prices


def _holds(when: str | None, moment: datetime) -> bool:
    if when is None:
        return True
    if ":" not in when:
        return moment.date().isoformat() >= when
    start, end = when.split("-")
    now = moment.strftime("%H:%M")
    return start <= now < end if start <= end else now >= start or now < end


# LiteLLM and OpenRouter write `gpt-5.2-20251211` for `gpt-5.2-2025-12-11`.
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


@lru_cache(maxsize=4096)
def _find(provider: str, model: str) -> _Found | None:
    """The first row that matches: the provider's own, else of those whose models it sells."""
    providers = _snapshot()["providers"]
    name = model.lower().removeprefix("models/")  # as Google writes it
    table = providers.get(_SAME_PRICES.get(provider, provider)) or next(
        (table for table in providers.values() if _matches(table["names"], name)), None
    )
    if table is None:
        return None
    sellers = [table, *(providers[fallback] for fallback in table["fallbacks"])]
    for spelling in dict.fromkeys((name, _COMPACT_DATE.sub(r"-\1-\2-\3", name))):
        for seller in sellers:
            for row in seller["models"]:
                if _matches(row["match"], spelling):
                    # The tiers are the owner's: nobody says that the seller has them too.
                    return _Found(row["prices"], row.get("variants", {}) if seller is table else {})
    return None


def _matches(pattern: Any, name: str) -> bool:
    """The small language of `prices.json`: see its "about"."""
    if isinstance(pattern, list):
        return any(_matches(part, name) for part in cast("list[object]", pattern))
    if isinstance(pattern, dict):
        return all(_matches(part, name) for part in cast("list[object]", pattern["and"]))
    if pattern.startswith("/"):
        return re.search(pattern[1:-1], name) is not None
    text: str = pattern.strip("*")
    if pattern.endswith("*"):
        return text in name if pattern.startswith("*") else name.startswith(text)
    return name.endswith(text) if pattern.startswith("*") else name == text


@lru_cache(maxsize=1)
def _snapshot() -> Any:
    text = Path(__file__).with_name("prices.json").read_text(encoding="ascii")
    return json.loads(text, parse_float=Decimal)


@lru_cache(maxsize=1)
def _units() -> Mapping[str, _Unit]:
    return {
        key: _Unit(usage_key, per, frozenset(dimensions.items()))
        for key, (usage_key, per, dimensions) in _snapshot()["units"].items()
    }


# The unknown.

_warned: dict[tuple[str, str], object] = {}


def _warn(provider: str, model: str) -> None:
    ours = object()
    # One atomic step: of two threads that come at once, one warns.
    if _warned.setdefault((provider, model), ours) is ours:
        names = " and ".join(name for name, _ in _variables(model))
        warnings.warn(
            f"No price is known for {model!r} of {provider!r}: its cost is nan. Set {names}"
            f" (US dollars per million tokens), or {_JSON}.",
            UnknownPriceWarning,
            stacklevel=3,
        )
