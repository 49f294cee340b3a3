"""requests, with OpenAI's chat completions."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

PACKAGE = "requests"
PACKAGES = ("requests",)
OVER = "urllib3"
WITHOUT = {"async_stream": "no async calls"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _post(path: str, body: dict[str, Any], **options: Any) -> requests.Response:
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    url = f"https://api.openai.com/v1/{path}"
    response = requests.post(url, json=body, headers=headers, timeout=30, **options)
    response.raise_for_status()
    return response


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return _post("chat/completions", body).json()["choices"][0]["message"]


def plain(prompt: str) -> str:
    return _message(_asked(prompt))["content"]


def gathered(prompts: list[str]) -> list[str]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(plain, prompts)]


def stream(prompt: str) -> list[str]:
    with _post("chat/completions", _asked(prompt) | {"stream": True}, stream=True) as response:
        events = [line.removeprefix(b"data: ") for line in response.iter_lines() if line]
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    return [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"tools": [TOOL]}
    message = _message(asked)
    call = message["tool_calls"][0]
    asked["messages"] += [message, {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    return _message(asked)["content"]


def embeddings(text: str) -> list[float]:
    body = {"model": "text-embedding-3-small", "input": text}
    return _post("embeddings", body).json()["data"][0]["embedding"]
