"""Cohere's package."""

from __future__ import annotations

import asyncio
from typing import Any

import cohere

PACKAGE = "cohere"
PACKAGES = ("cohere",)
OVER = "httpx"
WITHOUT: dict[str, str] = {}
ONCE: Any = {"max_retries": 0}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "command-a-03-2025", "messages": messages, "request_options": ONCE}


def _text(events: list[Any]) -> list[str]:
    return [event.delta.message.content.text for event in events if event.type == "content-delta"]


def plain(prompt: str) -> str:
    return cohere.ClientV2().chat(**_asked(prompt)).message.content[0].text


async def gathered(prompts: list[str]) -> list[str]:
    async with cohere.AsyncClientV2() as client:
        answers = await asyncio.gather(*(client.chat(**_asked(prompt)) for prompt in prompts))
        return [answer.message.content[0].text for answer in answers]


def stream(prompt: str) -> list[str]:
    return _text([*cohere.ClientV2().chat_stream(**_asked(prompt))])


async def async_stream(prompt: str) -> list[str]:
    async with cohere.AsyncClientV2() as client:
        return _text([event async for event in client.chat_stream(**_asked(prompt))])


def tools(prompt: str) -> str:
    client = cohere.ClientV2()
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = client.chat(**asked).message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    asked["messages"] += [message, result]
    return client.chat(**asked).message.content[0].text


def embeddings(text: str) -> list[float]:
    found = cohere.ClientV2().embed(
        model="embed-v4.0", input_type="search_query", texts=[text], embedding_types=["float"]
    )
    return found.embeddings.float_[0]
