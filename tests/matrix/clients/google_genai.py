"""Google's package; its async calls use aiohttp if it is installed."""

from __future__ import annotations

import asyncio
from typing import Any

from google import genai

PACKAGE = "google-genai"
PACKAGES = ("google-genai", "aiohttp")
OVER = "httpx2, aiohttp"
WITHOUT: dict[str, str] = {}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gemini-2.5-flash", "contents": prompt}


def plain(prompt: str) -> str:
    with genai.Client() as client:
        return client.models.generate_content(**_asked(prompt)).text


async def gathered(prompts: list[str]) -> list[str]:
    async with genai.Client().aio as client:
        calls = (client.models.generate_content(**_asked(prompt)) for prompt in prompts)
        return [answer.text for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    with genai.Client() as client:
        return [chunk.text for chunk in client.models.generate_content_stream(**_asked(prompt))]


async def async_stream(prompt: str) -> list[str]:
    async with genai.Client().aio as client:
        chunks = await client.models.generate_content_stream(**_asked(prompt))
        return [chunk.text async for chunk in chunks]


async def tools(prompt: str) -> str:
    async with genai.Client().aio as client:
        answer = await client.models.generate_content(**_asked(prompt), config={"tools": [weather]})
        return answer.text


def embeddings(text: str) -> list[float]:
    with genai.Client() as client:
        found = client.models.embed_content(model="gemini-embedding-001", contents=text)
        return found.embeddings[0].values
