"""Azure OpenAI, on both of its surfaces; pure.

Source: the `openai` 3.54.0 package (`lib/azure.py`) and learn.microsoft.com ("Azure OpenAI API
version lifecycle"), read on 2026-11-22.
"""

from __future__ import annotations

import os
import re

from ember.providers.openai_chat import OpenAIChat
from ember.providers.wire import Call

__all__ = ["AzureChat"]


class AzureChat(OpenAIChat):
    """Chat completions on Azure; the model is the name of the deployment.

    With `OPENAI_API_VERSION` set, or in the URL (`?api-version=`), the dated surface is called,
    else the `v1` one, which needs no version.
    """

    def url(self, call: Call) -> str:
        """See `Wire.url`."""
        base, _, query = call.base_url.partition("?")
        base = base.rstrip("/")
        version = query or _query(os.environ.get("OPENAI_API_VERSION", "").strip())
        named = "/deployments/" in base  # the deployment's own address
        if base.endswith("/v1") or not (version or named):
            base = base if base.endswith("/v1") else f"{base.removesuffix('/openai')}/openai/v1"
            return f"{base}/chat/completions"
        if not named:
            base = f"{base.removesuffix('/openai')}/openai/deployments/{call.model}"
        return f"{base}/chat/completions{'?' if version else ''}{version}"

    def max_tokens(self, call: Call) -> str:
        """See `OpenAIChat.max_tokens`; a deployment's name is all that there is to go by."""
        # Mistral's refuse max_completion_tokens (pydantic-ai issue 6593).
        mistral = re.search(r"mistral|ministral|codestral", call.model, re.IGNORECASE)
        return "max_tokens" if mistral else super().max_tokens(call)


def _query(version: str) -> str:
    return f"api-version={version}" if version else ""
