"""OpenAI's agents, which send traces to OpenAI besides the calls."""

from __future__ import annotations

import asyncio

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)
PACKAGE = "openai-agents"
PACKAGES = ("openai-agents",)
OVER = "httpx2"
MARKER = {"ignore": ["prompt_cache_key"]}  # random in each run
WITHOUT = {
    "stream": "awaited only",
    "embeddings": "models and agents only",
}


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def _agent() -> Agent:
    return Agent(name="Assistant", model="gpt-4o-mini", tools=[])


def plain(prompt: str) -> str:
    return Runner.run_sync(_agent(), prompt).final_output


async def gathered(prompts: list[str]) -> list[str]:
    agent = _agent()
    runs = await asyncio.gather(*(Runner.run(agent, prompt) for prompt in prompts))
    return [run.final_output for run in runs]


async def async_stream(prompt: str) -> list[str]:
    run = Runner.run_streamed(_agent(), prompt)
    return [
        event.data.delta
        async for event in run.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]


def tools(prompt: str) -> str:
    agent = Agent(name="Assistant", model="gpt-4o-mini", tools=[weather])
    return Runner.run_sync(agent, prompt).final_output
