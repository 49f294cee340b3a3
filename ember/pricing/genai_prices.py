"""Ember's price tables, made from the data of https://github.com/pydantic/genai-prices (MIT); pure.

The data is `genai_prices.data.providers` of the `genai-prices` package, or the JSON that its
repository publishes (`prices/data.json` and its later versions); both have the same fields. Entries
of a kind that Ember does not know are left out: no price is better than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import time, timezone
from decimal import Decimal
from typing import Any, cast

# genai-prices' names of providers that Ember names differently.
_NAMES = {"x-ai": "xai"}

# Ember's own providers. They are found by a model's name if the seller is unknown; the prices of
# all other sellers apply only if the base URL is theirs.
_OWN = {
    *("anthropic", "azure", "cerebras", "deepseek", "fireworks", "google", "groq", "mistral"),
    *("moonshotai", "openai", "openrouter", "perplexity", "together", "x-ai"),
}
# Not sold to the caller by the token, or a host on which anyone may serve any model.
_NO_SELLERS = {"cursor", "github-copilot", "modal", "openai-decisions"}
# Hosts of providers whose pattern in the data matches too few or too many.
_HOSTS = {
    "aws": r"https://bedrock-(runtime\.[a-z0-9-]+\.amazonaws\.com|mantle\.[a-z0-9-]+\.api\.aws)",
    "azure": r"https://([^./]+\.)+(openai|cognitiveservices|services\.ai)\.azure\.com",
    "google": r"https://([^/@]+\.)?googleapis\.com",
    "moonshotai": r"https://api\.moonshot\.(ai|cn)",
    "openai": r"https://([a-z]+\.)?api\.openai\.com",
    "together": r"https://api\.together\.(xyz|ai)",  # .ai: called by its newer package
}

# Rows that genai-prices marks as guesses ("I can't find anything so trusting these prices"):
# both models were shut down long ago (https://ai.google.dev/gemini-api/docs/models).
_UNTRUSTED = {("google", "gemini-pro"), ("google", "gemini-1.0-pro-vision-001")}
# Today `gemini-pro` is an alias of `gemini-pro-latest` and costs the same: $2 in and $12 out per
# million tokens, $4 and $18 over 200,000 (https://ai.google.dev/gemini-api/docs/pricing,
# `gemini-3.1-pro-preview`, whose row in genai-prices matches `gemini-pro-latest`).
_ALIASES = {"google": {"gemini-pro": "gemini-pro-latest"}}
# A row without prices is free only if this is documented: Gemma at Google
# (https://ai.google.dev/gemini-api/docs/pricing), moderation at OpenAI
# (https://developers.openai.com/api/docs/guides/moderation), and models named `:free` by a seller.
_FREE = {
    ("google", "gemma-3"),
    ("google", "gemma-3n"),
    ("google", "gemma-4-26b-a4b-it"),
    ("google", "gemma-4-31b-it"),
    ("openai", "moderation"),
}


def price_tables(
    providers: Iterable[Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Return facts about each seller, and the rows of its models, by its name in Ember.

    The providers are genai-prices', as objects or parsed JSON; `prices/about.json` documents the
    result's format.
    """
    sellers: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for provider in map(_fields, providers):
        name: str = provider["id"]
        models = [_fields(model) for model in provider["models"]]
        if name not in _NO_SELLERS and (found := _rows(name, models)):
            rows[_NAMES.get(name, name)] = found
            sellers[_NAMES.get(name, name)] = _seller(name, provider)
    return sellers, rows


def _seller(name: str, provider: Mapping[str, Any]) -> dict[str, Any]:
    hosts = re.sub(r"\((\?:)?/\|\$\)$", "", provider.get("api_pattern") or "")
    names = provider.get("model_match") if name in _OWN else None
    fallbacks = provider.get("fallback_model_providers") or ()
    return {
        "pricing_urls": provider.get("pricing_urls") or [],
        "hosts": _HOSTS.get(name, hosts),
        "names": (_match(names) if names else None) or [],
        "fallbacks": [_NAMES.get(each, each) for each in fallbacks],
    }


