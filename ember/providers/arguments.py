"""Arguments of a call that cannot be sent as they are, checked where they are taken apart; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ember.exceptions import ModelProviderError

__all__ = ["as_address", "as_headers", "as_key", "as_object", "as_stops"]


def as_stops(value: object) -> list[str]:
    """The texts that `stop=` gives, one or several.

    Raises:
        ModelProviderError: There is something that is no text.
    """
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, Sequence) and all(isinstance(s, str) for s in cast("Any", stops)):
        return list(cast("Sequence[str]", stops))
    raise ModelProviderError(f"stop= is a string or a list of strings, not {value!r}")


def as_object(name: str, value: object) -> Mapping[str, Any]:
    """A parameter that Ember adds something to, which only a dict allows.

    Raises:
        ModelProviderError: It is none.
    """
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise ModelProviderError(f"{name}= is a dict, not {value!r}", {"param": name})


def as_address(value: object) -> str | None:
    """What `base_url=` gives; None where it gives nothing.

    Raises:
        ModelProviderError: It is no string.
    """
    if value is None or isinstance(value, str):
        return value
    raise ModelProviderError(f"base_url= is a string such as 'https://host/v1', not {value!r}")


def as_key(value: object) -> str | None:
    """What `api_key=` gives; None where it gives nothing.

    Raises:
        ModelProviderError: It is no string; the message does not show it.
    """
    if value is None or isinstance(value, str):
        return value
    raise ModelProviderError(f"api_key= is a string, not {type(value).__name__}")


def as_headers(value: object) -> Mapping[str, str]:
    """What `extra_headers=` gives.

    Raises:
        ModelProviderError: It is no dict of strings; the message shows no value.
    """
    if not isinstance(value, Mapping):
        what = type(value).__name__
        raise ModelProviderError(f"extra_headers= is a dict of names and values, not {what}")
    for name, text in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not isinstance(text, str):
            what = f"{name!r}: a value of type {type(text).__name__}"
            raise ModelProviderError(f"extra_headers= holds strings only, not {what}")
    return cast("Mapping[str, str]", value)
