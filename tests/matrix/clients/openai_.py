"""OpenAI's package, chat completions."""

from __future__ import annotations

import openai

from tests.matrix.chat_completions import ChatCompletions

PACKAGE = "openai"
PACKAGES = ("openai",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}
CHAT = ChatCompletions(
    model="gpt-4o-mini",
    client=lambda: openai.OpenAI(max_retries=0),
    async_client=lambda: openai.AsyncOpenAI(max_retries=0),
)
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    client = openai.OpenAI(max_retries=0)
    found = client.embeddings.create(model="text-embedding-3-small", input=text)
    return found.data[0].embedding
