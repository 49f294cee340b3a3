"""The base class of providers, and the table of custom ones."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse, Chunk
from ember.models.streams import StreamSource

__all__ = ["BaseProvider", "create_provider", "is_registered", "register_provider"]


class BaseProvider:
    """Base class of providers; derive a custom one from it and pass it to `register_provider`.

    A subclass defines `complete`, and `_get_api_key_from_env` if it needs a key. It may also define
    `acomplete`, if it is natively async, and `stream`, if it can stream.

    Args:
        api_key: The key; by default the result of `_get_api_key_from_env`.

    Raises:
        ModelProviderError: The subclass looks for a key and there is none.
    """

    is_priced = False
    """Whether its answers already have their cost, model and provider's name."""

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

    async def acomplete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt without blocking the event loop; by default in a thread."""
        # anyio's threads work with asyncio and trio; httpx depends on anyio.
        from anyio.to_thread import run_sync

        return await run_sync(lambda: self.complete(prompt, model, **kwargs))

    def stream(self, prompt: Any, model: str, **kwargs: Any) -> StreamSource:
        """Prepare a streamed answer, sent when it runs; by default as a single chunk."""
        answer = ChatResponse("")

        def run() -> Generator[Chunk]:
            nonlocal answer
            answer = self.complete(prompt, model, **kwargs)
            yield from _chunks(answer)

        async def arun() -> AsyncGenerator[Chunk]:
            nonlocal answer
            answer = await self.acomplete(prompt, model, **kwargs)
            for chunk in _chunks(answer):
                yield chunk

        return cast("StreamSource", SimpleNamespace(run=run, arun=arun, response=lambda: answer))

    def _get_api_key_from_env(self) -> str | None:
        return None


def _chunks(answer: object) -> list[Chunk]:
    if not isinstance(answer, ChatResponse):
        return []  # the registry raises an error
    return [Chunk(answer.text, answer.reasoning or "", answer.raw)]


_lock = threading.Lock()
# Replaced on each registration and never mutated: the identity of the table that an instance was
# made with shows whether it is still current.
providers: Mapping[str, type[BaseProvider]] = {}


def register_provider(name: str, provider: type[BaseProvider]) -> None:
    """Make `models("name/model", ...)` call a custom provider.

    Registering a name again replaces the class and the instances made from it.

    Args:
        name: The prefix; letters, digits, `-`, `_` and `.`.
        provider: A class derived from `BaseProvider`.

    Raises:
        ModelProviderError: The name or the class is invalid.
    """
    global providers
    if not isinstance(name, str) or not name or not set(name.lower()) <= _NAME_CHARACTERS:  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(
            f"{name!r} cannot be a provider's name: use letters, digits, '-', '_' and '.'"
        )
    if not (isinstance(provider, type) and callable(getattr(provider, "complete", None))):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(
            f"{provider!r} cannot be the provider {name!r}: pass a class derived from "
            "BaseProvider, with a complete() method"
        )
    with _lock:
        providers = {**providers, name.lower(): provider}


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def is_registered(name: str) -> bool:
    """Return whether a custom provider has this name."""
    return name.lower() in providers


def create_provider(cls: type[BaseProvider]) -> BaseProvider:
    """Create an instance of a custom provider."""
    if not issubclass(cls, BaseProvider):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        # A class with complete() is enough: BaseProvider adds the rest.
        cls = cast("type[BaseProvider]", type(cls.__name__, (cls, BaseProvider), {}))
    instance = cls.__new__(cls)
    # The documented __init__(self, api_key: str) requires the key, so look it up first.
    cls.__init__(instance, instance._get_api_key_from_env())  # pyright: ignore[reportPrivateUsage] - the documented hook
    return instance
