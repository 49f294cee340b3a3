"""LangChain with Anthropic."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic

from tests.matrix.langchain import Chat

PACKAGE = "langchain-anthropic"
PACKAGES = ("langchain-anthropic",)
OVER = "httpx2"
WITHOUT = {"embeddings": "the provider has none"}
CHAT = Chat(lambda: ChatAnthropic(model="claude-haiku-4-5", max_retries=0))
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools
