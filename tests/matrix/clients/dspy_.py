"""DSPy, whose sockets no seam reaches: it calls a server that records and replays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy

PACKAGE = "dspy"
PACKAGES = ("dspy", "numpy")  # DSPy returns embeddings as arrays
OVER = "cassette_server"
PROVIDER = "openai"
WITHOUT: dict[str, str] = {}
base_url = ""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def _model(**more: Any) -> dspy.LM:
    return dspy.LM(
        "openai/gpt-4o-mini",
        api_base=base_url,
        api_key="sk-any",
        cache=False,
        num_retries=0,
        **more,
    )


def plain(prompt: str) -> str:
    return _model()(prompt)[0]


async def gathered(prompts: list[str]) -> list[str]:
    model = _model()
    return [texts[0] for texts in await asyncio.gather(*(model.acall(each) for each in prompts))]


def _streaming(**options: Any) -> Callable[..., Any]:
    dspy.configure(lm=_model())
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.Predict("question -> answer")
    return dspy.streamify(program, stream_listeners=[listener], **options)


def stream(prompt: str) -> list[str]:
    pieces = _streaming(async_streaming=False)(question=prompt)
    return [each.chunk for each in pieces if isinstance(each, dspy.streaming.StreamResponse)]


async def async_stream(prompt: str) -> list[str]:
    pieces = _streaming()(question=prompt)
    return [each.chunk async for each in pieces if isinstance(each, dspy.streaming.StreamResponse)]


def tools(prompt: str) -> str:
    model = _model()
    messages: list[Any] = [{"role": "user", "content": prompt}]
    call = model(messages=messages, tools=[TOOL])[0]["tool_calls"][0]
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    return model(messages=messages, tools=[TOOL])[0]


def embeddings(text: str) -> list[float]:
    embedder = dspy.Embedder(
        "openai/text-embedding-3-small", api_base=base_url, api_key="sk-any", caching=False
    )
    return [*embedder(text)]
