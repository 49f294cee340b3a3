"""Providers of the user's own, which do not go over HTTP: a fake in the place of `complete`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias
from unittest import mock

from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember.providers.error_mapping import api_error
from ember_testing import wires as encoding
from ember_testing.faults import Damage, Fault
from ember_testing.wires.answer import Answer, Failure

__all__ = ["Ask", "failure_of", "replace_complete", "response_of"]

# The names that a class is registered by, the model, the prompt and the parameters; None lets the
# provider answer for itself.
Ask: TypeAlias = Callable[["list[str]", str, Any, Mapping[str, Any]], "ChatResponse | None"]


def replace_complete(cls: type[base.BaseProvider], ask: Ask, until: ExitStack) -> None:
    """Let a fake be asked before a provider.

    Args:
        cls: The provider's class; instances made before are asked as well.
        ask: The fake.
        until: Undoes it.
    """
    complete = cls.complete
    acomplete = getattr(cls, "acomplete", base.BaseProvider.acomplete)

    def names() -> list[str]:
        return [name for name, known in base.known().items() if known is cls]

    def faked(self: base.BaseProvider, prompt: Any, model: str, **params: Any) -> ChatResponse:
        answer = ask(names(), model, prompt, params)
        return complete(self, prompt, model, **params) if answer is None else answer

    until.enter_context(mock.patch.object(cls, "complete", faked))
    if acomplete is not base.BaseProvider.acomplete:  # which calls the one above

        async def afaked(
            self: base.BaseProvider, prompt: Any, model: str, **params: Any
        ) -> ChatResponse:
            answer = ask(names(), model, prompt, params)
            return await acomplete(self, prompt, model, **params) if answer is None else answer

        until.enter_context(mock.patch.object(cls, "acomplete", afaked))


def response_of(provider: str, model: str, answer: Answer, usage: UsageStats) -> ChatResponse:
    """The answer as a provider of one's own gives it."""
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


def failure_of(provider: str, model: str, fault: Fault) -> ProviderAPIError:
    """A provider's error as Ember raises it: that of a provider that speaks OpenAI's wire.

    Raises:
        TypeError: The fault is one of a connection, and nothing here goes over one.
    """
    if isinstance(fault, Damage):
        raise TypeError(
            f"{fault.kind}: {provider!r} is a provider of your own, which does not go over HTTP; "
            "use a provider's error, such as overloaded()"
        )
    return _error(provider, model, fault)


def _error(provider: str, model: str, failure: Failure) -> ProviderAPIError:
    import json

    served = encoding.error("openai", failure)
    body = json.loads(served.pieces[0])
    return api_error(provider, model, served.status or 0, dict(served.headers), body)
