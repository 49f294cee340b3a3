"""Replicate's package."""

from __future__ import annotations

import asyncio
from typing import Any

import replicate

PACKAGE = "replicate"
PACKAGES = ("replicate",)
OVER = "httpx"
WITHOUT = {"tools": "inputs and outputs only", "embeddings": "inputs and outputs only"}
MODEL = "meta/meta-llama-3-8b-instruct"


def _asked(prompt: str) -> dict[str, Any]:
    return {"input": {"prompt": prompt}}


def plain(prompt: str) -> str:
    return "".join(replicate.run(MODEL, **_asked(prompt)))


async def gathered(prompts: list[str]) -> list[str]:
    runs = await asyncio.gather(*(replicate.async_run(MODEL, **_asked(each)) for each in prompts))
    return ["".join(run) for run in runs]


def stream(prompt: str) -> list[str]:
    return [str(event) for event in replicate.stream(MODEL, **_asked(prompt))]


async def async_stream(prompt: str) -> list[str]:
    events = await replicate.async_stream(MODEL, **_asked(prompt))
    return [str(event) async for event in events]
