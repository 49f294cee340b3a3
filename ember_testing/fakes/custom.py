"""Fakes for custom providers, which do not use HTTP: a fake replaces `complete`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember.providers.error_mapping import FailedResponse
from ember_testing.faults import Damage, Fault
from ember_testing.patches.patch import Patch
from ember_testing.wires import error_response
from ember_testing.wires.answer import Answer

__all__ = ["Interceptor", "build_error", "build_response", "intercept"]

# Takes the names under which a class is registered, the model, the prompt and the parameters;
# returns None to let the provider answer itself.
Interceptor: TypeAlias = Callable[["list[str]", str, Any, Mapping[str, Any]], "ChatResponse | None"]


class _Interception:
    """A provider's class whose `complete` is replaced while there are interceptors."""

    def __init__(self, cls: type[base.BaseProvider]) -> None:
        self._interceptors: list[Interceptor] = []  # the innermost fake's is last
        self._cls = cls
        self._patches = [Patch(cls, "complete", self._sync)]
        # The base class's acomplete() calls complete().
        if cls.acomplete is not base.BaseProvider.acomplete:
            self._patches.append(Patch(cls, "acomplete", self._awaited))

    def add(self, interceptor: Interceptor) -> None:
        self._interceptors.append(interceptor)
        for patch in self._patches:
            patch.install()

    def remove(self, interceptor: Interceptor) -> None:
        self._interceptors.remove(interceptor)
        if not self._interceptors:
            for patch in self._patches:
                patch.uninstall()

    def _answer(self, model: str, prompt: Any, params: Mapping[str, Any]) -> ChatResponse | None:
        names = [name for name, cls in base.providers.items() if cls is self._cls]
        for interceptor in reversed(self._interceptors):
            answer = interceptor(names, model, prompt, params)
            if answer is not None:
                return answer
        return None

    def _sync(self, complete: Callable[..., ChatResponse]) -> Callable[..., ChatResponse]:
        def faked(own: base.BaseProvider, prompt: Any, model: str, **params: Any) -> ChatResponse:
            answer = self._answer(model, prompt, params)
            return complete(own, prompt, model, **params) if answer is None else answer

        return faked

    def _awaited(
        self, acomplete: Callable[..., Awaitable[ChatResponse]]
    ) -> Callable[..., Awaitable[ChatResponse]]:
        async def faked(
            own: base.BaseProvider, prompt: Any, model: str, **params: Any
        ) -> ChatResponse:
            answer = self._answer(model, prompt, params)
            return await acomplete(own, prompt, model, **params) if answer is None else answer

        return faked


_interceptions: dict[type[base.BaseProvider], _Interception] = {}


def intercept(cls: type[base.BaseProvider], interceptor: Interceptor) -> Callable[[], None]:
    """Ask an interceptor before a provider's instances, old and new; return what undoes it."""
    interception = _interceptions.setdefault(cls, _Interception(cls))
    interception.add(interceptor)
    return lambda: interception.remove(interceptor)


def build_response(provider: str, model: str, answer: Answer, usage: UsageStats) -> ChatResponse:
    """Return an answer as a custom provider does."""
    return ChatResponse(
        answer.text,
        usage,
        answer.model or model,
        provider,
        answer.reason,
        answer.tool_calls,
        answer.reasoning,
        answer.refusal,
    )


def build_error(provider: str, model: str, fault: Fault) -> ProviderAPIError:
    """Return a provider's error as Ember raises it for OpenAI's wire format.

    Raises:
        TypeError: The fault affects a connection, which custom providers do not have.
    """
    if isinstance(fault, Damage):
        raise TypeError(
            f"{fault.kind}: {provider!r} is a provider of your own, which does not go over HTTP; "
            "use a provider's error, such as overloaded()"
        )
    error = error_response("openai", fault)
    body = json.loads(error.body)
    failed = FailedResponse(provider, model, error.status or 0, dict(error.headers))
    return failed.reported_error(body)
