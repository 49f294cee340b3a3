"""Anthropic's package with Bedrock, whose calls are signed with AWS keys."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic

PACKAGE = "anthropic"
TITLE = "anthropic (Bedrock)"
PACKAGES = ("anthropic[bedrock]",)
OVER = "httpx2"
WITHOUT = {"embeddings": "the provider has none"}
TOOL: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def _asked(prompt: str) -> dict[str, Any]:
    messages: Any = [{"role": "user", "content": prompt}]
    return {
        "model": "anthropic.claude-haiku-4-5-20251001-v1:0",
        "max_tokens": 50,
        "messages": messages,
    }


def _client() -> anthropic.AnthropicBedrock:
    return anthropic.AnthropicBedrock(aws_region="us-east-1", max_retries=0)


def plain(prompt: str) -> str:
    return _client().messages.create(**_asked(prompt)).content[0].text


async def gathered(prompts: list[str]) -> list[str]:
    async with anthropic.AsyncAnthropicBedrock(aws_region="us-east-1", max_retries=0) as client:
        calls = (client.messages.create(**_asked(prompt)) for prompt in prompts)
        return [answer.content[0].text for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    with _client().messages.stream(**_asked(prompt)) as answer:
        return [*answer.text_stream]


async def async_stream(prompt: str) -> list[str]:
    async with (
        anthropic.AsyncAnthropicBedrock(aws_region="us-east-1", max_retries=0) as client,
        client.messages.stream(**_asked(prompt)) as answer,
    ):
        return [text async for text in answer.text_stream]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    answer = _client().messages.create(**asked)
    result = {"type": "tool_result", "tool_use_id": answer.content[0].id, "content": "rain"}
    asked["messages"] += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    return _client().messages.create(**asked).content[0].text
