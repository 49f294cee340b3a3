"""Portkey's package, a gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from portkey_ai import AsyncPortkey, Portkey

PACKAGE = "portkey-ai"
PACKAGES = ("portkey-ai",)
OVER = "httpx"
WITHOUT: dict[str, str] = {}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}


def _client() -> Portkey:
    return Portkey(provider="@openai")


def plain(prompt: str) -> str:
    return _client().chat.completions.create(**_asked(prompt)).choices[0].message.content


async def gathered(prompts: list[str]) -> list[str]:
    client = AsyncPortkey(provider="@openai")
    calls = (client.chat.completions.create(**_asked(prompt)) for prompt in prompts)
    return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    chunks = _client().chat.completions.create(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]


async def async_stream(prompt: str) -> list[str]:
    client = AsyncPortkey(provider="@openai")
    chunks = await client.chat.completions.create(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content async for chunk in chunks if chunk.choices]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = _client().chat.completions.create(**asked).choices[0].message
    call = message.tool_calls[0]
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": json.loads(call.function.arguments)["city"],
    }
    asked["messages"] += [message, result]
    return _client().chat.completions.create(**asked).choices[0].message.content


def embeddings(text: str) -> list[float]:
    found = _client().embeddings.create(
        model="text-embedding-3-small", input=text, encoding_format="float"
    )
    return found.data[0].embedding
