"""Voyage's package."""

from __future__ import annotations

import asyncio

import voyageai

PACKAGE = "voyageai"
PACKAGES = ("voyageai",)
OVER = "urllib3, aiohttp"
WITHOUT = {
    "plain": "embeddings only",
    "gathered": "embeddings only",
    "stream": "embeddings only",
    "async_stream": "embeddings only",
    "tools": "embeddings only",
}


def embeddings(text: str) -> list[float]:
    found = voyageai.Client(max_retries=0).embed([text], model="voyage-3.5")
    again = asyncio.run(voyageai.AsyncClient(max_retries=0).embed([text], model="voyage-3.5"))
    assert again.embeddings == found.embeddings
    return found.embeddings[0]
