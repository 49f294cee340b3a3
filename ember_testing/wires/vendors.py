"""Who is called, and for what, by a request's address: `data/vendors.json`; pure."""

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
    "Kind",
    "data_file",
    "host_and_path",
    "is_vendor",
    "kinds_at",
    "price_table",
    "title",
    "vendor_at",
]

UNKNOWN = "unknown"
"""The provider of a call whose address nobody knows, whichever wire it speaks."""

_AZURE_PATH = re.compile(r"/openai/deployments/[^/]+/")


class Kind(NamedTuple):
    """What a path asks for.

    Args:
        form: In whose words: `openai`, `openai-responses`, `anthropic` and `google`, which Ember's
            client reads; others by the table.
        model: The model that the path names, or "".
        stream: Whether the path says that the answer comes in pieces.
        needs: Groups of keys, one of each of which is in the body of such a call.
    """

    form: str
    model: str = ""
    stream: bool = False
    needs: Sequence[Sequence[str]] = ()


class _Path(NamedTuple):
    form: str
    path: re.Pattern[str]
    needs: Sequence[Sequence[str]]
    vendors: Sequence[str]


def data_file(name: str) -> Mapping[str, Any]:
    """A table of `data/`, where each stands with its source and date."""
    # By Python's own loader: pytest's, which loads a plugin, reads what pyfakefs has replaced.
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
            row["form"],
            re.compile(f"{row['path']}$"),
            row.get("needs", ()),
            row.get("vendors", ()),
        )
        for row in _table()["calls"]
    ]


@lru_cache(maxsize=256)
def vendor_at(host: str, path: str) -> str:
    """The vendor at an address, `UNKNOWN` where nobody knows it.

    Args:
        host: With its port, if it has one.
        path: The URL's path.
    """
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
    """Whether a vendor has this name here."""
    return name in _table()["hosts"] or name in SELLERS.values()


@lru_cache(maxsize=256)
def kinds_at(vendor: str, path: str) -> Sequence[Kind]:
    """What a path may ask for: the first of them whose keys the body has, at an unknown host.

    Args:
        vendor: Who is called.
        path: The URL's path, as it is on the wire.
    """
    found: list[Kind] = []
    for each in _paths():
        if each.vendors and vendor not in each.vendors:
            continue
        if match := each.path.search(path):
            groups = match.groupdict()
            model = unquote(groups.get("model") or "")
            found.append(Kind(each.form, model, bool(groups.get("stream")), each.needs))
    return found


def price_table(vendor: str) -> str:
    """What the price tables call a vendor."""
    name: str = _table()["prices"].get(vendor, vendor)
    return name


def title(form: str) -> str:
    """What a form is called in a message."""
    name: str = _table()["titles"].get(form, form)
    return name


def host_and_path(url: str) -> tuple[str, str]:
    """Host, with its port, and path of a URL; both "" where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        return "", ""
    return parts.netloc, parts.path
