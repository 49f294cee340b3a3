"""OpenAI's package with the Responses API, async over aiohttp."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

PACKAGE = "openai"
TITLE = "openai (responses)"
PACKAGES = ("openai[aiohttp]",)
OVER = "httpx2, aiohttp"
WITHOUT = {"embeddings": "not part of this API"}
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "input": [{"role": "user", "content": prompt}]}


def _client() -> openai.OpenAI:
    return openai.OpenAI(max_retries=0)


def _async_client() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(max_retries=0, http_client=openai.DefaultAioHttpClient())


def plain(prompt: str) -> str:
    return _client().responses.create(**_asked(prompt)).output_text


async def gathered(prompts: list[str]) -> list[str]:
    async with _async_client() as client:
        calls = (client.responses.create(**_asked(prompt)) for prompt in prompts)
        return [answer.output_text for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    with _client().responses.stream(**_asked(prompt)) as events:
        return [event.delta for event in events if event.type == "response.output_text.delta"]


async def async_stream(prompt: str) -> list[str]:
    async with _async_client() as client, client.responses.stream(**_asked(prompt)) as events:
        return [event.delta async for event in events if event.type == "response.output_text.delta"]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    call = _client().responses.create(**asked).output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    asked["input"] += [call, result]
    return _client().responses.create(**asked).output_text
