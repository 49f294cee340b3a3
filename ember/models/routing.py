"""Map a model's name to its provider and its id in requests, without I/O.

1. An explicit `provider/model`, split at the first slash, if the left part is a known provider.
2. A name that the user registered.
3. Model families of an unambiguous provider: OpenAI's, Anthropic's and Google's.

All other names need a prefix. Prices play no part: a new model works before its price is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ember.exceptions import ModelProviderError
from ember.providers import base
from ember.providers.json_values import data_file
from ember.providers.servers import SERVERS

if TYPE_CHECKING:
    from ember.providers.provider import HTTPProvider

__all__ = ["Route", "built_in", "class_for", "provider_of", "resolve"]


class Route(NamedTuple):
    """The provider of a model, and the model's id there.

    Args:
        provider: The provider's name.
        model: The model's id in requests.
        stores: Whether the provider may keep the conversation, which is the Responses API's
            default; False if Ember, not the caller, chose that API.
    """

    provider: str
    model: str
    stores: bool = True


# The file documents each table.
_TABLES = data_file("models")
_WIRE_IDS: Mapping[str, Mapping[str, str]] = _TABLES["wire_ids"]
_FAMILIES = [(owner, tuple(begin)) for owner, begin in _TABLES["families"].items()]
_EXACT_NAMES: Mapping[str, str] = _TABLES["exact_names"]
_RESPONSES_ONLY = frozenset(_TABLES["responses_only"])
_SERVED_BY: Mapping[str, list[str]] = _TABLES["served_by"]
_DATE_AT_END = r"-\d{4}-\d\d-\d\d$"


def resolve(model: str) -> Route:
    """Return the route of a model's name.

    Raises:
        ModelProviderError: No provider serves it; the message suggests prefixes or names.
    """
    if not isinstance(model, str) or not model.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(f"a model's name is a string such as 'gpt-5.6-sol', not {model!r}")
    left, slash, right = model.partition("/")
    if slash and _is_provider(left):
        if not right:
            raise ModelProviderError(f"{model!r} names a provider and no model: add its name")
        return _route_to(left.lower(), right)
    if base.is_registered(model):
        return Route(model.lower(), model)
    lowered = model.lower()
    if (provider := _owner(lowered)) is None:
        raise ModelProviderError(_unknown(model, lowered), {"model": model})
    return _route_to(provider, model)


def _owner(lowered: str) -> str | None:
    """Return the provider of a model, if it is unambiguous."""
    if lowered.startswith("gpt-oss"):
        return None  # open weights, served by many, but not by OpenAI
    owners = (owner for owner, beginnings in _FAMILIES if lowered.startswith(beginnings))
    return _EXACT_NAMES.get(lowered) or next(owners, None)


def _is_provider(name: str) -> bool:
    return name.lower() in SERVERS or base.is_registered(name)


def _route_to(provider: str, model: str) -> Route:
    if base.is_registered(provider):
        return Route(provider, model)  # a custom provider has its own names
    model = _WIRE_IDS.get(provider, {}).get(model.lower(), model)
    if provider == "openai" and re.sub(_DATE_AT_END, "", model.lower()) in _RESPONSES_ONLY:
        return Route("openai-responses", model, stores=False)
    return Route(provider, model)


def _unknown(model: str, lowered: str) -> str:
    for family, prefixes in _SERVED_BY.items():
        if re.match(family, lowered):
            forms = ", ".join(f"{prefix}/{model}" for prefix in prefixes)
            return f"{model!r} is served by several providers: say which, as in {forms}"
    import difflib  # late: few programs misspell a name

    left, slash, right = model.partition("/")
    providers = sorted({*SERVERS, *base.providers})
    if slash and (near := difflib.get_close_matches(left.lower(), providers, 2, 0.7)):
        return (
            f"there is no provider {left!r}: did you mean {_either(f'{n}/{right}' for n in near)}?"
        )
    near = difflib.get_close_matches(lowered, [*_TABLES["known_names"], *providers], 3, 0.6)
    meant = f"; did you mean {_either(near)}?" if near else "."
    return (
        f"no provider is known for the model {model!r}{meant} Any model works with a prefix: "
        f"provider/{model}, where provider is one of {', '.join(providers)}"
    )


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)


def class_for(name: str) -> type[HTTPProvider]:
    """Return the class for a server; the default is OpenAI's chat completions.

    Classes are imported late: most programs use one wire, and loading the others would take as
    long as a call.
    """
    if name == "openai-responses":
        from ember.providers.openai_responses import OpenAIResponses

        return OpenAIResponses
    if name == "anthropic":
        from ember.providers.anthropic import AnthropicMessages

        return AnthropicMessages
    if name == "google":
        from ember.providers.google import GoogleGenerate

        return GoogleGenerate
    if name == "local":
        from ember.providers.local import LocalChat

        return LocalChat
    if name in ("azure", "ollama"):
        from ember.providers.compatible import AzureChat, OllamaChat

        return AzureChat if name == "azure" else OllamaChat
    from ember.providers.openai_chat import OpenAIChat

    return OpenAIChat


def provider_of(route: Route) -> HTTPProvider:
    """Return Ember's provider for this route."""
    server = SERVERS[route.provider]
    if route.stores:
        return class_for(route.provider)(server)
    from ember.providers.openai_responses import OpenAIResponses

    return OpenAIResponses(server, stores=False)


@cache
def built_in(name: str) -> HTTPProvider:
    """Return the provider of this name in `SERVERS`, to parse or build its traffic.

    Raises:
        KeyError: No provider has this name.
    """
    return class_for(name)(SERVERS[name])
