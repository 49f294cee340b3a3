"""Alibaba's package."""

from __future__ import annotations

import asyncio
from typing import Any

from dashscope import AioGeneration, Generation, TextEmbedding

PACKAGE = "dashscope"
PACKAGES = ("dashscope",)
OVER = "urllib3, aiohttp"
IN_REPLAY = {"DASHSCOPE_API_KEY": "any"}  # read on import, before a test begins
WITHOUT: dict[str, str] = {}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "qwen-turbo", "messages": messages, "result_format": "message"}


def _text(answer: Any) -> str:
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code} {answer.message}")
    return answer.output.choices[0].message.content


def plain(prompt: str) -> str:
    return _text(Generation.call(**_asked(prompt)))


async def gathered(prompts: list[str]) -> list[str]:
    answers = await asyncio.gather(*(AioGeneration.call(**_asked(each)) for each in prompts))
    return [_text(answer) for answer in answers]


def stream(prompt: str) -> list[str]:
    answers = Generation.call(**_asked(prompt), stream=True, incremental_output=True)
    return [_text(answer) for answer in answers]


async def async_stream(prompt: str) -> list[str]:
    answers = await AioGeneration.call(**_asked(prompt), stream=True, incremental_output=True)
    return [_text(answer) async for answer in answers]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = Generation.call(**asked).output.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0]["id"], "content": "rain"}
    asked["messages"] += [message, result]
    return _text(Generation.call(**asked))


def embeddings(text: str) -> list[float]:
    answer = TextEmbedding.call(model="text-embedding-v4", input=text)
    return answer.output["embeddings"][0]["embedding"]
