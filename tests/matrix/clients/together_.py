"""Together's package."""

from __future__ import annotations

import together

from tests.matrix.chat_completions import ChatCompletions

PACKAGE = "together"
PACKAGES = ("together",)
OVER = "httpx"
WITHOUT: dict[str, str] = {}
CHAT = ChatCompletions(
    model="meta-llama/Llama-3.3-70B-Instruct-Turbo",
    client=lambda: together.Together(max_retries=0),
    async_client=lambda: together.AsyncTogether(max_retries=0),
)
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    client = together.Together(max_retries=0)
    found = client.embeddings.create(model="BAAI/bge-base-en-v1.5", input=text)
    return found.data[0].embedding
