"""Write ember/pricing/prices/ from the `genai-prices` package, or check that it is up to date.

    python .ci/snapshot_prices.py            write it
    python .ci/snapshot_prices.py --check    exit 1 if it is not what this script would write

The data is Pydantic's (MIT), read from the one release that is pinned here and in the `dev` extra.
A new release is a new pin, a run of this script, and a diff to read: one model stands on one line.
What of it is taken, and how it is written, is said in `ember/pricing/genai_prices.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from genai_prices.data import providers  # noqa: E402 - after the path
from genai_prices.data_units import unit_data  # noqa: E402

from ember.pricing.genai_prices import price_tables  # noqa: E402

TARGET = ROOT / "ember" / "pricing" / "prices"
PINNED = "0.2.3"
ABOUT_FILE = "about.json"
ABOUT = (
    "US dollars per unit (see units), a file for each provider. Written by"
    " .ci/snapshot_prices.py: do not edit."
    " match: a name; a* starts with a, *a ends with a, *a* contains a, /a/ is a regular expression;"
    " a list is any of them, {and: [...]} all of them. The first row that matches counts."
    " prices: one set, or [when, set] pairs: the last that holds counts, else the first."
    " variants: by service tier, [when, set] pairs laid over the prices, the first on top."
    " when: a date from which, or a time of day (UTC) within which."
    " A price is a number, or [base, [above this many input tokens, price of all tokens], ...]."
    " hosts: a regular expression of the base URLs at which the provider sells."
)


def used(value: Any) -> set[str]:
    """The keys of all objects in it."""
    parts = value.values() if isinstance(value, dict) else value
    names = set(value) if isinstance(value, dict) else set()
    return names.union(*(used(part) for part in parts if isinstance(part, (dict, list))))


def snapshot(generated: str) -> dict[str, str]:
    """The files by name: one a provider, with a model a line, and what holds for all of them."""
    sellers, tables = price_tables(providers)
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
    units = {
        unit["price_key"]: [key, unit["per"], unit["dimensions"]]
        for key, unit in unit_data.items()
        if unit["price_key"] in priced
    }
    lines = [f"{compact(key)}:{compact(value)}," for key, value in head.items()]
    lines += ['"units":{', *joined(map(member, units.items()))]
    lines += ['},\n"providers":{', *joined(map(member, sellers.items()))]
    files = {ABOUT_FILE: "\n".join(["{", *lines, "}}", ""])}
    for name, rows in tables.items():
        files[f"{name}.json"] = "\n".join(["[", *joined(map(compact, rows)), "]", ""])
    return files


def member(item: tuple[str, Any]) -> str:
    return f"{compact(item[0])}:{compact(item[1])}"


def joined(parts: Any) -> list[str]:
    *most, last = parts
    return [f"{part}," for part in most] + [last]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=number)


def number(value: Decimal) -> float:
    if Decimal(repr(float(value))) != value:
        sys.exit(f"{value} does not survive as a JSON number")
    return float(value)


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
