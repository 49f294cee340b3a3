"""The calls of a chat model of LangChain's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


class Chat:
    """The cells of such a model; `model` makes it anew for each."""

    def __init__(self, model: Callable[[], BaseChatModel]) -> None:
        self._model = model

    def plain(self, prompt: str) -> str:
        return self._model().invoke(prompt).content

    async def gathered(self, prompts: list[str]) -> list[str]:
        model = self._model()
        answers = await asyncio.gather(*(model.ainvoke(prompt) for prompt in prompts))
        return [answer.content for answer in answers]

    def stream(self, prompt: str) -> list[str]:
        return [chunk.text for chunk in self._model().stream(prompt)]

    async def async_stream(self, prompt: str) -> list[str]:
        return [chunk.text async for chunk in self._model().astream(prompt)]

    def tools(self, prompt: str) -> str:
        model = self._model().bind_tools([weather])
        messages = [HumanMessage(prompt)]
        messages.append(model.invoke(messages))
        messages.append(weather.invoke(messages[-1].tool_calls[0]))
        return model.invoke(messages).content
