"""LangChain with Google."""

from __future__ import annotations

import asyncio

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings

PACKAGE = "langchain-google-genai"
PACKAGES = ("langchain-google-genai", "aiohttp")
OVER = "httpx2, aiohttp"
WITHOUT: dict[str, str] = {}


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _chat() -> ChatGoogleGenerativeAI:
    return ChatGoogleGenerativeAI(model="gemini-2.5-flash", max_retries=1)


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


def embeddings(text: str) -> list[float]:
    return GoogleGenerativeAIEmbeddings(model="gemini-embedding-001").embed_query(text)
