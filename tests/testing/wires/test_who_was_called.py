"""Provider, model, tokens and cost of recorded calls, by the vendors' hosts and bodies."""

# ruff: noqa: E501 - a vendor's answer stands in a line or two of a table

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from click.testing import CliRunner

from ember_testing.cassettes.calls import Call, calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli import main, vcr

pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")

Recorded = Callable[..., Call]


@pytest.fixture
def recorded(path: Path, tmp_path: Path) -> Recorded:
    """A call as a cassette tells it, which was recorded elsewhere."""

    def record(
        url: str,
        body: Any,
        answer: Any,
        kind: str = "application/json",
        status: int = 200,
        **headers: str,
    ) -> Call:
        request = {"method": "POST", "uri": url, "body": json.dumps(body), "headers": {}}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        response = {
            "status": {"code": status, "message": ""},
            "headers": {"content-type": [kind]} | {k.replace("_", "-"): [v] for k, v in headers.items()},
            "body": {"base64_string": base64.b64encode(content).decode()},
        }  # fmt: skip
        source = tmp_path / "c.json"
        source.write_text(json.dumps([{"request": request, "response": response}]))
        vcr.import_file(source, path)
        with CassetteFile(path) as file:
            (call,) = calls_of(file)
        return call

    return record


def facts(call: Call) -> tuple[object, ...]:
    """Who was called, and what was counted."""
    return call.provider, call.model, call.prompt_tokens, call.completion_tokens


