"""litellm's async calls, which use aiohttp."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm

PACKAGE = "litellm"
TITLE = "litellm (awaited)"
PACKAGES = ("litellm", "aiohttp")
OVER = "aiohttp"
WITHOUT: dict[str, str] = {"stream": "awaited only"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "anthropic/claude-haiku-4-5", "messages": messages, "num_retries": 0}


async def plain(prompt: str) -> str:
    return (await litellm.acompletion(**_asked(prompt))).choices[0].message.content


async def gathered(prompts: list[str]) -> list[str]:
    calls = (litellm.acompletion(**_asked(prompt)) for prompt in prompts)
    return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


async def async_stream(prompt: str) -> list[str]:
    chunks = await litellm.acompletion(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content async for chunk in chunks]


async def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = (await litellm.acompletion(**asked)).choices[0].message
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    asked["messages"] += [message, result]
    return (await litellm.acompletion(**asked)).choices[0].message.content


async def embeddings(text: str) -> list[float]:
    found = await litellm.aembedding(model="openai/text-embedding-3-small", input=[text])
    return found.data[0]["embedding"]
