"""Which wire each server speaks: OpenAI's chat completions, unless it says otherwise here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ember.models.local import LocalChat
from ember.models.providers.anthropic import AnthropicMessages
from ember.models.providers.azure import AzureChat
from ember.models.providers.google import GoogleGenerate
from ember.models.providers.openai import OpenAIChat
from ember.models.providers.responses import OpenAIResponses
from ember.models.providers.servers import SERVERS, Server
from ember.models.providers.wire import Wire

__all__ = ["WIRES"]


class OllamaChat(OpenAIChat):
    """Ollama, whose own variable is `host:port` with or without a scheme."""

    def base_url(self) -> str:
        """See `Wire.base_url`."""
        host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
        if not host or os.environ.get("OLLAMA_BASE_URL"):
            return super().base_url()
        return f"{host if '://' in host else f'http://{host}'}/v1"


_OWN_WIRE: Mapping[str, Callable[[Server], Wire]] = {
    "openai-responses": OpenAIResponses,
    "anthropic": AnthropicMessages,
    "google": GoogleGenerate,
    "azure": AzureChat,
    "ollama": OllamaChat,
    "local": LocalChat,
}
WIRES: Mapping[str, Wire] = {
    name: _OWN_WIRE.get(name, OpenAIChat)(server) for name, server in SERVERS.items()
}