CHAT = {"model": "some-model", "messages": [{"role": "user", "content": "Hi"}]}
CHAT_ANSWER = {
    "object": "chat.completion",
    "model": "some-model-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}  # fmt: skip
MESSAGE_ANSWER = {
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
GOOGLE_ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Hello"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
    "modelVersion": "gemini-x",
}

OPENAI_SHAPED = {
    "https://api.openai.com/v1": "openai",
    "https://us.api.openai.com/v1": "openai",
    "https://mtls-eu.api.openai.com/v1": "openai",
    "https://oai.helicone.ai/v1": "openai",
    "https://corp.openai.azure.com/openai/deployments/mine": "azure",
    "https://corp.services.ai.azure.com/models": "azure",
    "https://corp.cognitiveservices.azure.com/openai/v1": "azure",
    "https://mistral-x.eastus2.models.ai.azure.com/v1": "azure",
    "https://corp.azure-api.net/openai/deployments/mine": "azure",
    "https://models.inference.ai.azure.com": "github",
    "https://models.github.ai/inference": "github",
    "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1": "bedrock",
    "https://bedrock-mantle.us-east-1.api.aws/v1": "bedrock",
    "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi": "vertex",
    "https://generativelanguage.googleapis.com/v1beta/openai": "google",
    "https://api.eu.mistral.ai/v1": "mistral",
    "https://codestral.mistral.ai/v1": "mistral",
    "https://api.groq.com/openai/v1": "groq",
    "https://api.deepseek.com": "deepseek",
    "https://api.x.ai/v1": "xai",
    "https://eu-west-1.api.x.ai/v1": "xai",
    "https://api.perplexity.ai": "perplexity",
    "https://api.fireworks.ai/inference/v1": "fireworks",
    "https://api.cerebras.ai/v1": "cerebras",
    "https://api.together.ai/v1": "together",
    "https://api-inference.together.ai/v1": "together",
    "https://openrouter.ai/api/v1": "openrouter",
    "https://router.huggingface.co/v1": "huggingface",
    "https://router.huggingface.co/groq/openai/v1": "huggingface",
    "https://abc.us-east-1.aws.endpoints.huggingface.cloud/v1": "huggingface",
    "https://ai-gateway.vercel.sh/v1": "vercel",
    "https://gateway.ai.cloudflare.com/v1/account/gateway/groq": "groq",
    "https://gateway.ai.cloudflare.com/v1/account/gateway/grok/v1": "xai",
    "https://gateway.ai.cloudflare.com/v1/account/gateway/compat": "cloudflare",
    "https://api.cloudflare.com/client/v4/accounts/a/ai/v1": "cloudflare",
    "https://dbc-1.cloud.databricks.com/serving-endpoints": "databricks",
    "https://adb-1.2.azuredatabricks.net/ai-gateway/mlflow/v1": "databricks",
    "https://api.ai21.com/studio/v1": "ai21",
    "https://api.portkey.ai/v1": "portkey",
    "https://ai-gateway.helicone.ai": "helicone",
    "https://api.doubleword.ai/v1": "doubleword",
    "https://api.deepinfra.com/v1/openai": "deepinfra",
    "https://integrate.api.nvidia.com/v1": "nvidia",
    "https://api.sambanova.ai/v1": "sambanova",
    "https://api.moonshot.cn/v1": "moonshotai",
    "https://dashscope-intl.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://org-account.snowflakecomputing.com/api/v2/cortex/v1": "snowflake",
    "http://localhost:11434/v1": "ollama",
    "http://ollama:11434/v1": "ollama",
    "http://gpu.example:11434/v1": "ollama",
    # Nobody knows who answers there, though each speaks OpenAI's words.
    "http://127.0.0.1:4000/v1": "unknown",
    "https://llm.corp.example/v1": "unknown",
    "https://api.openai.com.evil.example/v1": "unknown",
    "https://litellm.internal": "unknown",
}  # fmt: skip


@pytest.mark.parametrize("base_url", OPENAI_SHAPED)
def test_the_host_names_the_provider_of_a_chat_completion(
    base_url: str, recorded: Recorded
) -> None:
    """A server that speaks OpenAI's words is called by its own name, or unknown; all is counted."""
    call = recorded(f"{base_url}/chat/completions", CHAT, CHAT_ANSWER)
    assert facts(call) == (OPENAI_SHAPED[base_url], "some-model-1", 10, 5)
    assert call.text == "Hello"


OTHER_SHAPED = {
    "https://api.anthropic.com/v1/messages": ("anthropic", MESSAGE_ANSWER),
    "https://anthropic.helicone.ai/v1/messages": ("anthropic", MESSAGE_ANSWER),
    "https://api.deepseek.com/anthropic/v1/messages": ("deepseek", MESSAGE_ANSWER),
    "https://corp.services.ai.azure.com/anthropic/v1/messages": ("azure", MESSAGE_ANSWER),
    "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages": ("bedrock", MESSAGE_ANSWER),
    "https://claude.googleapis.com/v1/messages": ("vertex", MESSAGE_ANSWER),
    "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-x:rawPredict": ("vertex", MESSAGE_ANSWER),
    "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-x/invoke": ("bedrock", MESSAGE_ANSWER),
    "https://proxy.corp.example/v1/messages": ("unknown", MESSAGE_ANSWER),
    "https://generativelanguage.googleapis.com/v1beta/models/gemini-x:generateContent": ("google", GOOGLE_ANSWER),
    "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/gemini-x:generateContent": ("vertex", GOOGLE_ANSWER),
    "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google/models/gemini-x:generateContent": ("vertex", GOOGLE_ANSWER),
    "https://gateway.ai.cloudflare.com/v1/a/g/google-ai-studio/v1/models/gemini-x:generateContent": ("google", GOOGLE_ANSWER),
    "http://127.0.0.1:1/v1beta/models/gemini-x:generateContent": ("unknown", GOOGLE_ANSWER),
}  # fmt: skip


@pytest.mark.parametrize("url", OTHER_SHAPED)
def test_the_host_names_the_provider_behind_the_other_wires(url: str, recorded: Recorded) -> None:
    """Anthropic's and Google's words are spoken by clouds, gateways and proxies too."""
    provider, answer = OTHER_SHAPED[url]
    body = {"messages": [], "anthropic_version": "x"} | (
        {"model": "m"} if url.endswith("messages") else {}
    )
    call = recorded(url, body, answer)
    model = "claude-x" if answer is MESSAGE_ANSWER else "gemini-x"
    assert (facts(call), call.text) == ((provider, model, 10, 5), "Hello")


def test_responses_api_belongs_to_its_provider(recorded: Recorded) -> None:
    """The Responses API is a way to call a provider, and no provider."""
    answer = {
        "object": "response", "model": "gpt-x", "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}],
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
    }  # fmt: skip
    for url, provider in {
        "https://api.openai.com/v1": "openai",
        "https://api.x.ai/v1": "xai",
    }.items():
        call = recorded(f"{url}/responses", {"model": "gpt-x", "input": "Hi"}, answer)
        assert (facts(call), call.text) == ((provider, "gpt-x", 10, 5), "Hello")


BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com/model"
BODIES: dict[str, tuple[str, Any, Any, tuple[Any, ...], str]] = {
    "cohere v2": (
        "https://api.cohere.com/v2/chat",
        {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Hi"}]},
        {"id": "1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
         "usage": {"billed_units": {"input_tokens": 1, "output_tokens": 2}, "tokens": {"input_tokens": 100.0, "output_tokens": 5.0}}},
        ("cohere", "command-a-03-2025", 100, 5), "Hello"),
    "cohere v1": (
        "https://api.cohere.ai/v1/chat", {"model": "command-r", "message": "Hi"},
        {"text": "Hello", "meta": {"tokens": {"input_tokens": 10, "output_tokens": 5}}},
        ("cohere", "command-r", 10, 5), "Hello"),
    "ollama generate": (
        "http://127.0.0.1:11434/api/generate", {"model": "m", "prompt": "Hi", "stream": False},
        {"model": "m", "response": "Hello", "done": True, "prompt_eval_count": 10, "eval_count": 5},
        ("ollama", "m", 10, 5), "Hello"),
    "ollama without a count": (
        "https://ollama.com/api/chat", {"model": "m", "messages": []},
        {"model": "m", "message": {"role": "assistant", "content": "Hello"}, "done": True, "eval_count": 5},
        ("ollama", "m", None, 5), "Hello"),
    "converse": (
        f"{BEDROCK}/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.amazon.nova-lite-v1%3A0/converse",
        {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
        {"output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn",
         "usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 90, "cacheWriteInputTokens": 7}},
        ("bedrock", "us.amazon.nova-lite-v1:0", 107, 5), "Hello"),
    "titan": (
        f"{BEDROCK}/amazon.titan-text-lite-v1/invoke", {"inputText": "Hi"},
        {"inputTextTokenCount": 10, "results": [{"tokenCount": 5, "outputText": "Hello"}]},
        ("bedrock", "amazon.titan-text-lite-v1", 10, 5), "Hello"),
    "llama on bedrock": (
        f"{BEDROCK}/meta.llama3-8b-instruct-v1:0/invoke", {"prompt": "Hi"},
        {"generation": "Hello", "prompt_token_count": 10, "generation_token_count": 5, "stop_reason": "stop"},
        ("bedrock", "meta.llama3-8b-instruct-v1:0", 10, 5), "Hello"),
    "vertex with mistral": (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/mistralai/models/codestral-2:rawPredict",
        {"model": "codestral-2", "messages": []}, CHAT_ANSWER | {"model": "codestral-2"},
        ("vertex", "codestral-2", 10, 5), "Hello"),
    "databricks": (
        "https://dbc-1.cloud.databricks.com/serving-endpoints/my-endpoint/invocations", {"messages": []},
        CHAT_ANSWER | {"model": "meta-llama-x"}, ("databricks", "meta-llama-x", 10, 5), "Hello"),
    "sagemaker": (
        "https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/my-endpoint/invocations", {"inputs": "Hi"},
        [{"generated_text": "Hello"}], ("sagemaker", "my-endpoint", None, None), "Hello"),
    "watsonx": (
        "https://us-south.ml.cloud.ibm.com/ml/v1/text/generation?version=2024", {"model_id": "ibm/granite", "input": "Hi"},
        {"model_id": "ibm/granite", "results": [{"generated_text": "Hello", "generated_token_count": 5, "input_token_count": 10}]},
        ("watsonx", "ibm/granite", 10, 5), "Hello"),
    "workers ai": (
        "https://api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct", {"prompt": "Hi"},
        {"result": {"response": "Hello", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}, "success": True},
        ("cloudflare", "@cf/meta/llama-3.1-8b-instruct", 10, 5), "Hello"),
    "cloudflare compat": (
        "https://gateway.ai.cloudflare.com/v1/a/g/compat/chat/completions", {"model": "openai/gpt-4o-mini", "messages": []},
        CHAT_ANSWER | {"model": "gpt-4o-mini"}, ("openai", "gpt-4o-mini", 10, 5), "Hello"),
    "replicate": (
        "https://api.replicate.com/v1/models/meta/llama-3/predictions", {"input": {"prompt": "Hi"}},
        {"model": "meta/llama-3", "output": ["Hel", "lo"], "metrics": {"input_token_count": 10, "output_token_count": 5}},
        ("replicate", "meta/llama-3", 10, 5), "Hello"),
    "tgi": (
        "http://gpu.example/generate", {"inputs": "Hi"},
        {"generated_text": "Hello", "details": {"generated_tokens": 5, "input_length": 10}},
        ("unknown", "", 10, 5), "Hello"),
    "hugging face": (
        "https://router.huggingface.co/hf-inference/models/org/name", {"inputs": "Hi"}, [{"generated_text": "Hello"}],
        ("huggingface", "org/name", None, None), "Hello"),
    "legacy completions": (
        "https://api.together.xyz/v1/completions", {"model": "m", "prompt": "Hi"},
        {"model": "m", "choices": [{"text": "Hello"}], "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
        ("together", "m", 10, 5), "Hello"),
    "azure's cohere": (
        "https://cohere-x.eastus.models.ai.azure.com/v1/chat", {"message": "Hi"},
        {"text": "Hello", "meta": {"billed_units": {"input_tokens": 10, "output_tokens": 5}}},
        ("azure", "", 10, 5), "Hello"),
    "moderations": (
        "https://api.openai.com/v1/moderations", {"model": "omni-moderation-latest", "input": "Hi"},
        {"model": "omni-moderation-2024", "results": [{"flagged": False}]},
        ("openai", "omni-moderation-2024", None, None), ""),
    "rerank": (
        "https://api.voyageai.com/v1/rerank", {"model": "rerank-2", "query": "q", "documents": ["a"]},
        {"object": "list", "model": "rerank-2", "data": [{"index": 0, "relevance_score": 0.4}], "usage": {"total_tokens": 10}},
        ("voyage", "rerank-2", 10, None), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_other_wires_are_read(name: str, recorded: Recorded) -> None:
    """Provider, model, tokens and text stand where each vendor puts them; what is absent is None."""
    url, body, answer, expected, text = BODIES[name]
    call = recorded(url, body, answer)
    assert (facts(call), call.text) == (expected, text)


def vectors(*lengths: int) -> list[list[float]]:
    """Vectors of these lengths."""
    return [[0.5] * length for length in lengths]


EMBEDDINGS: dict[str, tuple[str, Any, Any, tuple[Any, ...], str]] = {
    "openai": (
        "https://api.openai.com/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"], "encoding_format": "base64"},
        {"model": "text-embedding-3-small", "data": [{"embedding": base64.b64encode(bytes(12)).decode()}] * 2, "usage": {"prompt_tokens": 10, "total_tokens": 10}},
        ("openai", "text-embedding-3-small", 10, 0), "2 vectors of 3 numbers"),
    "azure": (
        "https://corp.openai.azure.com/openai/deployments/mine/embeddings?api-version=1", {"input": "a"},
        {"model": "text-embedding-3-small", "data": [{"embedding": [0.5] * 3}], "usage": {"prompt_tokens": 10, "total_tokens": 10}},
        ("azure", "text-embedding-3-small", 10, 0), "1 vector of 3 numbers"),
    "google": (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents", {"requests": []},
        {"embeddings": [{"values": each} for each in vectors(3, 3)]}, ("google", "gemini-embedding-001", None, 0), "2 vectors of 3 numbers"),
    "google, one": (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:embedContent", {"content": {}},
        {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 10}}, ("google", "gemini-embedding-001", 10, 0), "1 vector of 1 numbers"),
    "vertex": (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-001:predict",
        {"instances": [{"content": "a"}]},
        {"predictions": [{"embeddings": {"values": each, "statistics": {"token_count": 5}}} for each in vectors(3, 3)]},
        ("vertex", "gemini-embedding-001", 10, 0), "2 vectors of 3 numbers"),
    "cohere": (
        "https://api.cohere.com/v2/embed", {"model": "embed-v4.0", "texts": ["a"], "embedding_types": ["float"]},
        {"embeddings": {"float": vectors(3)}, "meta": {"billed_units": {"input_tokens": 10}}}, ("cohere", "embed-v4.0", 10, 0), "1 vector of 3 numbers"),
    "voyage": (
        "https://api.voyageai.com/v1/embeddings", {"model": "voyage-3", "input": ["a"]},
        {"model": "voyage-3", "data": [{"embedding": [0.5]}], "usage": {"total_tokens": 10}}, ("voyage", "voyage-3", 10, 0), "1 vector of 1 numbers"),
    "voyage, by mongodb": (
        "https://ai.mongodb.com/v1/contextualizedembeddings", {"model": "voyage-context-3", "inputs": [["a"]]},
        {"model": "voyage-context-3", "data": [{"data": [{"embedding": [0.5]}]}], "usage": {"total_tokens": 10}},
        ("voyage", "voyage-context-3", 10, 0), "1 vector of 1 numbers"),
    "jina": (
        "https://api.jina.ai/v1/embeddings", {"model": "jina-embeddings-v3", "input": ["a"]},
        {"model": "jina-embeddings-v3", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 10, "total_tokens": 10}},
        ("jina", "jina-embeddings-v3", 10, 0), "1 vector of 1 numbers"),
    "mistral": (
        "https://api.mistral.ai/v1/embeddings", {"model": "mistral-embed", "input": ["a"]},
        {"model": "mistral-embed", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}},
        ("mistral", "mistral-embed", 10, 0), "1 vector of 1 numbers"),
    "together": (
        "https://api.together.xyz/v1/embeddings", {"model": "BAAI/bge", "input": ["a"]}, {"model": "BAAI/bge", "data": [{"embedding": [0.5]}]},
        ("together", "BAAI/bge", None, 0), "1 vector of 1 numbers"),
    "ollama": (
        "http://localhost:11434/api/embed", {"model": "nomic", "input": ["a"]},
        {"model": "nomic", "embeddings": vectors(3), "prompt_eval_count": 10}, ("ollama", "nomic", 10, 0), "1 vector of 3 numbers"),
    "titan": (
        f"{BEDROCK}/amazon.titan-embed-text-v2:0/invoke", {"inputText": "a"}, {"embedding": [0.5] * 3, "inputTextTokenCount": 10},
        ("bedrock", "amazon.titan-embed-text-v2:0", 10, 0), "1 vector of 3 numbers"),
    "hugging face": (
        "https://router.huggingface.co/hf-inference/models/org/name/pipeline/feature-extraction", {"inputs": ["a"]}, vectors(3),
        ("huggingface", "org/name", None, 0), "1 vector of 3 numbers"),
    "databricks": (
        "https://dbc-1.cloud.databricks.com/serving-endpoints/bge/invocations", {"input": ["a"]},
        {"model": "bge", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 10}}, ("databricks", "bge", 10, 0), "1 vector of 1 numbers"),
    "unknown": (
        "http://tei.internal/v1/embeddings", {"model": "bge", "input": ["a"]},
        {"model": "bge", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 10}}, ("unknown", "bge", 10, 0), "1 vector of 1 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_are_read_on_every_wire(name: str, recorded: Recorded) -> None:
    """Who was asked, for how many vectors, and the input's tokens where the body counts them."""
    url, body, answer, expected, text = EMBEDDINGS[name]
    call = recorded(url, body, answer)
    assert (facts(call), call.text) == (expected, text)


PRICED = {
    "openai": 10 * 0.02, "azure": 10 * 0.02, "google, one": 10 * 0.15, "vertex": 10 * 0.15,
    "cohere": 10 * 0.12, "voyage": 10 * 0.06, "voyage, by mongodb": 10 * 0.18,
    "mistral": 10 * 0.1, "titan": 10 * 0.02, "ollama": None, "jina": None, "google": None,
}  # fmt: skip


@pytest.mark.parametrize("name", PRICED)
def test_embeddings_have_their_cost_where_prices_and_counts_are_known(
    name: str, recorded: Recorded
) -> None:
    """US dollars by the seller's own table; None, and not 0, where nobody can know."""
    url, body, answer, _, _ = EMBEDDINGS[name]
    expected = PRICED[name]
    cost = recorded(url, body, answer).cost
    if name == "ollama":  # on the caller's machine nobody bills
        assert cost == 0
    else:
        assert cost == (None if expected is None else pytest.approx(expected / 1e6))


def test_cohere_is_charged_for_billed_units(recorded: Recorded) -> None:
    """The tokens are those that the model has read; the money is for what Cohere bills."""
    url, body, answer, _, _ = BODIES["cohere v2"]
    assert recorded(url, body, answer).cost == pytest.approx((1 * 2.5 + 2 * 10) / 1e6)


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """A frame as AWS writes it: big-endian lengths, text headers, checksums."""
    head = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    before = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return before + struct.pack(">I", crc32(before))


def event_frame(name: str, value: Any) -> bytes:
    """An event of a stream of Bedrock's."""
    return frame(
        {":message-type": "event", ":event-type": name, ":content-type": "application/json"},
        json.dumps(value).encode(),
    )


def chunk_frame(value: Any) -> bytes:
    """Another vendor's event, wrapped by Bedrock."""
    return event_frame(
        "chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode(), "p": "ab"}
    )


def sse(*events: Any) -> bytes:
    """Server-sent events."""
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)


CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**MESSAGE_ANSWER, "content": [], "usage": {"input_tokens": 10, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 10, "outputTokenCount": 5}},
]  # fmt: skip
AWS_STREAM = "application/vnd.amazon.eventstream"
STREAMS: dict[str, tuple[str, Any, list[bytes], str, tuple[Any, ...]]] = {
    "converse": (
        f"{BEDROCK}/amazon.nova-lite-v1:0/converse-stream", {"messages": []},
        [event_frame("messageStart", {"role": "assistant"}),
         event_frame("contentBlockDelta", {"delta": {"text": "Hel"}, "contentBlockIndex": 0}),
         event_frame("contentBlockDelta", {"delta": {"text": "lo"}, "contentBlockIndex": 0}),
         event_frame("messageStop", {"stopReason": "end_turn"}),
         event_frame("metadata", {"usage": {"inputTokens": 10, "outputTokens": 5}})],
        AWS_STREAM, ("bedrock", "amazon.nova-lite-v1:0", 10, 5)),
    "claude on bedrock": (
        f"{BEDROCK}/anthropic.claude-x/invoke-with-response-stream", {"anthropic_version": "bedrock-2023-05-31", "messages": []},
        [chunk_frame(each) for each in CLAUDE_EVENTS], AWS_STREAM, ("bedrock", "claude-x", 10, 5)),
    "llama on bedrock": (
        f"{BEDROCK}/meta.llama3/invoke-with-response-stream", {"prompt": "Hi"},
        [chunk_frame({"generation": "Hel", "prompt_token_count": 10, "generation_token_count": 1}),
         chunk_frame({"generation": "lo", "prompt_token_count": None, "generation_token_count": 5})],
        AWS_STREAM, ("bedrock", "meta.llama3", 10, 5)),
    "sagemaker": (
        "https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/mine/invocations-response-stream", {"inputs": "Hi"},
        [frame({":event-type": "PayloadPart"}, sse({"token": {"text": "Hel"}})[:9]),
         frame({":event-type": "PayloadPart"}, sse({"token": {"text": "Hel"}})[9:] + sse({"token": {"text": "lo"}, "generated_text": "Hello", "details": {"generated_tokens": 5, "input_length": 10}}))],
        AWS_STREAM, ("sagemaker", "mine", 10, 5)),
    "ollama": (
        "http://localhost:11434/api/chat", {"model": "m", "messages": []},
        [b'{"model":"m","message":{"content":"Hel"},"done":false}\n{"model":"m","mess', b'age":{"content":"lo"},"done":false}\n',
         b'{"model":"m","message":{"content":""},"done":true,"prompt_eval_count":10,"eval_count":5}\n'],
        "application/x-ndjson", ("ollama", "m", 10, 5)),
    "cohere": (
        "https://api.cohere.com/v2/chat", {"model": "command-r", "messages": [], "stream": True},
        [sse({"type": "message-start"}), sse({"type": "content-delta", "delta": {"message": {"content": {"text": "Hel"}}}}),
         sse({"type": "content-delta", "delta": {"message": {"content": {"text": "lo"}}}}),
         sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 10, "output_tokens": 5}}}}) + b"data: [DONE]\n\n"],
        "text/event-stream", ("cohere", "command-r", 10, 5)),
    "workers ai": (
        "https://api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/meta/llama", {"prompt": "Hi", "stream": True},
        [sse({"response": "Hel"}), sse({"response": "lo", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}) + b"data: [DONE]\n\n"],
        "text/event-stream", ("cloudflare", "@cf/meta/llama", 10, 5)),
    "tgi": (
        "https://abc.endpoints.huggingface.cloud/generate_stream", {"inputs": "Hi"},
        [sse({"token": {"text": "Hel"}, "generated_text": None}), sse({"token": {"text": "lo"}, "generated_text": "Hello", "details": {"generated_tokens": 5, "input_length": 10}})],
        "text/event-stream", ("huggingface", "", 10, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_other_wires_are_read(name: str, recorded: Recorded) -> None:
    """Lines of JSON, events, and AWS's binary frames, which wrap other vendors' events."""
    url, body, pieces, kind, expected = STREAMS[name]
    call = recorded(url, body, b"".join(pieces), kind)
    assert (facts(call), call.text) == (expected, "Hello")


@pytest.mark.parametrize("name", STREAMS)
def test_stream_cut_anywhere_keeps_its_text(name: str, recorded: Recorded) -> None:
    """Who was called is known, and the text is as far as it came; no count is invented."""
    url, body, pieces, kind, expected = STREAMS[name]
    whole = b"".join(pieces)
    for end in range(0, len(whole), max(1, len(whole) // 6)):
        call = recorded(url, body, whole[:end], kind)
        assert call.provider == expected[0]
        assert "Hello".startswith(call.text or "")
        assert call.prompt_tokens in (None, 10)
        assert call.completion_tokens in (None, 1, 5)


def test_damaged_frames_take_linear_time(recorded: Recorded) -> None:
    """Lengths that lie, and headers that end too early, are read as far as they make sense."""
    url, body, pieces, kind, _ = STREAMS["converse"]
    first = pieces[0]
    for damaged in (
        b"\x00" * 64, b"\xff" * 64, first[:8] + b"\xff\xff\xff\xff" + first[12:],
        struct.pack(">III", 20, 4, 0) + b"\xff\xff\xff\xff" + b"\x00" * 4, b"\x00\x00\x00\x0c" * 9,
    ):  # fmt: skip
        assert recorded(url, body, damaged, kind).provider == "bedrock"


NOT_A_MODEL = {
    "https://forms.example/v1/forms/1/responses": {"answers": []},
    "https://api.openai.com/v1/threads/t/messages": {"role": "user", "content": "Hi"},
    "https://chat.example/rooms/1/messages": {"messages": ["Hi"]},
    "https://shop.example/api/generate": {"what": "label"},
    "https://shop.example/embeddings": {"page": 1},
    "https://api.openai.com/v1/files/f/content": {},
    "https://app.example/v1/rerank": {"order": []},
}


@pytest.mark.parametrize("url", NOT_A_MODEL)
def test_request_to_no_model_has_no_provider(url: str, recorded: Recorded) -> None:
    """A path that ends like a model's, with another body, is no call of a model."""
    assert facts(recorded(url, NOT_A_MODEL[url], {"ok": True})) == (None, None, None, None)


def test_an_error_tells_who_was_called(recorded: Recorded) -> None:
    """Provider and requested model are known of a refused call, and nothing was counted."""
    for name in ("converse", "cohere v2", "ollama generate"):
        url, body, _, expected, _ = BODIES[name]
        call = recorded(url, body, {"message": "too many"}, status=429)
        assert facts(call) == (*expected[:2], None, None)


def test_bedrocks_headers_count_what_the_body_does_not(recorded: Recorded) -> None:
    """A vendor's body without counts is counted by Bedrock itself."""
    call = recorded(
        f"{BEDROCK}/mistral.mistral-7b/invoke", {"prompt": "Hi"}, {"outputs": [{"text": "Hello"}]},
        x_amzn_bedrock_input_token_count="10", x_amzn_bedrock_output_token_count="5",
    )  # fmt: skip
    assert (facts(call), call.text) == (("bedrock", "mistral.mistral-7b", 10, 5), "Hello")


def test_commands_show_who_was_called(recorded: Recorded, path: Path, tmp_path: Path) -> None:
    """`list`, `stats`, `show` and `export` name the provider, model and answer; `html` is written."""
    url, body, pieces, kind, _ = STREAMS["converse"]
    recorded(url, body, b"".join(pieces), kind)
    for command, output in {
        ("stats", str(path)): ["bedrock/amazon.nova-lite-v1:0", "10"],
        ("list", str(path)): ["amazon.nova-lite-v1:0"],
        ("show", str(path)): ["bedrock/amazon.nova-lite-v1:0", "10 + 5 tokens", "assistant: Hello"],
        ("export", str(path)): ['"provider":"bedrock"', "Hello"],
        ("html", str(path), "-o", str(tmp_path / "report.html")): [],
    }.items():
        result = CliRunner().invoke(main, command, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        for text in output:
            assert text in result.output.replace('": "', '":"'), command


def test_a_transcript_of_an_embedding_is_short(recorded: Recorded, path: Path) -> None:
    """What was embedded is output, and of the vectors how many there are."""
    url, body, answer, _, _ = EMBEDDINGS["openai"]
    recorded(url, body, answer)
    output = CliRunner().invoke(main, ["show", str(path)]).output
    assert "assistant: 2 vectors of 3 numbers" in output
    assert "user: a\n    b\n" in output
    assert "AAAA" not in output


def test_tools_that_other_wires_ask_for_are_shown(recorded: Recorded, path: Path) -> None:
    """Converse's, Cohere's and Ollama's calls of tools, with their arguments."""
    call = {"name": "weather", "arguments": '{"city": "Paris"}'}
    for url, body, answer in (
        (f"{BEDROCK}/m/converse", {"messages": []}, {"output": {"message": {"content": [{"toolUse": {"toolUseId": "t", "name": "weather", "input": {"city": "Paris"}}}]}}}),
        ("https://api.cohere.com/v2/chat", {"model": "m", "messages": []}, {"message": {"tool_calls": [{"id": "t", "function": call}]}}),
        ("http://localhost:11434/api/chat", {"model": "m", "messages": []}, {"message": {"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]}}),
    ):  # fmt: skip
        recorded(url, body, answer)
        output = CliRunner().invoke(main, ["show", str(path)]).output
        assert 'tool call: weather({"city": "Paris"})' in output
