"""The prices of models in the price tables, by time and service tier.

The tables are a dated snapshot of https://github.com/pydantic/genai-prices in `prices/`. The
environment variable `EMBER_PRICES` names newer ones, which are searched first: `genai-prices` is
the installed package, any other value the path of the JSON that its repository publishes
(`prices/new_data/v2/data.json`).
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from decimal import Context, Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from ember.exceptions import ModelProviderError

_VARIABLE = "EMBER_PRICES"
_SAME_PRICES = {"openai-responses": "openai"}

# A number, or [base, [N, the price of all tokens above N input tokens], ...].
Rate = Decimal | int | list[Any]
Prices = Mapping[str, Rate]
# A condition (None, a start date, a time span of the day) and the prices that apply if it holds.
_ConditionalPrices = tuple[str | None, Prices]

EXACT = Context(prec=60)
"""For all arithmetic on prices; the program may have changed the thread's own context."""

# The factor on token prices for processing within one region, and the models it applies to:
# Anthropic's `inference_geo` from Claude 4.6 on (https://platform.claude.com/docs/en/pricing), and
# OpenAI's regional hosts for models released since March 2026
# (https://developers.openai.com/api/docs/pricing).
_UPLIFT = Decimal("1.1")
_UPLIFTED = {
    "anthropic": r"claude-(fable|mythos|(opus|sonnet|haiku)-(4-[6-9]|[5-9]))",
    "openai": r"gpt-(5[.-][4-9]|[6-9]|realtime-2\.[1-9])",
}


class _Row(NamedTuple):
    prices: Prices | list[_ConditionalPrices]
    variants: Mapping[str, list[_ConditionalPrices]]
    seller: str


class Unit(NamedTuple):
    """The unit of a price.

    Args:
        usage_key: The count that the price multiplies, by genai-prices' name.
        per: How many of them the price is for.
        dimensions: The kind of tokens; a part has the dimensions of its whole, and more.
    """

    usage_key: str
    per: int
    dimensions: frozenset[tuple[str, str]]


def table_prices(
    provider: str, model: str, requested_model: str | None, tier: str | None, at: datetime | None
) -> Prices | None:
    """Return the prices of a call from the tables, or None if they have none.

    The arguments are those of `cost.PriceQuery`, with the provider in lower case, and the time of
    the call: UTC if naive, now by default.
    """
    names = (model, requested_model) if requested_model else (model,)
    source = os.environ.get(_VARIABLE, "").strip()
    tables = (_tables_from(source), _shipped()) if source else (_shipped(),)
    row = next((r for table in tables for name in names if (r := table.find(provider, name))), None)
    if row is None:
        return None
    prices = row.prices
    words = tier.lower().split() if tier else []
    variants = [each for word in words for each in row.variants.get(word, ())]
    if variants or isinstance(prices, list):
        moment = at or datetime.now(timezone.utc)
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
        if isinstance(prices, list):
            in_force = (each for when, each in reversed(prices) if _holds(when, moment))
            prices = next(in_force, prices[0][1])
        for when, variant in reversed(variants):
            if _holds(when, moment):
                prices = {**prices, **variant}
    uplifted = _UPLIFTED.get(row.seller)
    has_region = any(len(word) == 2 for word in words)
    if uplifted and has_region and any(re.search(uplifted, name) for name in names):
        prices = {key: _uplifted(key, rate) for key, rate in prices.items()}
    return prices


def _uplifted(key: str, rate: Rate) -> Rate:
    if isinstance(rate, list):
        tiers = [[above, _uplifted(key, each)] for above, each in rate[1:]]
        return [_uplifted(key, rate[0]), *tiers]
    is_of_tokens = ("family", "tokens") in units()[key].dimensions
    return EXACT.multiply(_UPLIFT, Decimal(rate)) if is_of_tokens else rate


def _holds(when: str | None, moment: datetime) -> bool:
    if when is None:
        return True
    if ":" not in when:
        return moment.date().isoformat() >= when
    start, end = when.split("-")
    now = moment.strftime("%H:%M")
    return start <= now < end if start <= end else now >= start or now < end


@lru_cache(maxsize=256)
def seller(provider: str, base_url: str) -> tuple[str, str | None]:
    """Return the seller whose prices apply, and the region that the URL names, if any.

    The seller at an unknown URL is the provider that was called.
    """
    if not base_url.startswith("https://"):  # as each seller's hosts do: compile no patterns
        return provider, None
    sellers = _shipped().sellers
    own = _SAME_PRICES.get(provider, provider)
    region = re.match(r"https://([a-z]{2})\.api\.openai\.com(?=[:/?#]|$)", base_url)
    for name in (own, *sellers) if own in sellers else sellers:
        hosts = sellers[name]["hosts"]
        if hosts and re.match(rf"(?:{hosts})(?=[:/?#]|$)", base_url):
            return provider if name == own else name, region[1] if region else None
    return provider, None


