"""Semantic Kernel with OpenAI."""

from __future__ import annotations

import asyncio

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextEmbedding,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function

PACKAGE = "semantic-kernel"
PACKAGES = ("semantic-kernel",)
OVER = "httpx"
WITHOUT = {"stream": "awaited only"}


def _history(prompt: str) -> ChatHistory:
    history = ChatHistory()
    history.add_user_message(prompt)
    return history


async def plain(prompt: str) -> str:
    chat = OpenAIChatCompletion(ai_model_id="gpt-4o-mini")
    settings = OpenAIChatPromptExecutionSettings()
    return str(await chat.get_chat_message_content(_history(prompt), settings))


async def gathered(prompts: list[str]) -> list[str]:
    return await asyncio.gather(*map(plain, prompts))


async def async_stream(prompt: str) -> list[str]:
    chat = OpenAIChatCompletion(ai_model_id="gpt-4o-mini")
    settings = OpenAIChatPromptExecutionSettings()
    pieces = chat.get_streaming_chat_message_content(_history(prompt), settings)
    return [str(piece) async for piece in pieces]


class Weather:
    @kernel_function
    def weather(self, city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"


async def tools(prompt: str) -> str:
    kernel = Kernel()
    kernel.add_plugin(Weather(), "weather")
    settings = OpenAIChatPromptExecutionSettings(
        function_choice_behavior=FunctionChoiceBehavior.Auto()
    )
    chat = OpenAIChatCompletion(ai_model_id="gpt-4o-mini")
    return str(await chat.get_chat_message_content(_history(prompt), settings, kernel=kernel))


async def embeddings(text: str) -> list[float]:
    model = OpenAITextEmbedding(ai_model_id="text-embedding-3-small")
    return [*(await model.generate_embeddings([text]))[0]]
