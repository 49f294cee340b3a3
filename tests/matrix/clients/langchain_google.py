"""LangChain with Google."""

from __future__ import annotations

from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings

from tests.matrix.langchain import Chat

PACKAGE = "langchain-google-genai"
PACKAGES = ("langchain-google-genai", "aiohttp")
OVER = "httpx2, aiohttp"
WITHOUT: dict[str, str] = {}
CHAT = Chat(lambda: ChatGoogleGenerativeAI(model="gemini-2.5-flash", max_retries=1))
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    return GoogleGenerativeAIEmbeddings(model="gemini-embedding-001").embed_query(text)
