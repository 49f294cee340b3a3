"""Hugging Face's package, over its router."""

from __future__ import annotations

import asyncio
from typing import Any

from huggingface_hub import AsyncInferenceClient, InferenceClient

PACKAGE = "huggingface_hub"
PACKAGES = ("huggingface_hub", "numpy")  # it returns embeddings as arrays
OVER = "httpx2"
WITHOUT: dict[str, str] = {}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "meta-llama/Llama-3.3-70B-Instruct", "messages": messages}


def plain(prompt: str) -> str:
    return InferenceClient().chat_completion(**_asked(prompt)).choices[0].message.content


async def gathered(prompts: list[str]) -> list[str]:
    async with AsyncInferenceClient() as client:
        calls = (client.chat_completion(**_asked(prompt)) for prompt in prompts)
        return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


def stream(prompt: str) -> list[str]:
    with InferenceClient() as client:
        chunks = client.chat_completion(**_asked(prompt), stream=True)
        return [chunk.choices[0].delta.content for chunk in chunks]


async def async_stream(prompt: str) -> list[str]:
    async with AsyncInferenceClient() as client:
        chunks = await client.chat_completion(**_asked(prompt), stream=True)
        return [chunk.choices[0].delta.content async for chunk in chunks]


def tools(prompt: str) -> str:
    client = InferenceClient()
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = client.chat_completion(**asked).choices[0].message
    call = message.tool_calls[0]
    asked["messages"] += [message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    return client.chat_completion(**asked).choices[0].message.content


def embeddings(text: str) -> list[float]:
    client = InferenceClient(provider="hf-inference")
    return [*client.feature_extraction(text, model="intfloat/multilingual-embed-large")]
