"""What the snapshot in `prices/` says that a model costs, at a moment and in a service tier."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

__all__ = ["Prices", "Rate", "Unit", "standard_prices", "units"]

_PRICES = Path(__file__).with_name("prices")
_SAME_PRICES = {"openai-responses": "openai"}
_OWN_MACHINE = frozenset({"local", "ollama", "lmstudio", "vllm", "llamacpp"})

# A number; or [base, [above this many input tokens, the price of all tokens], ...].
Rate = Decimal | int | list[Any]
Prices = Mapping[str, Rate]
# What must hold (None, a date, a time of day), and the prices that then apply.
_Conditional = tuple[str | None, Prices]


class _Found(NamedTuple):
    prices: Prices | list[_Conditional]
    variants: Mapping[str, list[_Conditional]]


class Unit(NamedTuple):
    """What a price is of.

    Args:
        usage_key: The count that it multiplies, by genai-prices' name.
        per: How many of them the price buys.
        dimensions: Which part of the tokens they are; a part has those of its whole, and more.
    """

    usage_key: str
    per: int
    dimensions: frozenset[tuple[str, str]]


def standard_prices(
    provider: str, model: str, requested_model: str | None, tier: str | None, at: datetime | None
) -> Prices | None:
    """The snapshot's prices of a call, or None where it has none.

    Args:
        provider: The provider's name in Ember, in lower case.
        model: The model as the response reports it.
        requested_model: As it was asked for, looked up where the reported one is not there.
        tier: The service tier.
        at: The moment, UTC if naive; now by default.
    """
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
    providers = _about()["providers"]
    name = model.lower().removeprefix("models/")  # as Google writes it
    own = _SAME_PRICES.get(provider, provider)
    if own not in providers:
        own = next((other for other, its in providers.items() if _matches(its["names"], name)), "")
    if not own:
        return None
    sellers = [own, *providers[own]["fallbacks"]]
    return _row(sellers, name) or _row(sellers, _COMPACT_DATE.sub(r"-\1-\2-\3", name))


def _row(sellers: list[str], name: str) -> _Found | None:
    for seller in sellers:
        for row in _table(seller):
            if _matches(row["match"], name):
                # The tiers are the owner's: nobody says that the seller has them too.
                variants: Any = row.get("variants", {}) if seller == sellers[0] else {}
                return _Found(row["prices"], variants)
    return None


def _matches(pattern: Any, name: str) -> bool:
    """The small language of `prices/`: see "about" in its `about.json`."""
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


def _read(name: str) -> Any:
    text = _PRICES.joinpath(name).read_text(encoding="ascii")
    return json.loads(text, parse_float=Decimal)


@lru_cache(maxsize=1)
def _about() -> Any:
    """Units and providers: what holds for all tables."""
    return _read("about.json")


@cache
def _table(provider: str) -> list[Any]:
    """A provider's rows; reading all of them would take as long as a first call may."""
    rows: list[Any] = _read(f"{provider}.json")
    return rows


@lru_cache(maxsize=1)
def units() -> Mapping[str, Unit]:
    """What each price is of, by the price's name."""
    return {
        key: Unit(usage_key, per, frozenset(dimensions.items()))
        for key, (usage_key, per, dimensions) in _about()["units"].items()
    }
