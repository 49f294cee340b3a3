"""Ollama's chat completions; pure."""

from __future__ import annotations

import os

from ember.models.providers.openai import OpenAIChat

__all__ = ["OllamaChat"]


class OllamaChat(OpenAIChat):
    """Ollama, whose own variable is `host:port` with or without a scheme."""

    def base_url(self) -> str:
        """See `Wire.base_url`."""
        host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
        if not host or os.environ.get("OLLAMA_BASE_URL"):
            return super().base_url()
        return f"{host if '://' in host else f'http://{host}'}/v1"
