"""The public function `models` and its bound form.

Each form lists the parameters that all providers share, for editors and type checkers; any other
parameter is passed to the provider unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType, UnionType
from typing import Any, TypeAlias

from ember.models.registry import ModelRegistry
from ember.models.schemas import ChatResponse, ParsedT, Prompt
from ember.models.streams import AsyncStream, Stream
from ember.providers.arguments import (
    KEY_HEADER,
    PARAMETERS,
    UNSET,
    hide_secret_parameters,
    hide_secrets,
)

__all__ = ["CallablePackage", "ModelBinding", "Models", "default_registry"]

default_registry = ModelRegistry()

Text: TypeAlias = str | None
Real: TypeAlias = float | None
Int: TypeAlias = int | None
System: TypeAlias = str | Sequence[Any] | None
Stop: TypeAlias = str | Sequence[str] | None
Tools: TypeAlias = Sequence[Any] | None
ToolChoice: TypeAlias = str | Mapping[str, Any] | None
Format: TypeAlias = type[ParsedT] | UnionType | Mapping[str, Any] | None
HeaderMap: TypeAlias = Mapping[str, str] | None
Messages: TypeAlias = Sequence[Any] | None
NONE_GIVEN: Any = (UNSET, UNSET, UNSET)


def all_params(values: Mapping[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add the parameters given among these values to `more`."""
    for name in PARAMETERS:
        if (value := values[name]) is not UNSET:
            more[name] = value
    return more


class Models:
    """Call a language model as a function: `models("gpt-5.6-sol", "What is 2 + 2?")`.

    Every form takes the same arguments:

    Args:
        model: A model's name, or `provider/model`.
        prompt: Text; or a list of parts: text and images (bytes, a `Path`, a URL, a data URL, a
            PIL image); or a list of messages, `{"role": ..., "content": ...}`.
        **params: `system` (text before the conversation), `temperature`, `top_p`, `max_tokens`,
            `stop` (a string or several), `seed`, `tools`, `tool_choice`, `response_format` (a
            JSON schema, or a type: `response.parsed` is an object of it), `reasoning_effort`,
            `timeout` (seconds, or a dict with `connect`, `read` and `total`), `base_url`,
            `api_key`, `extra_headers`. These mean the same for every provider; any other is added
            to the request's body unchanged.

    Raises:
        ModelProviderError: The call cannot be made as configured.
        ProviderAPIError: The provider failed; see `error_type`, `retryable` and `retry_after`.
    """

    # The same list in each form, kept compact.
    # fmt: off
    def __call__(
        self, model: str, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Format[ParsedT] = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **params: Any,
    ) -> ChatResponse[ParsedT]:
        """Answer a prompt; see the class for the arguments."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        return default_registry.invoke_model(model, prompt, **all_params(locals(), params))

    async def acall(
        self, model: str, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Format[ParsedT] = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **params: Any,
    ) -> ChatResponse[ParsedT]:
        """Answer a prompt without blocking the event loop."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        params = all_params(locals(), params)
        return await default_registry.invoke_model_async(model, prompt, **params)

    def stream(
        self, model: str, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Any = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **params: Any,
    ) -> Stream:
        """Answer a prompt in pieces: `for chunk in models.stream(...): print(chunk.text)`."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        return default_registry.stream_model(model, prompt, **all_params(locals(), params))

    def astream(
        self, model: str, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Any = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **params: Any,
    ) -> AsyncStream:
        """Answer a prompt in pieces: `async for chunk in models.astream(...)`."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        return default_registry.astream_model(model, prompt, **all_params(locals(), params))

    def instance(
        self, model: str, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Any = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **defaults: Any,
    ) -> ModelBinding:
        """Return a function that calls this model with these parameters."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        return ModelBinding(model, **all_params(locals(), defaults))
    # fmt: on


_PACKAGES = ("ember.models", "ember.api.models")
_FORMS = frozenset({"acall", "stream", "astream", "instance"})


class CallablePackage(Models, ModuleType):
    """A package that is the function: `from ember.api import models`, `from ember import models`.

    There are two such packages, each with its own modules. Patching a form in one of them patches
    it in both.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        for package in self._patched(name):
            ModuleType.__setattr__(package, name, value)

    def __delattr__(self, name: str) -> None:
        for package in self._patched(name):
            if package is self or name in vars(package):
                ModuleType.__delattr__(package, name)

    def _patched(self, name: str) -> list[ModuleType]:
        loaded = [sys.modules[each] for each in _PACKAGES if each in sys.modules]
        return loaded if name in _FORMS and self in loaded else [self]

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


