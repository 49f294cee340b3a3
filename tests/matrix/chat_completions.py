"""The calls of a package whose interface is that of OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class ChatCompletions:
    """The cells of such a package.

    Args:
        model: The model's name.
        client: Makes a client.
        async_client: Makes an async client, which is closed after its use.
    """

    def __init__(
        self,
        model: str,
        client: Callable[[], Any],
        async_client: Callable[[], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._model = model
        self._client = client
        self._async_client = async_client

    def _request(self, prompt: str) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": prompt}]}

    def plain(self, prompt: str) -> str:
        answer = self._client().chat.completions.create(**self._request(prompt))
        return answer.choices[0].message.content

    async def gathered(self, prompts: list[str]) -> list[str]:
        async with self._async_client() as client:
            calls = (client.chat.completions.create(**self._request(each)) for each in prompts)
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    def stream(self, prompt: str) -> list[str]:
        chunks = self._client().chat.completions.create(**self._request(prompt), stream=True)
        return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]

    async def async_stream(self, prompt: str) -> list[str]:
        async with self._async_client() as client:
            chunks = await client.chat.completions.create(**self._request(prompt), stream=True)
            return [chunk.choices[0].delta.content async for chunk in chunks if chunk.choices]

    def tools(self, prompt: str) -> str:
        request = self._request(prompt) | {"tools": [TOOL]}
        message = self._client().chat.completions.create(**request).choices[0].message
        call = message.tool_calls[0]
        city = json.loads(call.function.arguments)["city"]
        result = {"role": "tool", "tool_call_id": call.id, "content": city}
        request["messages"] += [message, result]
        return self._client().chat.completions.create(**request).choices[0].message.content
