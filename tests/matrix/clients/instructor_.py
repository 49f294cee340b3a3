"""Instructor over OpenAI's package: each answer is a tool call that fills a class."""

from __future__ import annotations

import asyncio

import instructor
import openai
from pydantic import BaseModel

PACKAGE = "instructor"
PACKAGES = ("instructor",)
OVER = "httpx2"
WITHOUT = {"embeddings": "structured answers only"}


class Answer(BaseModel):
    text: str


def _asked(prompt: str) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {
        "model": "gpt-4o-mini",
        "messages": messages,
        "response_model": Answer,
        "max_retries": 0,
    }


def _client() -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(max_retries=0))


def _async_client() -> instructor.AsyncInstructor:
    return instructor.from_openai(openai.AsyncOpenAI(max_retries=0))


def plain(prompt: str) -> str:
    return _client().chat.completions.create(**_asked(prompt)).text


async def gathered(prompts: list[str]) -> list[str]:
    client = _async_client()
    calls = (client.chat.completions.create(**_asked(prompt)) for prompt in prompts)
    return [answer.text for answer in await asyncio.gather(*calls)]


def _new(texts: list[str]) -> list[str]:
    """Return what each partial answer adds to the previous one."""
    whole = [text or "" for text in texts]
    return [now.removeprefix(before) for before, now in zip(["", *whole], whole, strict=False)]


def stream(prompt: str) -> list[str]:
    return _new([each.text for each in _client().chat.completions.create_partial(**_asked(prompt))])


async def async_stream(prompt: str) -> list[str]:
    answers = _async_client().chat.completions.create_partial(**_asked(prompt))
    return _new([each.text async for each in answers])


def tools(prompt: str) -> str:
    return plain(prompt)
