"""Settings from the environment, and URLs without secrets."""

from __future__ import annotations

import math
import os
import urllib.request

import httpx

from ember.exceptions import ModelProviderError

__all__ = ["number", "proxy_for", "without_user"]


def number(variable: str, default: float) -> float:
    """Return the number in an environment variable.

    Raises:
        ModelProviderError: It is not a number of 0 or more.
    """
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
    """Return the proxy for this URL from the environment (`HTTPS_PROXY`, `NO_PROXY`, ...)."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def without_user(url: str) -> str:
    """Return a URL without user and query, which can contain a key."""
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
