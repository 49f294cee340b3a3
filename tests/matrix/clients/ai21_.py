"""AI21's package."""

from __future__ import annotations

import asyncio
from typing import Any

from ai21 import AI21Client, AsyncAI21Client
from ai21.models.chat import ChatMessage, ToolMessage

PACKAGE = "ai21"
PACKAGES = ("ai21",)
OVER = "httpx"
WITHOUT = {"embeddings": "the provider has none"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "jamba-mini", "messages": [ChatMessage(role="user", content=prompt)]}


def _client() -> AI21Client:
    return AI21Client(num_retries=1)


def plain(prompt: str) -> str:
    return _client().chat.completions.create(**_asked(prompt)).choices[0].message.content


async def gathered(prompts: list[str]) -> list[str]:
    client = AsyncAI21Client(num_retries=1)
    calls = (client.chat.completions.create(**_asked(prompt)) for prompt in prompts)
    return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    chunks = _client().chat.completions.create(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks]


async def async_stream(prompt: str) -> list[str]:
    client = AsyncAI21Client(num_retries=1)
    chunks = await client.chat.completions.create(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content async for chunk in chunks]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = _client().chat.completions.create(**asked).choices[0].message
    result = ToolMessage(content="rain", tool_call_id=message.tool_calls[0].id)
    asked["messages"] += [message, result]
    return _client().chat.completions.create(**asked).choices[0].message.content
