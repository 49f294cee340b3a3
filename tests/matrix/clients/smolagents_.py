"""smolagents with OpenAI."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from smolagents import ChatMessage, OpenAIModel, Tool, ToolCallingAgent

PACKAGE = "smolagents"
PACKAGES = ("smolagents[openai]",)
OVER = "httpx2"
WITHOUT = {"async_stream": "no async calls", "embeddings": "models and agents only"}


class Weather(Tool):
    name = "weather"
    description = "The weather in a city."
    inputs: ClassVar[dict[str, Any]] = {"city": {"type": "string", "description": "The city."}}
    output_type = "string"

    def forward(self, city: str) -> str:
        return f"rain in {city}"


def _model() -> OpenAIModel:
    return OpenAIModel(model_id="gpt-4o-mini", client_kwargs={"max_retries": 0}, retry=False)


def _messages(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=[{"type": "text", "text": prompt}])]


def plain(prompt: str) -> str:
    return _model().generate(_messages(prompt)).content


def gathered(prompts: list[str]) -> list[str]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return [*pool.map(plain, prompts)]


def stream(prompt: str) -> list[str]:
    return [delta.content for delta in _model().generate_stream(_messages(prompt))]


def tools(prompt: str) -> str:
    agent = ToolCallingAgent([Weather()], _model(), max_steps=1, verbosity_level=0)
    return str(agent.run(prompt))
