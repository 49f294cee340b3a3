"""LlamaIndex with OpenAI."""

from __future__ import annotations

import asyncio

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

PACKAGE = "llama-index-llms-openai"
PACKAGES = ("llama-index-llms-openai", "llama-index-embeddings-openai")
OVER = "httpx"
WITHOUT: dict[str, str] = {}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _model() -> OpenAI:
    return OpenAI(model="gpt-4o-mini", max_retries=0)


def plain(prompt: str) -> str:
    return _model().complete(prompt).text


async def gathered(prompts: list[str]) -> list[str]:
    model = _model()
    answers = await asyncio.gather(*(model.acomplete(prompt) for prompt in prompts))
    return [answer.text for answer in answers]


def stream(prompt: str) -> list[str]:
    return [piece.delta for piece in _model().stream_complete(prompt)]


async def async_stream(prompt: str) -> list[str]:
    return [piece.delta async for piece in await _model().astream_complete(prompt)]


def tools(prompt: str) -> str:
    model, tool = _model(), FunctionTool.from_defaults(weather)
    history = [ChatMessage(role="user", content=prompt)]
    answer = model.chat_with_tools([tool], chat_history=history)
    call = model.get_tool_calls_from_response(answer)[0]
    result = ChatMessage(
        role="tool",
        content=tool(**call.tool_kwargs).content,
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    return model.chat_with_tools(
        [tool], chat_history=[*history, answer.message, result]
    ).message.content


def embeddings(text: str) -> list[float]:
    return OpenAIEmbedding(model="text-embedding-3-small", max_retries=1).get_text_embedding(text)
