"""LangChain with Bedrock."""

from __future__ import annotations

from langchain_aws import BedrockEmbeddings, ChatBedrockConverse

from tests.matrix.langchain import Chat

PACKAGE = "langchain-aws"
PACKAGES = ("langchain-aws",)
OVER = "urllib3"
WITHOUT: dict[str, str] = {}
REGION = "us-east-1"
CHAT = Chat(
    lambda: ChatBedrockConverse(model="amazon.nova-lite-v1:0", region_name=REGION, max_retries=1)
)
plain, gathered, stream = CHAT.plain, CHAT.gathered, CHAT.stream
async_stream, tools = CHAT.async_stream, CHAT.tools


def embeddings(text: str) -> list[float]:
    model = BedrockEmbeddings(model_id="amazon.titan-embed-text-v2:0", region_name=REGION)
    return model.embed_query(text)