_LOCAL_NETWORKS = (
    "0.0.0.0/32 127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16"
    " ::/128 ::1/128 fc00::/7 fe80::/10"
)
_LOCAL_NAMES = (".local", ".localhost", ".internal", ".svc")


@lru_cache(maxsize=256)
def is_local(base_url: str) -> bool:
    """Return whether a URL is on this machine or its private network, where nothing is billed.

    These are loopback, private and link-local addresses, Unix sockets, names without a dot, and
    names that end in `.local`, `.localhost`, `.internal` or `.svc`.
    """
    from ipaddress import ip_address, ip_network  # imported late: for own servers only
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(base_url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme.startswith("http+unix"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_NAMES)
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in map(ip_network, _LOCAL_NETWORKS.split()))


# LiteLLM and OpenRouter write `gpt-5.2-20251211` for `gpt-5.2-2025-12-11`.
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class _Tables:
    """Prices of all sellers: facts about each, and a function for the rows of its models.

    `prices/about.json` documents both.
    """

    def __init__(self, sellers: Mapping[str, Any], rows: Callable[[str], list[Any]]) -> None:
        self.sellers = sellers
        self._rows = rows
        self.find = lru_cache(maxsize=4096)(self._find)

    def _find(self, provider: str, model: str) -> _Row | None:
        """Return the first matching row of the provider, else of those whose models it sells."""
        name = model.lower().removeprefix("models/")  # as Google writes it
        own = _SAME_PRICES.get(provider, provider)
        if own not in self.sellers:
            owners = (each for each, its in self.sellers.items() if _matches(its["names"], name))
            own = next(owners, "")
        if not own:
            return None
        for spelling in dict.fromkeys((name, _COMPACT_DATE.sub(r"-\1-\2-\3", name))):
            for each in (own, *self.sellers[own]["fallbacks"]):
                for row in self._rows(each):
                    if _matches(row["match"], spelling):
                        # The tiers are the owner's; this seller may not have them.
                        variants: Any = row.get("variants", {}) if each == own else {}
                        return _Row(row["prices"], variants, own)
        return None


def _matches(pattern: Any, name: str) -> bool:
    """Return whether a pattern matches; see "about" in `prices/about.json`."""
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


@cache
def _read(name: str) -> Any:
    """Read a file of `prices/`: reading all would take as long as a first call may."""
    path = str(Path(__file__).with_name("prices") / f"{name}.json")
    # Read by the package's loader: the program may have replaced the file system by now.
    loader: Any = __spec__.loader
    try:
        return json.loads(loader.get_data(path), parse_float=Decimal)
    except (OSError, ValueError) as error:  # as without a free descriptor, or cut short on a disk
        raise ModelProviderError(
            f"no prices can be read from {path!r} ({type(error).__name__}: {error}). An answer "
            "that has come is `error.context['response']`. Install Ember again if the file is "
            "missing or damaged.",
            {"path": path},
        ) from error


@cache
def _shipped() -> _Tables:
    return _Tables(_read("about")["providers"], _read)


@lru_cache(maxsize=4)
def _tables_from(source: str) -> _Tables:
    """Load the tables that `EMBER_PRICES` names."""
    from ember.pricing.genai_prices import price_tables  # imported late: rarely needed

    try:
        if source == "genai-prices":
            from genai_prices import data

            providers: Any = data.providers
        else:
            providers = json.loads(Path(source).read_text(encoding="utf-8"), parse_float=Decimal)
            if isinstance(providers, dict):
                providers = cast("dict[str, Any]", providers)["providers"]
        sellers, rows = price_tables(providers)
    except (ImportError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelProviderError(
            f"{_VARIABLE}: no prices can be read from {source!r} ({type(error).__name__}: "
            f"{error}). Set it to genai-prices, with that package installed, or to the path of its "
            "repository's prices/new_data/v2/data.json; or unset it.",
            {"variable": _VARIABLE},
        ) from error
    known = {name: [row for row in rows[name] if _has_known_units(row)] for name in rows}
    return _Tables(sellers, lambda name: known.get(name, []))


def _has_known_units(row: Mapping[str, Any]) -> bool:
    prices: Any = row["prices"]
    pairs: list[Any] = [*prices] if isinstance(prices, list) else [(None, prices)]
    pairs += itertools.chain(*row.get("variants", {}).values())
    return all(each.keys() <= units().keys() for _, each in pairs)


@cache
def units() -> Mapping[str, Unit]:
    """Return the unit of each price, by the price's name."""
    return {
        key: Unit(usage_key, per, frozenset(dimensions.items()))
        for key, (usage_key, per, dimensions) in _read("about")["units"].items()
    }
