"""Mistral's package."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from mistralai.client import Mistral

PACKAGE = "mistralai"
PACKAGES = ("mistralai",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "mistral-small-latest", "messages": [{"role": "user", "content": prompt}]}


def _client() -> Mistral:
    return Mistral(api_key=os.environ["MISTRAL_API_KEY"])


def plain(prompt: str) -> str:
    with _client() as client:
        return client.chat.complete(**_asked(prompt)).choices[0].message.content


async def gathered(prompts: list[str]) -> list[str]:
    async with _client() as client:
        calls = (client.chat.complete_async(**_asked(prompt)) for prompt in prompts)
        return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    with _client() as client, client.chat.stream(**_asked(prompt)) as events:
        return [event.data.choices[0].delta.content for event in events]


async def async_stream(prompt: str) -> list[str]:
    async with _client() as client:
        events = await client.chat.stream_async(**_asked(prompt))
        return [event.data.choices[0].delta.content async for event in events]


def tools(prompt: str) -> str:
    with _client() as client:
        asked = _asked(prompt) | {"tools": [TOOL]}
        message = client.chat.complete(**asked).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
        asked["messages"] += [message, result]
        return client.chat.complete(**asked).choices[0].message.content


def embeddings(text: str) -> list[float]:
    with _client() as client:
        return client.embeddings.create(model="mistral-embed", inputs=[text]).data[0].embedding
