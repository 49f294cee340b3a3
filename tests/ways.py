"""The ways to make one call, for tests of what is to be the same in all of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import trio

from ember.api import models
from tests.loopback import Received, Reply

MODEL = "gpt-4"
KEY = "sk-loopback-0123456789abcdef"


def call(url: str, **params: Any) -> str:
    """The plain call; the answer's text."""
    return models(MODEL, **_arguments(url, params)).text


async def acall(url: str, **params: Any) -> str:
    """The awaited call."""
    return (await models.acall(MODEL, **_arguments(url, params))).text


def stream(url: str, **params: Any) -> str:
    """The streamed call, read to its end."""
    with models.stream(MODEL, **_arguments(url, params)) as answer:
        return "".join(chunk.text for chunk in answer)


async def astream(url: str, **params: Any) -> str:
    """The awaited stream, read to its end."""
    async with models.astream(MODEL, **_arguments(url, params)) as answer:
        return "".join([chunk.text async for chunk in answer])


def _arguments(url: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": "Hello", "base_url": f"{url}/v1", "api_key": KEY} | params


def _asyncio(way: Any) -> Any:
    return lambda url, **params: asyncio.run(way(url, **params))


def _trio(way: Any) -> Any:
    async def run(url: str, params: dict[str, Any]) -> str:
        return str(await way(url, **params))

    return lambda url, **params: trio.run(run, url, params)


PLAIN = {"call": call, "asyncio": _asyncio(acall), "trio": _trio(acall)}
STREAMED = {
    "stream": stream,
    "stream-asyncio": _asyncio(astream),
    "stream-trio": _trio(astream),
}
ALL = PLAIN | STREAMED


def completion(text: str = "Hello!", **more: Any) -> dict[str, Any]:
    """A chat completion as OpenAI sends it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4-0613",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        **more,
    }


def events(*texts: str) -> list[bytes]:
    """A streamed chat completion, an event a text, and what ends it."""

    def event(value: str) -> bytes:
        return f"data: {value}\n\n".encode()

    head = '{"id":"chatcmpl-1","model":"gpt-4-0613","choices":'
    pieces = [
        event(f'{head}[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}')
        for text in texts
    ]
    pieces.append(event(f'{head}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}'))
    usage = '{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}'
    return [*pieces, event(f'{head}[],"usage":{usage}}}'), b"data: [DONE]\n\n"]


WHOLE = json.dumps(completion()).encode()


def answering(received: Received) -> Reply:
    """Answers a chat call as a whole or as a stream, as it asks for."""
    if received.json().get("stream"):
        return Reply(pieces=events("Once", " upon", " a time"))
    return Reply(WHOLE)