def _rows(provider: str, models: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for model in models if _is_priced(provider, model) and (row := _row(model))]
    for alias, name in _ALIASES.get(provider, {}).items():
        found = [row for row in rows if name in (row["match"], *row["match"])]
        rows += [{**row, "match": alias} for row in found[:1]]
    return rows


def _is_priced(provider: str, model: Mapping[str, Any]) -> bool:
    """Return whether a model can be priced by the tokens of a text-generating call."""
    if (provider, model["id"]) in _UNTRUSTED:
        return False
    sets = [prices for _, prices in _price_sets(model["prices"])]
    if any(sets):
        # A model priced only by page, hour or character would seem to have free tokens.
        return any("input_mtok" in prices for prices in sets)
    return (provider, model["id"]) in _FREE or model["id"].endswith(":free")


def _row(model: Mapping[str, Any]) -> dict[str, Any] | None:
    match = _match(model["match"])
    sets = _price_sets(model["prices"])
    if match is None or not sets:
        return None
    conditional = isinstance(model["prices"], list)
    row = {"match": match, "prices": [list(pair) for pair in sets] if conditional else sets[0][1]}
    variants: dict[str, Any] = {}
    for variant in map(_fields, model.get("price_variants") or ()):
        conditions = _fields(variant["when"])
        # A route is the data centre that OpenRouter chose; no response names it.
        if len(conditions) == 1 and "route" not in conditions:
            (tier,) = conditions.values()
            for when, prices in _price_sets([variant]):
                if prices:
                    variants.setdefault(tier, []).append([when, prices])
    return {**row, "variants": variants} if variants else row


def _price_sets(prices: Any) -> list[tuple[str | None, dict[str, Any]]]:
    """Return the sets of prices, each with its condition."""
    if not isinstance(prices, list):
        return [(None, _price_set(prices))]
    found: list[tuple[str | None, dict[str, Any]]] = []
    for entry in map(_fields, cast("list[object]", prices)):
        constraint = _fields(entry.get("constraint") or {})
        when = None
        if "start_date" in constraint:
            when = str(constraint["start_date"])
        elif "start_time" in constraint:
            when = f"{_clock(constraint['start_time'])}-{_clock(constraint['end_time'])}"
        elif constraint:
            continue
        found.append((when, _price_set(entry["prices"])))
    return found


def _price_set(prices: object) -> dict[str, Any]:
    rates = {key: _rate(value) for key, value in _fields(prices).items() if value is not None}
    return {key: rate for key, rate in rates.items() if rate is not None}


def _rate(value: Any) -> Any:
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    tiers = _fields(value)
    if "base" not in tiers:
        return None
    above = [_fields(tier) for tier in tiers["tiers"]]
    return [_number(tiers["base"]), *([tier["start"], _number(tier["price"])] for tier in above)]


def _number(value: float | Decimal) -> int | Decimal:
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return int(exact) if exact == exact.to_integral_value() else exact


def _clock(value: object) -> str:
    """Return the UTC time "16:30" for a `time`, or for the data's "16:30:00Z"."""
    if isinstance(value, time):
        moment = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return moment.strftime("%H:%M")
    return str(value)[:5]


_PATTERNS = {"equals": "{}", "starts_with": "{}*", "ends_with": "*{}", "contains": "*{}*"}


def _match(clause: object) -> Any:
    """Translate a clause to the pattern language of `prices/`, or None if it has no equivalent."""
    ((kind, value),) = list(_fields(clause).items())[:1] or [("", None)]
    kind = kind.rstrip("_")
    if kind in ("or", "and"):
        parts = [_match(part) for part in value]
        if None in parts:
            return None
        return parts if kind == "or" else {"and": parts}
    if kind == "regex":
        return f"/{value}/"
    if kind not in _PATTERNS or not value or "*" in value:
        return None
    pattern = _PATTERNS[kind].format(value.lower())
    return None if pattern.startswith("/") else pattern


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else vars(value)
