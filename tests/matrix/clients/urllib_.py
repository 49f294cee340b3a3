"""The standard library's urllib, with OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PACKAGE = "python"
TITLE = "urllib of Python"
PACKAGES: tuple[str, ...] = ()
OVER = "http.client"
WITHOUT = {"async_stream": "no async calls"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _open(path: str, body: dict[str, Any]) -> Any:
    headers = {
        "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
        "content-type": "application/json",
    }
    url = f"https://api.openai.com/v1/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=30)


def _post(path: str, body: dict[str, Any]) -> Any:
    with _open(path, body) as response:
        return json.load(response)


def _asked(prompt: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return _post("chat/completions", body)["choices"][0]["message"]


def plain(prompt: str) -> str:
    return _message(_asked(prompt))["content"]


def gathered(prompts: list[str]) -> list[str]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(plain, prompts)]


def stream(prompt: str) -> list[str]:
    with _open("chat/completions", _asked(prompt) | {"stream": True}) as response:
        events = [line.strip().removeprefix(b"data: ") for line in response if line.strip()]
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
    return _post("embeddings", body)["data"][0]["embedding"]
