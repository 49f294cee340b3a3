"""AWS's package with Bedrock."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

PACKAGE = "boto3"
PACKAGES = ("boto3",)
OVER = "urllib3"
WITHOUT = {"async_stream": "no async calls"}
MODEL = "amazon.nova-lite-v1:0"
TOOL: Any = {
    "toolSpec": {
        "name": "weather",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
}


def _client() -> Any:
    config = Config(retries={"max_attempts": 1, "mode": "standard"})
    return boto3.client("bedrock-runtime", region_name="us-east-1", config=config)


def _asked(prompt: str) -> dict[str, Any]:
    return {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": prompt}]}]}


def _text(answer: Any) -> str:
    return answer["output"]["message"]["content"][0]["text"]


def plain(prompt: str) -> str:
    return _text(_client().converse(**_asked(prompt)))


def gathered(prompts: list[str]) -> list[str]:
    client = _client()
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(lambda prompt: _text(client.converse(**_asked(prompt))), prompts)]


def stream(prompt: str) -> list[str]:
    events = _client().converse_stream(**_asked(prompt))["stream"]
    return [
        event["contentBlockDelta"]["delta"]["text"]
        for event in events
        if "contentBlockDelta" in event
    ]


def tools(prompt: str) -> str:
    asked = _asked(prompt) | {"toolConfig": {"tools": [TOOL]}}
    message = _client().converse(**asked)["output"]["message"]
    used = message["content"][0]["toolUse"]
    result = {"toolUseId": used["toolUseId"], "content": [{"text": "rain"}]}
    asked["messages"] += [message, {"role": "user", "content": [{"toolResult": result}]}]
    return _text(_client().converse(**asked))


def embeddings(text: str) -> list[float]:
    body = json.dumps({"inputText": text})
    answer = _client().invoke_model(modelId="amazon.titan-embed-text-v2:0", body=body)
    return json.loads(answer["body"].read())["embedding"]
