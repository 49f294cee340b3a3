"""What every provider is, and the table of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse

__all__ = ["BaseProvider", "create", "generation", "is_known", "known", "register_provider"]


class BaseProvider:
    """A provider of models: the class to derive one's own from, for `register_provider`.

    A subclass defines `complete`; where it needs a key, `_get_api_key_from_env` too. A provider
    that is asynchronous by nature may define `acomplete` as well: without it, `acall` runs
    `complete` in a thread.

    Args:
        api_key: The key; by default what `_get_api_key_from_env` finds.

    Raises:
        ModelProviderError: The subclass looks for a key and there is none.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self.api_key = api_key or self._get_api_key_from_env()
        looks_for_key = type(self)._get_api_key_from_env is not BaseProvider._get_api_key_from_env
        if looks_for_key and not self.api_key:
            raise ModelProviderError(
                f"{type(self).__name__} found no API key: set the environment variable that its "
                "_get_api_key_from_env() reads"
            )

    def complete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt.

        Args:
            prompt: The prompt as the caller gave it.
            model: The model's name without the provider's prefix.
            **kwargs: The caller's other parameters.

        Raises:
            ProviderAPIError: The provider failed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define complete()")

    def _get_api_key_from_env(self) -> str | None:
        return None


_lock = threading.Lock()
_providers: dict[str, type[BaseProvider]] = {}
_generation = 0


def register_provider(name: str, provider: type[BaseProvider]) -> None:
    """Make `models("name/model", ...)` call a provider of one's own.

    A second registration of a name replaces the first, and the instances made of it.

    Args:
        name: The prefix; letters, digits, `-`, `_` and `.`.
        provider: A class derived from `BaseProvider`.

    Raises:
        ModelProviderError: The name or the class cannot serve.
    """
    global _generation
    if not isinstance(name, str) or not name or not set(name.lower()) <= _NAME_SIGNS:  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(
            f"{name!r} cannot be a provider's name: use letters, digits, '-', '_' and '.'"
        )
    if not (isinstance(provider, type) and callable(getattr(provider, "complete", None))):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(
            f"{provider!r} cannot be the provider {name!r}: pass a class derived from "
            "BaseProvider, with a complete() method"
        )
    with _lock:
        _providers[name.lower()] = provider
        _generation += 1


_NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def generation() -> int:
    """A number that grows with each registration: what was made before may be outdated."""
    return _generation


def is_known(name: str) -> bool:
    """Whether a provider of the user's own has this name."""
    return name.lower() in _providers


def known() -> Mapping[str, type[BaseProvider]]:
    """The registered providers by name."""
    return _providers


def create(name: str) -> BaseProvider:
    """An instance of the user's provider with this name."""
    cls = _providers[name.lower()]
    instance = cls.__new__(cls)
    # The documented __init__(self, api_key: str) takes the key itself, so look for it before.
    find_key = getattr(instance, "_get_api_key_from_env", None)
    cls.__init__(instance, find_key() if find_key is not None else None)
    return instance
