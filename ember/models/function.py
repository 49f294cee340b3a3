"""The one function, and its bound form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ember.models.registry import ModelRegistry
from ember.models.schemas import ChatResponse, Prompt
from ember.models.streams import AsyncStream, Stream
from ember.providers.call import GUARDED, KEY_HEADER, guard

__all__ = ["ModelBinding", "Models", "default_registry"]

default_registry = ModelRegistry()


class Models:
    """Call a language model as a function: `models("gpt-5.6-sol", "What is 2 + 2?")`.

    Every form takes the same arguments:

    Args:
        model: A model's name, or `provider/model`.
        prompt: Text; or a list of parts: text and images (bytes, a `Path`, a URL, a data URL, a
            PIL image); or a list of messages, `{"role": ..., "content": ...}`.
        **params: `system` (text before the conversation), `temperature`, `top_p`, `max_tokens`,
            `stop` (a string or several), `seed`, `tools`, `tool_choice`, `response_format` (a JSON
            schema), `reasoning_effort`, `timeout` (seconds, or a dict with `connect`, `read` and
            `total`), `base_url`, `api_key`, `extra_headers`. These mean the same with every
            provider; any other goes into the provider's body as it is.

    Raises:
        ModelProviderError: The call cannot be made as it is set up.
        ProviderAPIError: The provider failed; see `error_type`, `retryable` and `retry_after`.
    """

    def __call__(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """Answer a prompt; see the class for the arguments."""
        if not GUARDED.isdisjoint(params):
            guard(params)
        return default_registry.invoke_model(model, prompt, **params)

    async def acall(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """Answer a prompt without blocking the event loop."""
        if not GUARDED.isdisjoint(params):
            guard(params)
        return await default_registry.invoke_model_async(model, prompt, **params)

    def stream(self, model: str, prompt: Prompt, **params: Any) -> Stream:
        """Answer a prompt in pieces: `for chunk in models.stream(...): print(chunk.text)`."""
        if not GUARDED.isdisjoint(params):
            guard(params)
        return default_registry.stream_model(model, prompt, **params)

    def astream(self, model: str, prompt: Prompt, **params: Any) -> AsyncStream:
        """Answer a prompt in pieces: `async for chunk in models.astream(...)`."""
        if not GUARDED.isdisjoint(params):
            guard(params)
        return default_registry.astream_model(model, prompt, **params)

    def instance(self, model: str, **defaults: Any) -> ModelBinding:
        """A function that calls this model with these parameters."""
        return ModelBinding(model, **defaults)


class ModelBinding:
    """A model with parameters of its own: `binding(prompt, **overrides)`.

    It pickles, to be used in other processes and on other machines; a key that was passed to it
    does not travel with it and is not in its repr: the other side needs its own in the environment.

    Args:
        model: A model's name, or `provider/model`.
        **defaults: Parameters for each call; see `Models`.

    Raises:
        ModelProviderError: Nothing serves this model.
    """

    __slots__ = ("_defaults", "model")

    def __init__(self, model: str, **defaults: Any) -> None:
        default_registry.get_model(model)
        self.model = model
        guard(defaults)
        self._defaults = defaults

    def __call__(self, prompt: Prompt, **overrides: Any) -> ChatResponse:
        """Answer a prompt; an override serves for this call only."""
        guard(overrides)
        return default_registry.invoke_model(self.model, prompt, **(self._defaults | overrides))

    async def acall(self, prompt: Prompt, **overrides: Any) -> ChatResponse:
        """Answer a prompt without blocking the event loop."""
        guard(overrides)
        return await default_registry.invoke_model_async(
            self.model, prompt, **(self._defaults | overrides)
        )

    def stream(self, prompt: Prompt, **overrides: Any) -> Stream:
        """Answer a prompt in pieces."""
        guard(overrides)
        return default_registry.stream_model(self.model, prompt, **(self._defaults | overrides))

    def astream(self, prompt: Prompt, **overrides: Any) -> AsyncStream:
        """Answer a prompt in pieces, for an event loop."""
        guard(overrides)
        return default_registry.astream_model(self.model, prompt, **(self._defaults | overrides))

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in _public(self._defaults).items()]
        return f"ModelBinding({', '.join([repr(self.model), *shown])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.model, _public(self._defaults))


def _public(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without what holds a key."""
    public = {name: value for name, value in defaults.items() if name != "api_key"}
    if headers := public.get("extra_headers"):
        public["extra_headers"] = {
            name: str(value) for name, value in headers.items() if not KEY_HEADER.search(name)
        }
    return public


def _restored(model: str, defaults: dict[str, Any]) -> ModelBinding:
    # Nothing is looked up: where the other process lacks a provider, the call says so, and not
    # the reading of the pickle, which would kill a pool's worker.
    binding = object.__new__(ModelBinding)
    binding.model, binding._defaults = model, defaults  # pyright: ignore[reportPrivateUsage] - its own module
    return binding
