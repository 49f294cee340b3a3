"""What environment variables say about connections: the proxy, and how long idle ones are kept."""

from __future__ import annotations

import math
import os
import urllib.request
from typing import NamedTuple

import httpx

from ember.exceptions import ModelProviderError

__all__ = ["Limits", "limits", "proxy_for", "without_user"]


class Limits(NamedTuple):
    """Bounds on idle connections.

    Args:
        keepalive_seconds: How long an idle connection is kept.
        max_idle: How many idle connections to one origin are kept.
    """

    keepalive_seconds: float
    max_idle: float


def limits() -> Limits:
    """The limits that the environment sets now.

    Raises:
        ModelProviderError: A variable is not a number of 0 or more.
    """
    # Most load balancers close an idle connection after 60 s or more; httpx's default of 5 s would
    # make every call of a quiet program open a new one.
    return Limits(
        _number("EMBER_KEEPALIVE_SECONDS", 30.0), _number("EMBER_MAX_IDLE_CONNECTIONS", 100.0)
    )


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise ModelProviderError(
            f"{variable}={text!r} is not a number of 0 or more, such as {default:g}",
            {"variable": variable},
        )
    return value


def proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for this URL (`HTTPS_PROXY`, `NO_PROXY`, ...)."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def without_user(url: str) -> str:
    """A URL as a message may show it: user and query can hold a key."""
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
