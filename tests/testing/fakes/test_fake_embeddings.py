"""Calls for embeddings, answered by fakes in the vendors' own formats."""

# ruff: noqa: E501 - a vendor's call stands in a line or two of a table

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import httpx
import pytest

from ember.models.schemas import UsageStats
from ember_testing import Embeddings, UnansweredCall, fake_model, fault_server
from ember_testing.faults import Fault, cut, rate_limit, reset
from tests.testing.chat import client

VECTORS = [[0.5, -0.25], [1.0, 0.0]]


def post(url: str, body: Any) -> httpx.Response:
    """Make one call with httpx."""
    with client() as sender:
        return sender.post(url, json=body)


OPENAI = "https://api.openai.com/v1/embeddings"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001"
VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/text-embedding-005"
BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com/model"
TWO = {"model": "m", "input": ["a", "b"]}
ENCODED = [base64.b64encode(struct.pack("<2f", *each)).decode() for each in VECTORS]
# URL, request, and how to find the vectors in the answer.
WIRES: dict[str, tuple[str, Any, Any]] = {
    "openai": (OPENAI, TWO, lambda body: [each["embedding"] for each in body["data"]]),
    "azure": (
        "https://corp.openai.azure.com/openai/deployments/m/embeddings?api-version=1", {"input": ["a", "b"]},
        lambda body: [each["embedding"] for each in body["data"]]),
    "voyage": ("https://api.voyageai.com/v1/embeddings", TWO, lambda body: [each["embedding"] for each in body["data"]]),
    "mistral": ("https://api.mistral.ai/v1/embeddings", TWO, lambda body: [each["embedding"] for each in body["data"]]),
    "unknown": ("https://tei.example/v1/embeddings", TWO, lambda body: [each["embedding"] for each in body["data"]]),
    "google": (
        f"{GOOGLE}:batchEmbedContents", {"requests": [{"content": {"parts": [{"text": text}]}} for text in "ab"]},
        lambda body: [each["values"] for each in body["embeddings"]]),
    "vertex": (
        f"{VERTEX}:predict", {"instances": [{"content": "a"}, {"content": "b"}]},
        lambda body: [each["embeddings"]["values"] for each in body["predictions"]]),
    "cohere v2": (
        "https://api.cohere.com/v2/embed", {"model": "m", "texts": ["a", "b"], "embedding_types": ["float"]},
        lambda body: body["embeddings"]["float"]),
    "cohere v1": ("https://api.cohere.com/v1/embed", {"model": "m", "texts": ["a", "b"]}, lambda body: body["embeddings"]),
    "ollama": ("http://localhost:11434/api/embed", TWO, lambda body: body["embeddings"]),
    "cohere on bedrock": (f"{BEDROCK}/cohere.embed-v4/invoke", {"texts": ["a", "b"]}, lambda body: body["embeddings"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRES)
def test_vectors_are_answered_in_each_vendors_format(name: str) -> None:
    """Each input gets a vector at the place where the vendor's packages read it."""
    url, body, vectors = WIRES[name]
    with fake_model("*", VECTORS) as fake:
        answer = post(url, body)
    assert answer.status_code == 200
    assert vectors(answer.json()) == VECTORS
    assert len(fake.calls) == 1
    assert fake.calls[0].prompt == "b"


ONE: dict[str, tuple[str, Any, Any]] = {
    "openai": (OPENAI, {"model": "m", "input": "a"}, lambda body: body["data"][0]["embedding"]),
    "openai, tokens": (OPENAI, {"model": "m", "input": [1, 2]}, lambda body: body["data"][0]["embedding"]),
    "google": (f"{GOOGLE}:embedContent", {"content": {"parts": [{"text": "a"}]}}, lambda body: body["embedding"]["values"]),
    "ollama": ("http://localhost:11434/api/embeddings", {"model": "m", "prompt": "a"}, lambda body: body["embedding"]),
    "titan": (f"{BEDROCK}/amazon.titan-embed-text-v2:0/invoke", {"inputText": "a"}, lambda body: body["embedding"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_input_gets_one_vector(name: str) -> None:
    """Older calls with a single text, and a text given as tokens, get one vector."""
    url, body, vector = ONE[name]
    with fake_model("*", [0.5, -0.25]):
        assert vector(post(url, body).json()) == [0.5, -0.25]


def test_vectors_are_base64_where_requested() -> None:
    """OpenAI's packages request base64 of little-endian 32-bit floats; Cohere has a type for it."""
    with fake_model("*", VECTORS, VECTORS) as fake:
        data = post(OPENAI, {**TWO, "encoding_format": "base64"}).json()["data"]
        assert [each["embedding"] for each in data] == ENCODED
        types = {"model": "m", "texts": ["a", "b"], "embedding_types": ["base64", "int8", "uint8"]}
        found = post("https://api.cohere.com/v2/embed", types).json()["embeddings"]
    assert found["base64"] == ENCODED
    assert found["int8"] == [[64, -32], [127, 0]]
    assert found["uint8"] == [[191, 96], [255, 128]]
    assert not fake.failures


def test_the_vendors_packages_read_the_vectors() -> None:
    """The packages of OpenAI, which decodes base64, and Google read the vectors unmodified."""
    openai = pytest.importorskip("openai")
    genai = pytest.importorskip("google.genai")
    with fake_model("text-embedding-3-small", VECTORS, usage=UsageStats(7, 0)) as fake:
        fake("gemini-embedding-001", VECTORS)
        answer = openai.OpenAI().embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        google = genai.Client()
        found = google.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert [each.embedding for each in answer.data] == VECTORS
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 7
    assert [each.values for each in found.embeddings] == VECTORS


def test_vectors_are_generated_where_none_are_given() -> None:
    """Equal inputs get equal unit vectors, different ones differ; the request sets dimensions."""
    with fake_model("*", Embeddings(dimensions=6), Embeddings()):
        data = post(OPENAI, {"model": "m", "input": ["a", "b", "a"]}).json()["data"]
        shorter = post(OPENAI, {"model": "m", "input": ["a"], "dimensions": 3}).json()["data"]
    first, second, third = (each["embedding"] for each in data)
    assert first == third != second
    assert len(first) == 6
    assert math.isclose(math.hypot(*first), 1)
    assert len(shorter[0]["embedding"]) == 3


def test_function_gets_the_embedding_call() -> None:
    """The function gets the call, as for a conversation."""
    with fake_model("*", lambda call: [[float(len(text))] for text in call.body["input"]]):
        data = post(OPENAI, {"model": "m", "input": ["a", "bbb"]}).json()["data"]
    assert [each["embedding"] for each in data] == [[1.0], [3.0]]


def test_names_and_patterns_choose_the_model() -> None:
    """Ids match with or without the provider, of any vendor, at an unknown host too."""
    with fake_model("cohere/embed-*", [1.0]) as fake:
        fake("openai/small", [2.0], [3.0])
        fake("voyage-3", [4.0])
        url, body, vectors = WIRES["cohere v2"]
        assert vectors(post(url, {**body, "model": "embed-v4.0"}).json())[0] == [1.0]
        for url, expected in ((OPENAI, 2.0), ("https://tei.example/v1/embeddings", 3.0)):
            answer = post(url, {"model": "small", "input": "a"}).json()
            assert answer["data"][0]["embedding"] == [expected]
        answer = post(WIRES["voyage"][0], {"model": "voyage-3", "input": "a"}).json()
        assert answer["data"][0]["embedding"] == [4.0]


ERRORS = {
    "openai": lambda body: body["error"]["message"],
    "google": lambda body: body["error"]["message"],
    "vertex": lambda body: body["error"]["message"],
    "cohere v2": lambda body: body["message"],
    "ollama": lambda body: body["error"],
    "cohere on bedrock": lambda body: body["message"],
}


@pytest.mark.parametrize("name", ERRORS)
def test_faults_have_the_vendors_status_and_error_body(name: str) -> None:
    """A fault has the vendor's status and error body; a retry gets the vectors."""
    url, body, vectors = WIRES[name]
    with fake_model("*", rate_limit(), VECTORS):
        failed = post(url, body)
        assert failed.status_code == 429
        assert "Rate limit" in ERRORS[name](failed.json())
        assert vectors(post(url, body).json()) == VECTORS


@pytest.mark.parametrize("fault", [reset(), cut()])
def test_connection_faults_apply_to_embeddings(fault: Fault) -> None:
    """Faults of the connection work for embeddings as for any call."""
    with fake_model("*", fault), pytest.raises(httpx.TransportError):
        post(OPENAI, TWO)


MISFITS: dict[str, tuple[str, Any, Any, str]] = {
    "text for vectors": (OPENAI, TWO, "Paris", "is no vector"),
    "vectors for text": (
        "https://api.openai.com/v1/chat/completions", {"model": "m", "messages": []}, VECTORS, "is no answer"),
    "too few": (OPENAI, {**TWO, "input": ["a", "b", "c"]}, VECTORS, "2 vectors for 3 inputs"),
    "a type that is not faked": (
        "https://api.cohere.com/v2/embed", {"model": "m", "texts": ["a"], "embedding_types": ["binary"]}, [1.0], "record"),
    "parts of documents": (
        "https://api.voyageai.com/v1/contextualizedembeddings", {"model": "m", "inputs": [["a"]]}, [1.0], "record"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_reply_of_the_wrong_type_fails_the_call_with_a_message(name: str) -> None:
    """The message names the given reply and the expected one."""
    url, body, given, message = MISFITS[name]
    with pytest.raises(UnansweredCall, match=message), fake_model("*", given):
        post(url, body)


@pytest.mark.parametrize("given", [[[]], object(), [[1.0], "a"], [True]])
def test_invalid_reply_is_refused_at_set_up(given: Any) -> None:
    """An invalid reply is refused before any call."""
    with fake_model() as fake, pytest.raises(TypeError, match="is no answer"):
        fake("*", given)


def test_empty_vectors_are_refused() -> None:
    """Empty vectors and a length of zero are refused."""
    for vectors, dimensions in (([[]], 1), ([], 1), (None, 0)):
        with pytest.raises(ValueError, match="expected"):
            Embeddings(vectors, dimensions)


UNANSWERABLE: dict[str, tuple[str, Any, str]] = {
    "converse": (f"{BEDROCK}/m/converse", {"messages": []}, "Bedrock's Converse"),
    "invoke": (f"{BEDROCK}/m/invoke", {"prompt": "Hi"}, "Bedrock's invoke_model"),
    "cohere": ("https://api.cohere.com/v2/chat", {"model": "m", "messages": []}, "Cohere's chat"),
    "ollama": ("http://localhost:11434/api/chat", {"model": "m", "messages": []}, "Ollama's native chat"),
    "rerank": ("https://api.voyageai.com/v1/rerank", {"model": "m", "query": "q", "documents": []}, "reranking"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNANSWERABLE)
def test_unanswered_embedding_call_suggests_a_recording(name: str) -> None:
    """In process and over the server, the error names the call and suggests a recording."""
    url, body, title = UNANSWERABLE[name]
    with pytest.raises(UnansweredCall) as caught, fake_model("*", "Paris"):
        post(url, body)
    assert title in str(caught.value)
    assert "record it" in str(caught.value)
    with fault_server() as server:
        path = "/" + url.split("/", 3)[3]
        refused = post(server.url + path, body)
    assert refused.status_code == 501
    assert title in refused.json()["error"]["message"]
    assert "record it" in refused.json()["error"]["message"]


def test_the_server_answers_embeddings_over_a_connection() -> None:
    """OpenAI's package waits for the rate limit of a `fault_server`, then gets the vectors."""
    openai = pytest.importorskip("openai")
    with fault_server() as server:
        server("text-embedding-3-small", rate_limit(retry_after=0.01), VECTORS)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as sender:
            answer = sender.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        nobody = post(f"{server.url}/v1/embeddings", {"model": "other", "input": "a"})
    assert [each.embedding for each in answer.data] == VECTORS
    assert (nobody.status_code, "other" in nobody.json()["error"]["message"]) == (501, True)
