"""Pydantic AI with OpenAI."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent, Embedder
from pydantic_ai.models.openai import OpenAIChatModel

PACKAGE = "pydantic-ai-slim"
PACKAGES = ("pydantic-ai-slim[openai]",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}


def _agent() -> Agent:
    return Agent(OpenAIChatModel("gpt-4o-mini"))


def plain(prompt: str) -> str:
    return _agent().run_sync(prompt).output


async def gathered(prompts: list[str]) -> list[str]:
    agent = _agent()
    return [run.output for run in await asyncio.gather(*(agent.run(each) for each in prompts))]


def stream(prompt: str) -> list[str]:
    return [*_agent().run_stream_sync(prompt).stream_text(delta=True, debounce_by=None)]


async def async_stream(prompt: str) -> list[str]:
    async with _agent().run_stream(prompt) as run:
        return [text async for text in run.stream_text(delta=True, debounce_by=None)]


def tools(prompt: str) -> str:
    agent = _agent()

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"

    return agent.run_sync(prompt).output


def embeddings(text: str) -> list[float]:
    return [*Embedder("openai:text-embedding-3-small").embed_query_sync(text).embeddings[0]]
