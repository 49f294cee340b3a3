"""Which wire each server speaks: OpenAI's chat completions, unless it says otherwise here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ember.providers.servers import SERVERS, Server

if TYPE_CHECKING:
    from ember.providers.wire import Wire

__all__ = ["WIRES"]


class _Wires(Mapping[str, "Wire"]):
    """The wires by the server's name; one is loaded when it is first asked for.

    Most programs speak one of them, and would spend as long on loading the others as on a call.
    """

    def __init__(self) -> None:
        self._made: dict[str, Wire] = {}

    def __getitem__(self, name: str) -> Wire:
        wire = self._made.get(name)
        if wire is None:
            # Of two threads that come at once, both get the one that was first.
            wire = self._made.setdefault(name, _spoken_by(name)(SERVERS[name]))
        return wire

    def __contains__(self, name: object) -> bool:
        return name in SERVERS

    def __iter__(self) -> Iterator[str]:
        return iter(SERVERS)

    def __len__(self) -> int:
        return len(SERVERS)


def _spoken_by(name: str) -> Callable[[Server], Wire]:
    if name == "openai-responses":
        from ember.providers.openai_responses import OpenAIResponses

        return OpenAIResponses
    if name == "anthropic":
        from ember.providers.anthropic import AnthropicMessages

        return AnthropicMessages
    if name == "google":
        from ember.providers.google import GoogleGenerate

        return GoogleGenerate
    if name == "azure":
        from ember.providers.azure import AzureChat

        return AzureChat
    if name == "ollama":
        from ember.providers.ollama import OllamaChat

        return OllamaChat
    if name == "local":
        from ember.providers.local import LocalChat

        return LocalChat
    from ember.providers.openai_chat import OpenAIChat

    return OpenAIChat


WIRES: Mapping[str, Wire] = _Wires()
