"""The names of a call's arguments, and types for the arguments that may hold a key.

The repr of these types hides secrets: a debugger, logger or failure report that prints the
variables of a frame prints no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

from ember.exceptions import ModelProviderError

__all__ = [
    "KEY_HEADER",
    "NO_HEADERS",
    "PARAMETERS",
    "SECRET_PARAMETERS",
    "UNSET",
    "Address",
    "Headers",
    "Key",
    "as_address",
    "as_key",
    "hide_secret_parameters",
    "hide_secrets",
]


class Key(str):
    """A key, or a header that contains one; its repr, and that of a slice, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))


class Headers(dict[str, str]):
    """HTTP headers by name; the repr shows the names only.

    Values that may be secret are `Key` objects: rich, Sentry and others print each by itself.
    """

    __slots__ = ()

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Headers:
        """Return a caller's headers, treating each value as secret."""
        return cls({n: Key(v) if isinstance(v, str) else v for n, v in values.items()})

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))


class Address(str):
    """A URL; its repr and its pickle omit the user name, the password and the query.

    Only Azure's `api-version` is kept in a pickle's query.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(f"{self.public()}?***" if "?" in self else self.public())

    def public(self) -> str:
        """Return the URL without the parts that may be secret."""
        scheme, mark, rest = self.partition("?")[0].partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))

    def __reduce__(self) -> tuple[type[Address], tuple[str]]:
        query = self.partition("?")[2].split("&")
        version = [pair for pair in query if pair.startswith("api-version=")]
        return Address, ("?".join([self.public(), *version[:1]]),)

    def secrets(self) -> list[Key]:
        """Return the password and the query's values, which may be keys."""
        rest, _, query = self.partition("?")
        password = rest.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
        values = [pair.partition("=")[2] for pair in query.split("&")]
        return [Key(value) for value in (password, *values) if value]


NO_HEADERS = Headers()
KEY_HEADER = re.compile("auth|key|token|secret|cookie|credential", re.IGNORECASE)
"""Matches the names of headers that may contain a key."""
_HIDING_TYPES: Mapping[str, tuple[type, Callable[[Any], Any]]] = {
    "api_key": (str, Key),
    "base_url": (str, Address),
    "extra_headers": (dict, Headers.of),
}
SECRET_PARAMETERS = frozenset(_HIDING_TYPES)
"""Parameters that may hold a key."""


UNSET: Any = ...
"""The value of a parameter that is not given; None removes a bound value."""
PARAMETERS = (
    "system", "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice",
    "response_format", "reasoning_effort", "timeout", "base_url", "api_key", "extra_headers",
    "messages",
)  # fmt: skip
"""The parameters that Ember has for every provider."""


def as_address(value: object) -> Address | None:
    """Return the URL of `base_url=`, or None if it is empty; refuse anything but a string."""
    if value is None or isinstance(value, str):
        return Address(value) if value else None
    raise ModelProviderError(f"base_url= is a string such as 'https://host/v1', not {value!r}")


def as_key(value: object) -> Key | None:
    """Return the key of `api_key=`, or None if it is empty; the error for others hides them."""
    if value is None or isinstance(value, str):
        return Key(value) if value else None
    raise ModelProviderError(f"api_key= is a string, not {type(value).__name__}")


def hide_secrets(api_key: Any, base_url: Any, extra_headers: Any) -> tuple[Any, Any, Any]:
    """Return the three arguments in types whose repr hides secrets."""
    params = {"api_key": api_key, "base_url": base_url, "extra_headers": extra_headers}
    hide_secret_parameters(params)
    return params["api_key"], params["base_url"], params["extra_headers"]


def hide_secret_parameters(params: dict[str, Any]) -> None:
    """Convert parameters that may contain a key, in place, to types whose repr hides it."""
    for name, (kind, hidden) in _HIDING_TYPES.items():
        if type(params.get(name)) is kind:
            params[name] = hidden(params[name])
