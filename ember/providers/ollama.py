"""Ollama's chat completions; pure."""

from __future__ import annotations

import os

from ember.providers.openai_chat import OpenAIChat

__all__ = ["OllamaChat"]


class OllamaChat(OpenAIChat):
    """Ollama, whose own variable is `host:port` with or without a scheme."""

    def base_url(self) -> str:
        """See `Wire.base_url`."""
        host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
        if not host or os.environ.get("OLLAMA_BASE_URL"):
            return super().base_url()
        if "://" in host:
            return f"{host}/v1"
        # As ollama's own client completes it (`envconfig/config.go`).
        name, mark, port = host.rpartition(":")
        if not mark or not port.isdecimal():
            name, port = host, "11434"
        return f"http://{name or '127.0.0.1'}:{port}/v1"
