"""aiohttp, with OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import aiohttp

PACKAGE = "aiohttp"
PACKAGES = ("aiohttp",)
OVER = "aiohttp"
WITHOUT = {"stream": "awaited only"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _session() -> aiohttp.ClientSession:
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    return aiohttp.ClientSession(
        "https://api.openai.com/v1/", headers=headers, raise_for_status=True
    )


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> Any:
    async with session.post(path, json=body) as response:
        return await response.json()


async def _message(session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    return (await _post(session, "chat/completions", body))["choices"][0]["message"]


async def plain(prompt: str) -> str:
    async with _session() as session:
        return (await _message(session, _asked(prompt)))["content"]


async def gathered(prompts: list[str]) -> list[str]:
    async with _session() as session:
        calls = (_message(session, _asked(prompt)) for prompt in prompts)
        return [message["content"] for message in await asyncio.gather(*calls)]


async def async_stream(prompt: str) -> list[str]:
    body = _asked(prompt) | {"stream": True}
    async with _session() as session, session.post("chat/completions", json=body) as response:
        lines = [line.strip().removeprefix(b"data: ") async for line in response.content]
    chunks = [json.loads(line) for line in lines if line.startswith(b"{")]
    return [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]


async def tools(prompt: str) -> str:
    async with _session() as session:
        asked = _asked(prompt) | {"tools": [TOOL]}
        message = await _message(session, asked)
        call = message["tool_calls"][0]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
        asked["messages"] += [message, result]
        return (await _message(session, asked))["content"]


async def embeddings(text: str) -> list[float]:
    body = {"model": "text-embedding-3-small", "input": text}
    async with _session() as session:
        return (await _post(session, "embeddings", body))["data"][0]["embedding"]
