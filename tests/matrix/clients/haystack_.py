"""Haystack with OpenAI, once in a pipeline."""

from __future__ import annotations

import asyncio
from typing import Any

from haystack import Pipeline
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function

PACKAGE = "haystack-ai"
PACKAGES = ("haystack-ai",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _chat(**more: Any) -> OpenAIChatGenerator:
    return OpenAIChatGenerator(model="gpt-4o-mini", max_retries=0, **more)


def plain(prompt: str) -> str:
    pipeline = Pipeline()
    pipeline.add_component("chat", _chat())
    answer = pipeline.run({"chat": {"messages": [ChatMessage.from_user(prompt)]}})
    return answer["chat"]["replies"][0].text


async def gathered(prompts: list[str]) -> list[str]:
    chat = _chat()
    calls = (chat.run_async([ChatMessage.from_user(prompt)]) for prompt in prompts)
    return [answer["replies"][0].text for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    pieces: list[str] = []
    chat = _chat(streaming_callback=lambda chunk: pieces.append(chunk.content))
    chat.run([ChatMessage.from_user(prompt)])
    return pieces


async def async_stream(prompt: str) -> list[str]:
    pieces: list[str] = []

    async def take(chunk: Any) -> None:
        pieces.append(chunk.content)

    await _chat(streaming_callback=take).run_async([ChatMessage.from_user(prompt)])
    return pieces


def tools(prompt: str) -> str:
    tool = create_tool_from_function(weather)
    chat = _chat(tools=[tool])
    messages = [ChatMessage.from_user(prompt)]
    messages += chat.run(messages)["replies"]
    call = messages[-1].tool_calls[0]
    messages.append(ChatMessage.from_tool(tool.invoke(**call.arguments), origin=call))
    return chat.run(messages)["replies"][0].text


def embeddings(text: str) -> list[float]:
    return OpenAITextEmbedder(model="text-embedding-3-small").run(text)["embedding"]
