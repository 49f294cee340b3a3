"""Chat completions servers whose differences from OpenAI need more than a table; pure.

Source for Azure: the `openai` 3.54.0 package (`lib/azure.py`) and learn.microsoft.com ("Azure
OpenAI API version lifecycle"), read on 2026-11-22.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from ember.providers.call import Call
from ember.providers.openai_chat import OpenAIChat

__all__ = ["AzureChat", "OllamaChat"]


class AzureChat(OpenAIChat):
    """Chat completions on Azure; the model is the name of the deployment.

    If `OPENAI_API_VERSION` or the URL (`?api-version=`) gives a version, the dated API is called,
    else the `v1` API, which needs no version.
    """

    def url(self, call: Call) -> str:
        base, _, query = call.base_url.partition("?")
        base = base.rstrip("/")
        if base.endswith(".models.ai.azure.com"):  # serverless: no version, as at OpenAI
            base += "/v1"
        version = os.environ.get("OPENAI_API_VERSION", "").strip()
        dated = "api-version=" in query
        named = "/deployments/" in base  # the deployment's own address
        if base.endswith("/v1") or not (version or dated or named):
            base = base if base.endswith("/v1") else f"{base.removesuffix('/openai')}/openai/v1"
        else:
            if version and not dated:
                query = f"{query}&api-version={version}".lstrip("&")
            if not named:
                deployment = quote(call.model, safe="")
                base = f"{base.removesuffix('/openai')}/openai/deployments/{deployment}"
        return f"{base}/chat/completions{'?' if query else ''}{query}"

    def takes_max_tokens(self, call: Call, known: bool) -> bool:
        # Only the deployment's name shows which model it is: Mistral's refuse
        # max_completion_tokens (pydantic-ai issue 6593).
        return re.search(r"mistral|ministral|codestral", call.model, re.IGNORECASE) is not None


class OllamaChat(OpenAIChat):
    """Ollama, whose variable `OLLAMA_HOST` is `host:port` with or without a scheme."""

    def base_url(self) -> str:
        host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
        if not host or os.environ.get("OLLAMA_BASE_URL"):
            return super().base_url()
        if "://" in host:
            return f"{host}/v1"
        # The same defaults as in ollama's own client (`envconfig/config.go`).
        name, mark, port = host.rpartition(":")
        if not mark or not port.isdecimal():
            name, port = host, "11434"
        return f"http://{name or '127.0.0.1'}:{port}/v1"
