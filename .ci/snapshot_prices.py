"""Write ember/pricing/prices/ from the `genai-prices` package, or check that it is up to date.

    python .ci/snapshot_prices.py            write it
    python .ci/snapshot_prices.py --check    exit 1 if it is not what this script would write

The data is Pydantic's (MIT), read from the one release that is pinned here and in the `dev` extra.
A new release is a new pin, a run of this script, and a diff to read: one model stands on one line.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date, time, timezone
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers as all_providers
from genai_prices.data_units import unit_data

TARGET = Path(__file__).resolve().parent.parent / "ember" / "pricing" / "prices"
PINNED = "0.2.3"
ABOUT_FILE = "about.json"

# genai-prices' name of a provider -> Ember's. The twelve that sell their own prices; `moonshotai`,
# whose models Azure sells too; and OpenRouter, for an answer that comes without its own figure.
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
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "x-ai": "xai",
}

# Rows that their own authors mark as guesses ("I can't find anything so trusting these prices"):
# both models were shut down long ago (https://ai.google.dev/gemini-api/docs/models).
UNTRUSTED = {("google", "gemini-pro"), ("google", "gemini-1.0-pro-vision-001")}

# Today `gemini-pro` is the short name of `gemini-pro-latest`, so it costs what that costs: 2 in and
# 12 out per million tokens, 4 and 18 over 200,000 (https://ai.google.dev/gemini-api/docs/pricing,
# `gemini-3.1-pro-preview`, whose row in genai-prices claims the name `gemini-pro-latest`).
ALIASES = {("google", "gemini-pro"): "gemini-pro-latest"}

# A row without any price is free only where somebody says so: Google gives Gemma away
# (https://ai.google.dev/gemini-api/docs/pricing), OpenAI its moderation
# (https://developers.openai.com/api/docs/guides/moderation), and `:free` is a seller's own word.
FREE = {
    ("google", "gemma-3"),
    ("google", "gemma-3n"),
    ("google", "gemma-4-26b-a4b-it"),
    ("google", "gemma-4-31b-it"),
    ("openai", "moderation"),
}
# Without a price, and nobody says that it is free: unknown.
UNKNOWN = {
    ("cerebras", "qwen-3-coder-480b"),
    ("openrouter", "gemini-2.5-pro-exp-03-25"),
    ("openrouter", "google/gemini-flash-1.5-8b-exp"),
    ("openrouter", "google/lyria-3-clip-preview"),
    ("openrouter", "google/lyria-3-pro-preview"),
    ("openrouter", "stealth/crouton-alpha"),
}

ABOUT = (
    "US dollars per unit (see units), a file for each provider. Written by"
    " .ci/snapshot_prices.py: do not edit."
    " match: a name; a* starts with a, *a ends with a, *a* contains a, /a/ is a regular expression;"
    " a list is any of them, {and: [...]} all of them. The first row that matches counts."
    " prices: one set, or [when, set] pairs: the last that holds counts, else the first."
    " variants: by service tier, [when, set] pairs laid over the prices, the first on top."
    " when: a date from which, or a time of day (UTC) within which."
    " A price is a number, or [base, [above this many input tokens, price of all tokens], ...]."
)


def number(value: Decimal) -> int | float:
    exact = int(value) if value == value.to_integral_value() else float(value)
    if Decimal(repr(exact)) != value:
        sys.exit(f"{value} does not survive as a JSON number")
    return exact


def rate(value: Decimal | types.TieredPrices) -> Any:
    if isinstance(value, types.TieredPrices):
        return [number(value.base), *([tier.start, number(tier.price)] for tier in value.tiers)]
    return number(value)


def price_set(prices: types.ModelPrice) -> dict[str, Any]:
    return {key: rate(value) for key, value in vars(prices).items() if value is not None}


def when(constraint: Any) -> str | None:
    if constraint is None:
        return None
    if isinstance(constraint, types.StartDateConstraint):
        return constraint.start_date.isoformat()
    return f"{clock(constraint.start_time)}-{clock(constraint.end_time)}"


def clock(value: time) -> str:
    if value.tzinfo not in (None, timezone.utc) or value.second or value.microsecond:
        sys.exit(f"{value!r} is not a whole minute of UTC")
    return value.strftime("%H:%M")


def match(clause: Any) -> Any:
    if isinstance(clause, types.ClauseOr):
        return [match(part) for part in clause.or_]
    if isinstance(clause, types.ClauseAnd):
        return {"and": [match(part) for part in clause.and_]}
    if isinstance(clause, types.ClauseRegex):
        return f"/{clause.regex}/"
    if isinstance(clause, types.ClauseEquals):
        return plain(clause.equals)
    if isinstance(clause, types.ClauseStartsWith):
        return plain(clause.starts_with) + "*"
    if isinstance(clause, types.ClauseEndsWith):
        return "*" + plain(clause.ends_with)
    if isinstance(clause, types.ClauseContains):
        return f"*{plain(clause.contains)}*"
    sys.exit(f"{clause!r} has no place in the format")


def plain(text: str) -> str:
    if not text or "*" in text or text.startswith("/"):
        sys.exit(f"{text!r} would be read as a pattern")
    return text.lower()


def variants(model: types.ModelInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variant in model.price_variants or ():
        if len(variant.when) != 1:
            sys.exit(f"{model.id}: {variant.when} is more than one service tier")
        if "route" in variant.when:
            continue  # OpenRouter's choice of a data centre; no response names it
        if prices := price_set(variant.prices):
            (tier,) = variant.when.values()
            found.setdefault(tier, []).append([when(variant.constraint), prices])
    return found


def row(model: types.ModelInfo) -> dict[str, Any]:
    if isinstance(model.prices, list):
        prices: Any = [[when(entry.constraint), price_set(entry.prices)] for entry in model.prices]
    else:
        prices = price_set(model.prices)
    return {"match": match(model.match), "prices": prices} | (
        {"variants": found} if (found := variants(model)) else {}
    )


def is_priced(provider: str, model: types.ModelInfo) -> bool:
    """Whether a model's price can be told from the tokens of a text-generating call."""
    if (provider, model.id) in UNTRUSTED | UNKNOWN:
        return False
    prices = model.prices if isinstance(model.prices, list) else [model]
    sets = [price_set(entry.prices) for entry in prices]
    if any(sets):
        # Priced by the page, hour or character only: its tokens would seem to be free.
        return any("input_mtok" in entry for entry in sets)
    if (provider, model.id) in FREE or model.id.endswith(":free"):
        return True
    sys.exit(f"{provider} {model.id} has no price: is it free, or unknown? Say so in this script.")


