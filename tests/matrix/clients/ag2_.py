"""AG2, formerly AutoGen, with OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any

from ag2 import Agent, MemoryStream, tool
from ag2.config import OpenAIConfig
from ag2.events import ModelMessageChunk

PACKAGE = "ag2"
PACKAGES = ("ag2[openai]",)
OVER = "httpx2"
WITHOUT = {"stream": "awaited only", "embeddings": "models and agents only"}


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _agent(**more: Any) -> Agent:
    return Agent("assistant", config=OpenAIConfig("gpt-4o-mini", max_retries=0, **more))


async def plain(prompt: str) -> str:
    return (await _agent().ask(prompt)).body


async def gathered(prompts: list[str]) -> list[str]:
    agent = _agent()
    return [reply.body for reply in await asyncio.gather(*map(agent.ask, prompts))]


async def async_stream(prompt: str) -> list[str]:
    pieces: list[str] = []
    stream = MemoryStream()

    def take(event: ModelMessageChunk) -> None:
        pieces.append(event.content)

    stream.where(ModelMessageChunk).subscribe(take)
    await _agent(streaming=True).ask(prompt, stream=stream)
    return pieces


async def tools(prompt: str) -> str:
    return (await _agent().ask(prompt, tools=[weather])).body
