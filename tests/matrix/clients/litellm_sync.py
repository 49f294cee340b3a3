"""litellm's sync calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm

PACKAGE = "litellm"
PACKAGES = ("litellm", "aiohttp")
OVER = "httpx"
WITHOUT: dict[str, str] = {"async_stream": "in the row of its awaited calls"}
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


def plain(prompt: str) -> str:
    return litellm.completion(**_asked(prompt)).choices[0].message.content


def gathered(prompts: list[str]) -> list[str]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(plain, prompts)]


def stream(prompt: str) -> list[str]:
    chunks = litellm.completion(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = litellm.completion(**asked).choices[0].message
    call = message.tool_calls[0]
    asked["messages"] += [message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    return litellm.completion(**asked).choices[0].message.content


def embeddings(text: str) -> list[float]:
    found = litellm.embedding(model="openai/text-embedding-3-small", input=[text])
    return found.data[0]["embedding"]
