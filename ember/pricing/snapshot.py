"""The prices of models in the price tables, by time and service tier.

The tables are a dated snapshot of https://github.com/pydantic/genai-prices in `prices/`. The
environment variable `EMBER_PRICES` names newer ones, which are searched first: `genai-prices` is
the installed package, any other value the path of the JSON that its repository publishes
(`prices/new_data/v2/data.json`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Context, Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from ember.exceptions import ModelProviderError

__all__ = ["EXACT", "Prices", "Rate", "Unit", "is_local", "seller", "table_prices", "units"]

_NEWER = "EMBER_PRICES"
_SAME_PRICES = {"openai-responses": "openai"}

# A number, or [base, [N, the price of all tokens above N input tokens], ...].
Rate = Decimal | int | list[Any]
Prices = Mapping[str, Rate]
# A condition (None, a start date, a time span of the day) and the prices that apply if it holds.
_Conditional = tuple[str | None, Prices]

EXACT = Context(prec=60)
"""For all arithmetic on prices; the program may have changed the thread's own context."""

# The factor on token prices for processing within one region, and the models it applies to:
# Anthropic's `inference_geo` from Claude 4.6 on (https://platform.claude.com/docs/en/pricing), and
# OpenAI's regional hosts for models released since March 2026
# (https://developers.openai.com/api/docs/pricing).
_UPLIFT = Decimal("1.1")
_UPLIFTED = {
    "anthropic": re.compile(r"claude-(fable|mythos|(opus|sonnet|haiku)-(4-[6-9]|[5-9]))"),
    "openai": re.compile(r"gpt-(5[.-][4-9]|[6-9]|realtime-2\.[1-9])"),
}


