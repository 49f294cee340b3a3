"""LangChain with Bedrock."""

from __future__ import annotations

import asyncio

from langchain_aws import BedrockEmbeddings, ChatBedrockConverse
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

PACKAGE = "langchain-aws"
PACKAGES = ("langchain-aws",)
OVER = "urllib3"
WITHOUT: dict[str, str] = {}


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _chat() -> ChatBedrockConverse:
    return ChatBedrockConverse(
        model="amazon.nova-lite-v1:0", region_name="us-east-1", max_retries=1
    )


def plain(prompt: str) -> str:
    return _chat().invoke(prompt).content


async def gathered(prompts: list[str]) -> list[str]:
    chat = _chat()
    answers = await asyncio.gather(*(chat.ainvoke(prompt) for prompt in prompts))
    return [answer.content for answer in answers]


def stream(prompt: str) -> list[str]:
    return [chunk.text for chunk in _chat().stream(prompt)]


async def async_stream(prompt: str) -> list[str]:
    return [chunk.text async for chunk in _chat().astream(prompt)]


def tools(prompt: str) -> str:
    chat = _chat().bind_tools([weather])
    messages = [HumanMessage(prompt)]
    messages.append(chat.invoke(messages))
    messages.append(weather.invoke(messages[-1].tool_calls[0]))
    return chat.invoke(messages).content


def embeddings(text: str) -> list[float]:
    model = BedrockEmbeddings(model_id="amazon.titan-embed-text-v2:0", region_name="us-east-1")
    return model.embed_query(text)
