"""Zhipu's package, which signs a new token for each call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zhipuai import ZhipuAI

PACKAGE = "zhipuai"
PACKAGES = ("zhipuai", "sniffio")  # imported by zhipuai, but not among its dependencies
OVER = "httpx"
WITHOUT = {"async_stream": "no async calls"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "glm-4-flash", "messages": [{"role": "user", "content": prompt}]}


def plain(prompt: str) -> str:
    client = ZhipuAI(max_retries=0)
    return client.chat.completions.create(**_asked(prompt)).choices[0].message.content


def gathered(prompts: list[str]) -> list[str]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(plain, prompts)]


def stream(prompt: str) -> list[str]:
    client = ZhipuAI(max_retries=0)
    chunks = client.chat.completions.create(**_asked(prompt), stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks]


def tools(prompt: str) -> str:
    client = ZhipuAI(max_retries=0)
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = client.chat.completions.create(**asked).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    asked["messages"] += [message.model_dump(), result]
    return client.chat.completions.create(**asked).choices[0].message.content


def embeddings(text: str) -> list[float]:
    return (
        ZhipuAI(max_retries=0).embeddings.create(model="embedding-3", input=text).data[0].embedding
    )