class _Row(NamedTuple):
    prices: Prices | list[_Conditional]
    variants: Mapping[str, list[_Conditional]]
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

    Args:
        provider: The provider's name in Ember, in lower case.
        model: The model that the response reports.
        requested_model: The model that was requested, looked up if the reported one is missing.
        tier: The service tier; after it, or alone, the region that processed the call (`us`).
        at: The time of the call, UTC if naive; now by default.

    Raises:
        ModelProviderError: `EMBER_PRICES` names something that cannot be read.
    """
    names = (model, requested_model) if requested_model else (model,)
    tables = (
        (_newer(value), _shipped) if (value := os.environ.get(_NEWER, "").strip()) else _SHIPPED
    )
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
            prices = next(
                (each for when, each in reversed(prices) if _holds(when, moment)), prices[0][1]
            )
        for when, variant in reversed(variants):
            if _holds(when, moment):
                prices = {**prices, **variant}
    uplifted = _UPLIFTED.get(row.seller)
    if uplifted and any(len(word) == 2 for word in words) and any(map(uplifted.search, names)):
        prices = {key: _uplifted(key, rate) for key, rate in prices.items()}
    return prices


def _uplifted(key: str, rate: Rate) -> Rate:
    if isinstance(rate, list):
        return [
            _uplifted(key, rate[0]),
            *([above, _uplifted(key, each)] for above, each in rate[1:]),
        ]
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


_REGION = re.compile(r"https://([a-z]{2})\.api\.openai\.com(?=[:/?#]|$)")


@lru_cache(maxsize=256)
def seller(provider: str, base_url: str) -> tuple[str, str | None]:
    """Return the seller whose prices apply, and the region that the URL names, if any.

    Args:
        provider: The provider that was called; it is the seller if the URL is unknown.
        base_url: The base URL of the call.
    """
    if not base_url.startswith("https://"):  # as each seller's hosts do: compile no patterns
        return provider, None
    sellers = _shipped.sellers
    own = _SAME_PRICES.get(provider, provider)
    region = _REGION.match(base_url)
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
    """Prices of all sellers.

    Args:
        sellers: Returns facts about each seller; see "providers" of `prices/about.json`.
        rows: Returns the rows of a seller's models.
    """

    def __init__(
        self, sellers: Callable[[], Mapping[str, Any]], rows: Callable[[str], list[Any]]
    ) -> None:
        self._sellers = sellers
        self._rows = rows
        self.find = lru_cache(maxsize=4096)(self._find)
        self._index = cache(self._indexed)

    @property
    def sellers(self) -> Mapping[str, Any]:
        """Facts about each seller, by its name in Ember."""
        return self._sellers()

    def _find(self, provider: str, model: str) -> _Row | None:
        """Return the first matching row of the provider, else of those whose models it sells."""
        name = model.lower().removeprefix("models/")  # as Google writes it
        own = _SAME_PRICES.get(provider, provider)
        if own not in self.sellers:
            owners = (each for each, its in self.sellers.items() if _matches(its["names"], name))
            own = next(owners, "")
        if not own:
            return None
        sellers = [own, *self.sellers[own]["fallbacks"]]
        return self._row(sellers, name) or self._row(sellers, _COMPACT_DATE.sub(r"-\1-\2-\3", name))

    def _row(self, sellers: list[str], name: str) -> _Row | None:
        for each in sellers:
            names, patterns = self._index(each)
            first = names.get(name)
            for number, pattern in patterns:
                if first is not None and number > first:
                    break
                if _matches(pattern, name):
                    first = number
                    break
            if first is not None:
                row = self._rows(each)[first]
                # The tiers are the owner's; this seller may not have them.
                variants: Any = row.get("variants", {}) if each == sellers[0] else {}
                return _Row(row["prices"], variants, sellers[0])
        return None

    def _indexed(self, seller: str) -> tuple[dict[str, int], list[tuple[int, Any]]]:
        """Return the first row of each plain name, and all other patterns with their rows."""
        names: dict[str, int] = {}
        patterns: list[tuple[int, Any]] = []
        for number, row in enumerate(self._rows(seller)):
            match: object = row["match"]
            parts = cast("Sequence[Any]", match) if isinstance(match, list) else [match]
            for part in parts:
                if isinstance(part, str) and not part.startswith("/") and "*" not in part:
                    names.setdefault(part, number)
                else:
                    patterns.append((number, part))
        return names, patterns


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


def _read(name: str) -> Any:
    # Read by the package's loader: the program may have replaced the file system by now.
    loader: Any = __spec__.loader
    text = loader.get_data(str(Path(__file__).with_name("prices") / name))
    return json.loads(text, parse_float=Decimal)


@lru_cache(maxsize=1)
def _about() -> Any:
    """Return the units and providers, common to all tables."""
    return _read("about.json")


@cache
def _table(provider: str) -> list[Any]:
    """Return a provider's rows; reading all providers' would take as long as a first call may."""
    rows: list[Any] = _read(f"{provider}.json")
    return rows


_shipped = _Tables(lambda: _about()["providers"], _table)
_SHIPPED = (_shipped,)


@lru_cache(maxsize=4)
def _newer(source: str) -> _Tables:
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
        tables = price_tables(providers)
    except (ImportError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelProviderError(
            f"{_NEWER}: no prices can be read from {source!r} ({type(error).__name__}: {error}). "
            "Set it to genai-prices, with that package installed, or to the path of its "
            "repository's prices/new_data/v2/data.json; or unset it.",
            {"variable": _NEWER},
        ) from error
    known = units()
    rows = {
        name: [row for row in rows if _is_known(row, known)] for name, rows in tables.rows.items()
    }
    return _Tables(lambda: tables.sellers, lambda name: rows.get(name, []))


def _is_known(row: Mapping[str, Any], known: Mapping[str, Unit]) -> bool:
    """Return whether the unit of each price of a row is known."""
    prices: Any = row["prices"]
    pairs: list[Any] = [*prices] if isinstance(prices, list) else [(None, prices)]
    for tier in row.get("variants", {}).values():
        pairs += tier
    return all(each.keys() <= known.keys() for _, each in pairs)


@lru_cache(maxsize=1)
def units() -> Mapping[str, Unit]:
    """Return the unit of each price, by the price's name."""
    return {
        key: Unit(usage_key, per, frozenset(dimensions.items()))
        for key, (usage_key, per, dimensions) in _about()["units"].items()
    }
