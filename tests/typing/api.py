"""The public API as users write it: read by mypy --strict and pyright strict, never run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from prometheus_client import Counter, Histogram

import ember
import ember.models as package
from ember import models as shorter
from ember.api import models
from ember.api.exceptions import (
    EmberError,
    ErrorType,
    ModelProviderError,
    ProviderAPIError,
)
from ember.api.models import (
    AsyncStream,
    ModelBinding,
    ModelRegistry,
    Models,
    Stream,
    UsageSummary,
)
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats


def the_same_function() -> str:
    response: ChatResponse = shorter("gpt-4", "Hi", temperature=0.2, top_k=3)
    cost: float = response.usage["cost"]
    tokens: int = response.usage["total_tokens"]
    message: dict[str, Any] = response.message
    registry = package.ModelRegistry()
    return f"{cost} {tokens} {message} {registry.total().cost_usd} {ember.__version__}"


def one_call() -> str:
    response: ChatResponse = models("gpt-4", "What is the capital of France?")
    text: str = response.text
    same: str = response.data
    return text + same + str(response)


def parameters() -> None:
    models("gpt-4", "Hi", temperature=0.9, max_tokens=20, stop=["\n"], seed=1, system="Be brief")
    models("gpt-4", "Hi", timeout=30, base_url="http://127.0.0.1/v1", api_key="sk")
    models("gpt-4", "Hi", timeout={"connect": 2, "total": 30}, extra_headers={"x-team": "a"})
    models("gpt-4", "Hi", tomorrows_parameter={"any": "thing"})
    given: dict[str, Any] = {"temperature": 0.2}
    models("gpt-4", "Hi", **given)


def prompts(image: bytes, path: Path) -> None:
    models("gpt-4", ["What's in this image?", image])
    models("gpt-4", ["What's in this image?", path, "https://example.com/a.png"])
    models("gpt-4", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    answer = models("gpt-4", "Hi")
    models("gpt-4", [{"role": "user", "content": "Hi"}, answer.message])


@dataclass
class City:
    name: str


class Trip(TypedDict):
    days: int


async def objects() -> None:
    city: City = models("gpt-4", "Hi", response_format=City).parsed
    trip: Trip = (await models.acall("gpt-4", "Hi", response_format=Trip)).parsed
    print(city.name, trip["days"])
    cities: list[City] = models("gpt-4", "Hi", response_format=list[City]).parsed
    bound: City = models.instance("gpt-4")("Hi", response_format=City).parsed
    print(cities[0].name, bound.name)
    schema = models("gpt-4", "Hi", response_format={"type": "object"})
    print(schema.parsed["name"], models("gpt-4", "Hi").parsed)


def tool(city: str) -> str:
    return city


def tools() -> None:
    models("gpt-4", "Hi", tools=[tool, {"name": "f", "parameters": {}}])
    for chunk in models.stream("gpt-4", "Hi", tools=[tool]):
        if chunk.tool_call is not None:
            print(chunk.tool_call.id, chunk.tool_call.arguments)


def reading(response: ChatResponse) -> None:
    usage: UsageStats = response.usage
    tokens: int = usage.prompt_tokens + usage.completion_tokens + usage.total_tokens
    print(usage["prompt_tokens"], tokens, f"${usage['cost']:.4f}")
    if math.isnan(usage.cost):
        print("no price")
    why: FinishReason | None = response.finish_reason
    if why == "tool_calls":
        calls: Sequence[ToolCall] = response.tool_calls
        print(calls[0].name, calls[0].arguments)
    headers: Mapping[str, str] = response.headers
    print(headers.get("x-ratelimit-remaining-requests"), response.request_id, response.raw)
    total: UsageStats | int = sum([usage, usage])
    print(total, dict(usage.as_dict()))


def binding() -> None:
    analyzer: ModelBinding = models.instance("claude-3-opus", temperature=0.2, max_tokens=500)
    review: ChatResponse = analyzer("Review this", max_tokens=2000)
    print(review.text)
    for chunk in analyzer.stream("Review this"):
        print(chunk.text)
    ask: Callable[[str], ChatResponse] = analyzer
    print([answer.text for answer in map(ask, ["One", "Two"])])


def streams() -> None:
    stream: Stream = models.stream("gpt-4", "Write a long story")
    for chunk in stream:
        piece: Chunk = chunk
        print(piece.text, end="")
    print(stream.text, stream.usage.cost, stream.response.finish_reason)
    with models.stream("gpt-4", "Hi") as left_early:
        print(next(left_early).text)
        left_early.close()


async def awaited() -> list[str]:
    responses = await asyncio.gather(*(models.acall("gpt-4", prompt) for prompt in ("a", "b")))
    stream: AsyncStream = models.astream("gpt-4", "Hi")
    async with stream:
        texts = [chunk.text async for chunk in stream]
    binding = models.instance("gpt-4")
    print((await binding.acall("Hi")).text)
    print([chunk.text async for chunk in binding.astream("Hi")])
    await stream.close()
    return texts + [response.text for response in responses]


def errors() -> None:
    try:
        models("gpt-4", "Hi")
    except ModelProviderError as e:
        print(f"Setup error: {e}")
    except ProviderAPIError as e:
        kind: ErrorType = e.error_type
        wait: float | None = e.retry_after
        again: bool = e.retryable
        if e.context.get("error_type") == "rate_limit" or kind == "overloaded":
            print(wait, again)
    except EmberError as e:
        print(e.context)


async def registry() -> None:
    metrics = {
        "model_invocations": Counter("llm_calls", "Total LLM calls", ["model"]),
        "invocation_duration": Histogram("llm_duration", "Call duration", ["model"]),
    }
    registry = ModelRegistry(metrics=metrics)
    response: ChatResponse = registry.invoke_model("gpt-4", "Hello")
    other: ChatResponse = await registry.invoke_model_async("gpt-4", "Hello", temperature=0.1)
    provider: BaseProvider = registry.get_model("gpt-4")
    summary: UsageSummary | None = registry.get_usage_summary("gpt-4")
    if summary:
        print(summary.request_count, summary.total_usage.total_tokens, summary.cost_usd)
        print(summary.unpriced_requests, response, other, provider)
    for chunk in registry.stream_model("gpt-4", "Hello"):
        print(chunk.text)


class Mine(BaseProvider):
    def __init__(self, api_key: str):
        super().__init__(api_key)

    def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
        return ChatResponse(
            data="Hello", usage=UsageStats(prompt_tokens=1, completion_tokens=len(prompt))
        )

    def _get_api_key_from_env(self) -> str | None:
        return None


register_provider("mine", Mine)
same_function: Models = models
