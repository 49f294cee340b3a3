"""Groq's package."""

from __future__ import annotations

import groq

from tests.matrix.chat_completions import ChatCompletions

PACKAGE = "groq"
PACKAGES = ("groq",)
OVER = "httpx"
WITHOUT = {"embeddings": "the provider has none"}
CHAT = ChatCompletions(
    model="llama-3.3-70b-versatile",
    client=lambda: groq.Groq(max_retries=0),
    async_client=lambda: groq.AsyncGroq(max_retries=0),
)
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools
