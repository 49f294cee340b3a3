"""Identify the vendor and the kind of a call by its URL, with `data/vendors.json`; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ember.providers.servers import SELLERS

__all__ = [
    "UNKNOWN",
    "CallKind",
    "api_title",
    "call_kinds",
    "data_file",
    "host_and_path",
    "is_vendor",
    "price_table",
    "vendor_at",
]

UNKNOWN = "unknown"
"""The provider of a call to an unknown address, whatever its format."""

_AZURE_PATH = re.compile(r"/openai/deployments/[^/]+/")


class CallKind(NamedTuple):
    """The kind of a call."""

    api: str  # `openai` or another wire format that Ember's client parses, or one of the table
    model: str = ""  # as in the path
    stream: bool = False  # whether the path requests a streamed answer
    needs: Sequence[Sequence[str]] = ()  # groups of keys: the body has at least one key of each


class _Path(NamedTuple):
    api: str
    path: re.Pattern[str]
    needs: Sequence[Sequence[str]]
    vendors: Sequence[str]


def data_file(name: str) -> Mapping[str, Any]:
    """Return a table of `data/`; each holds its source and date."""
    # Python's own loader, not pytest's loader of plugins, whose file access pyfakefs replaces.
    path = Path(__file__).parent / "data" / f"{name}.json"
    table: dict[str, Any] = json.loads(SourceFileLoader("", "").get_data(str(path)))
    return table


@cache
def _table() -> Mapping[str, Any]:
    return data_file("vendors")


@cache
def _hosts() -> Sequence[tuple[str, re.Pattern[str]]]:
    return [(name, re.compile("|".join(hosts))) for name, hosts in _table()["hosts"].items()]


@cache
def _gateways() -> Sequence[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in _table()["gateways"]]


@cache
def _paths() -> Sequence[_Path]:
    return [
        _Path(
            row["api"],
            re.compile(f"{row['path']}$"),
            row.get("needs", ()),
            row.get("vendors", ()),
        )
        for row in _table()["calls"]
    ]


@lru_cache(maxsize=256)
def vendor_at(host: str, path: str) -> str:
    """Return the vendor at a host, with its port if it has one, and path, or `UNKNOWN`."""
    host = host.rpartition("@")[2].lower().removesuffix(":443")
    for gateway in _gateways():
        if found := gateway.match(host + path):
            name = found["vendor"]
            known: str = name if is_vendor(name) else "cloudflare"
            return str(_table()["gateway_names"].get(name, known))
    name = SELLERS.get(host, "")
    name = name or next((each for each, hosts in _hosts() if hosts.fullmatch(host)), "")
    return name or ("azure" if _AZURE_PATH.search(path) else UNKNOWN)


@cache
def is_vendor(name: str) -> bool:
    """Return whether this is the name of a known vendor."""
    return name in _table()["hosts"] or name in SELLERS.values()


@lru_cache(maxsize=256)
def call_kinds(vendor: str, path: str) -> Sequence[CallKind]:
    """Return the kinds of call at a path; a call is of the first kind whose keys its body has."""
    found: list[CallKind] = []
    for each in _paths():
        if each.vendors and vendor not in each.vendors:
            continue
        if match := each.path.search(path):
            groups = match.groupdict()
            model = unquote(groups.get("model") or "")
            found.append(CallKind(each.api, model, bool(groups.get("stream")), each.needs))
    return found


def price_table(vendor: str) -> str:
    """Return a vendor's name in the price tables."""
    name: str = _table()["prices"].get(vendor, vendor)
    return name


def api_title(api: str) -> str:
    """Return an API's name for messages."""
    name: str = _table()["titles"].get(api, api)
    return name


def host_and_path(url: str) -> tuple[str, str]:
    """Return host (with port) and path of a URL; both "" if it is invalid."""
    try:
        parts = urlsplit(url)
    except ValueError:  # an incomplete IPv6 address
        return "", ""
    return parts.netloc, parts.path
