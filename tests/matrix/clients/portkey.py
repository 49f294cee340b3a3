"""Portkey's package, a gateway."""

from __future__ import annotations

from contextlib import nullcontext

from portkey_ai import AsyncPortkey, Portkey

from tests.matrix.chat_completions import ChatCompletions

PACKAGE = "portkey-ai"
PACKAGES = ("portkey-ai",)
OVER = "httpx"
WITHOUT: dict[str, str] = {}
CHAT = ChatCompletions(
    model="gpt-4o-mini",
    client=lambda: Portkey(provider="@openai"),
    async_client=lambda: nullcontext(AsyncPortkey(provider="@openai")),
)
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    found = Portkey(provider="@openai").embeddings.create(
        model="text-embedding-3-small", input=text, encoding_format="float"
    )
    return found.data[0].embedding