class ModelBinding:
    """A model bound to parameters: `binding(prompt, **overrides)`.

    It can be pickled for other processes and machines. A key that was passed to it is in neither
    the pickle nor the repr: the other process needs its own in the environment.

    Args:
        model: A model's name, or `provider/model`.
        **defaults: Parameters for each call; see `Models`.

    Raises:
        ModelProviderError: No provider serves this model.
    """

    __slots__ = ("_defaults", "model")

    def __init__(self, model: str, **defaults: Any) -> None:
        default_registry.get_model(model)
        self.model = model
        hide_secret_parameters(defaults)
        self._defaults = defaults

    # fmt: off
    def __call__(
        self, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Format[ParsedT] = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **overrides: Any,
    ) -> ChatResponse[ParsedT]:
        """Answer a prompt; overrides apply to this call only."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        params = self._defaults | all_params(locals(), overrides)
        return default_registry.invoke_model(self.model, prompt, **params)

    async def acall(
        self, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Format[ParsedT] = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **overrides: Any,
    ) -> ChatResponse[ParsedT]:
        """Answer a prompt without blocking the event loop."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        params = self._defaults | all_params(locals(), overrides)
        return await default_registry.invoke_model_async(self.model, prompt, **params)

    def stream(
        self, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Any = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **overrides: Any,
    ) -> Stream:
        """Answer a prompt in pieces."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        params = self._defaults | all_params(locals(), overrides)
        return default_registry.stream_model(self.model, prompt, **params)

    def astream(
        self, prompt: Prompt, *,
        system: System = UNSET, temperature: Real = UNSET, top_p: Real = UNSET,
        max_tokens: Int = UNSET, stop: Stop = UNSET, seed: Int = UNSET, tools: Tools = UNSET,
        tool_choice: ToolChoice = UNSET, response_format: Any = UNSET,
        reasoning_effort: Text = UNSET, timeout: Any = UNSET, base_url: Text = UNSET,
        api_key: Text = UNSET, extra_headers: HeaderMap = UNSET, messages: Messages = UNSET,
        **overrides: Any,
    ) -> AsyncStream:
        """Answer a prompt in pieces, for an event loop."""
        if (api_key, base_url, extra_headers) != NONE_GIVEN:
            api_key, base_url, extra_headers = hide_secrets(api_key, base_url, extra_headers)
        params = self._defaults | all_params(locals(), overrides)
        return default_registry.astream_model(self.model, prompt, **params)
    # fmt: on

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in _public(self._defaults).items()]
        return f"ModelBinding({', '.join([repr(self.model), *shown])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.model, _public(self._defaults))


# `messages=` may replace the prompt, though type checkers still require it.
for _form in ("__call__", "acall", "stream", "astream"):
    for _class in (Models, ModelBinding):
        getattr(_class, _form).__defaults__ = (None,)


def _public(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters without those that contain a key."""
    public = {name: value for name, value in defaults.items() if name != "api_key"}
    if headers := public.get("extra_headers"):
        public["extra_headers"] = {
            name: str(value) for name, value in headers.items() if not KEY_HEADER.search(name)
        }
    return public


def _restored(model: str, defaults: dict[str, Any]) -> ModelBinding:
    # No lookup here: if this process lacks the provider, the call raises; raising while unpickling
    # would kill a pool's worker.
    binding = object.__new__(ModelBinding)
    binding.model, binding._defaults = model, defaults  # pyright: ignore[reportPrivateUsage] - its own module
    return binding
