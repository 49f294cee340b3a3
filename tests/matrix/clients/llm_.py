"""Simon Willison's llm with OpenAI."""

from __future__ import annotations

import asyncio

import llm

PACKAGE = "llm"
PACKAGES = ("llm",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def plain(prompt: str) -> str:
    return llm.get_model("gpt-4o-mini").prompt(prompt, stream=False).text()


async def gathered(prompts: list[str]) -> list[str]:
    model = llm.get_async_model("gpt-4o-mini")
    return await asyncio.gather(*(model.prompt(prompt, stream=False).text() for prompt in prompts))


def stream(prompt: str) -> list[str]:
    return [*llm.get_model("gpt-4o-mini").prompt(prompt)]


async def async_stream(prompt: str) -> list[str]:
    return [piece async for piece in llm.get_async_model("gpt-4o-mini").prompt(prompt)]


def tools(prompt: str) -> str:
    return llm.get_model("gpt-4o-mini").chain(prompt, tools=[weather], stream=False).text()


def embeddings(text: str) -> list[float]:
    return llm.get_embedding_model("3-small").embed(text)
