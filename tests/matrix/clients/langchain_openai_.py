"""LangChain with OpenAI."""

from __future__ import annotations

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.matrix.langchain import Chat

PACKAGE = "langchain-openai"
PACKAGES = ("langchain-openai",)
OVER = "httpx2"
WITHOUT: dict[str, str] = {}
CHAT = Chat(lambda: ChatOpenAI(model="gpt-4o-mini", max_retries=0))
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    # Otherwise tiktoken fetches its vocabulary first.
    model = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
    return model.embed_query(text)
