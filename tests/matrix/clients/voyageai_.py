"""Voyage's package."""

from __future__ import annotations

import asyncio

import voyageai

PACKAGE = "voyageai"
PACKAGES = ("voyageai",)
OVER = "urllib3, aiohttp"
ONLY = "embeddings only"
WITHOUT = {"plain": ONLY, "stream": ONLY, "async_stream": ONLY, "tools": ONLY, "gathered": ONLY}


def embeddings(text: str) -> list[float]:
    found = voyageai.Client(max_retries=0).embed([text], model="voyage-3.5")
    again = asyncio.run(voyageai.AsyncClient(max_retries=0).embed([text], model="voyage-3.5"))
    assert again.embeddings == found.embeddings
    return found.embeddings[0]