def rows(provider: types.Provider) -> list[dict[str, Any]]:
    found = [row(model) for model in provider.models if is_priced(provider.id, model)]
    for (owner, alias), name in ALIASES.items():
        if owner == provider.id:
            target = provider.find_model(name)
            if target is None:
                sys.exit(f"{owner} has no {name} any more")
            found.append(row(target) | {"match": alias})
    return found


def units() -> dict[str, Any]:
    return {
        unit["price_key"]: [key, unit["per"], unit["dimensions"]] for key, unit in unit_data.items()
    }


def used(tables: dict[str, list[dict[str, Any]]]) -> set[str]:
    names: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            names.update(value)
        for part in value.values() if isinstance(value, dict) else value:
            if isinstance(part, (dict, list)):
                walk(part)

    walk(tables)
    return names


def snapshot(generated: str) -> dict[str, str]:
    """The files by name: one a provider, with a model a line, and what holds for all of them."""
    chosen = [provider for provider in all_providers if provider.id in PROVIDERS]
    if missing := PROVIDERS.keys() - {provider.id for provider in chosen}:
        sys.exit(f"genai-prices has no {', '.join(sorted(missing))}")
    tables = {PROVIDERS[provider.id]: rows(provider) for provider in chosen}
    priced = used(tables)
    head = {
        "generated": generated,
        "source": {
            "package": "genai-prices",
            "version": PINNED,
            "licence": "MIT",
            "copyright": "Copyright (c) Pydantic Services Inc. 2025 to present",
            "url": "https://github.com/pydantic/genai-prices",
        },
        "about": ABOUT,
    }
    lines = [f"{compact(key)}:{compact(value)}," for key, value in head.items()]
    lines.append('"units":{')
    lines += joined(
        f"{compact(key)}:{compact(unit)}" for key, unit in units().items() if key in priced
    )
    lines.append('},\n"providers":{')
    lines += joined(
        f"{compact(PROVIDERS[provider.id])}:{compact(about(provider))}" for provider in chosen
    )
    files = {ABOUT_FILE: "\n".join(["{", *lines, "}}", ""])}
    for name, found in tables.items():
        files[f"{name}.json"] = "\n".join(["[", *joined(map(compact, found)), "]", ""])
    return files


def about(provider: types.Provider) -> dict[str, Any]:
    return {
        "pricing_urls": provider.pricing_urls or [],
        # Names by which a model is known to be this provider's, where nobody says whose it is.
        "names": match(provider.model_match) if provider.model_match else [],
        "fallbacks": [PROVIDERS[name] for name in provider.fallback_model_providers or ()],
    }


def joined(parts: Any) -> list[str]:
    *most, last = parts
    return [f"{part}," for part in most] + [last]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    arguments = parser.parse_args()
    if (installed := version("genai-prices")) != PINNED:
        sys.exit(f"genai-prices {installed} is installed, and {PINNED} is pinned in this script")
    present = {path.name: path.read_text(encoding="ascii") for path in TARGET.glob("*")}
    # The date is that of the data: a second run that finds nothing new changes nothing.
    dated = json.loads(present[ABOUT_FILE])["generated"] if ABOUT_FILE in present else ""
    if present == snapshot(dated):
        print(f"{TARGET.name}: up to date, {size(present):,} bytes, generated {dated}")
        return 0
    if arguments.check:
        print(f"{TARGET.name} is not what .ci/snapshot_prices.py writes: run it", file=sys.stderr)
        return 1
    files = snapshot(date.today().isoformat())
    TARGET.mkdir(exist_ok=True)
    for name in present.keys() - files.keys():
        (TARGET / name).unlink()
    for name, text in files.items():
        (TARGET / name).write_text(text, encoding="ascii")
    print(f"{TARGET.name}: written, {size(files):,} bytes")
    return 0


def size(files: dict[str, str]) -> int:
    return sum(map(len, files.values()))


if __name__ == "__main__":
    sys.exit(main())
