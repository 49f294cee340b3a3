"""Ollama's package, with the provider's own server in the cloud."""

from __future__ import annotations

import asyncio
from typing import Any

import ollama

PACKAGE = "ollama"
PACKAGES = ("ollama",)
OVER = "httpx"
WITHOUT: dict[str, str] = {}
HOST = "https://ollama.com"


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-oss:20b", "messages": [{"role": "user", "content": prompt}]}


def plain(prompt: str) -> str:
    return ollama.Client(HOST).chat(**_asked(prompt)).message.content


async def gathered(prompts: list[str]) -> list[str]:
    client = ollama.AsyncClient(HOST)
    answers = await asyncio.gather(*(client.chat(**_asked(prompt)) for prompt in prompts))
    return [answer.message.content for answer in answers]


def stream(prompt: str) -> list[str]:
    return [
        line.message.content for line in ollama.Client(HOST).chat(**_asked(prompt), stream=True)
    ]


async def async_stream(prompt: str) -> list[str]:
    lines = await ollama.AsyncClient(HOST).chat(**_asked(prompt), stream=True)
    return [line.message.content async for line in lines]


def tools(prompt: str) -> str:
    client = ollama.Client(HOST)
    asked = _asked(prompt) | {"tools": [weather]}
    message = client.chat(**asked).message
    call = message.tool_calls[0].function
    result = {"role": "tool", "tool_name": call.name, "content": weather(**call.arguments)}
    asked["messages"] += [message, result]
    return client.chat(**asked).message.content


def embeddings(text: str) -> list[float]:
    return [*ollama.Client(HOST).embed(model="nomic-embed-text", input=text).embeddings[0]]
