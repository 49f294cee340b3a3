"""LangChain with Anthropic."""

from __future__ import annotations

import asyncio

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

PACKAGE = "langchain-anthropic"
PACKAGES = ("langchain-anthropic",)
OVER = "httpx2"
WITHOUT = {"embeddings": "the provider has none"}


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _chat() -> ChatAnthropic:
    return ChatAnthropic(model="claude-haiku-4-5", max_retries=0)


def plain(prompt: str) -> str:
    return _chat().invoke(prompt).content


async def gathered(prompts: list[str]) -> list[str]:
    chat = _chat()
    answers = await asyncio.gather(*(chat.ainvoke(prompt) for prompt in prompts))
    return [answer.content for answer in answers]


def stream(prompt: str) -> list[str]:
    return [chunk.content for chunk in _chat().stream(prompt)]


async def async_stream(prompt: str) -> list[str]:
    return [chunk.content async for chunk in _chat().astream(prompt)]


def tools(prompt: str) -> str:
    chat = _chat().bind_tools([weather])
    messages = [HumanMessage(prompt)]
    messages.append(chat.invoke(messages))
    messages.append(weather.invoke(messages[-1].tool_calls[0]))
    return chat.invoke(messages).content
