"""Embedding responses and errors in each vendor's format; pure."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from ember_testing.wires import error_response
from ember_testing.wires.answer import Failure
from ember_testing.wires.body import Headers
from ember_testing.wires.events import dumps
from ember_testing.wires.parsing import ModelRequest
from ember_testing.wires.response import Response

__all__ = ["Embeddings", "as_embeddings", "embedding_error", "embedding_response", "inputs_of"]

_JSON: Headers = (("content-type", "application/json"),)
_AMAZON = {
    400: "ValidationException",
    401: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
# The names of the request field for the length of the vectors.
_DIMENSIONS = ("dimensions", "output_dimension", "outputDimensionality", "output_dimensionality")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A fake model's answer to a call for embeddings.

    Args:
        vectors: One for each input, or one for all of them. None generates unit vectors: equal
            for equal inputs, different for different ones.
        dimensions: Numbers in a generated vector, if the request does not set it.

    Raises:
        ValueError: A vector is empty, or `dimensions` is not positive.
    """

    vectors: Sequence[Sequence[float]] | None = None
    dimensions: int = 1536

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"dimensions={self.dimensions!r}: expected a positive number")
        if self.vectors is not None and not (self.vectors and all(self.vectors)):
            raise ValueError(f"vectors={self.vectors!r}: expected lists of numbers, none empty")


def as_embeddings(value: object) -> Embeddings | None:
    """Convert a test's vectors: one, a list of them, `Embeddings`; None for anything else."""
    if isinstance(value, Embeddings):
        return value
    if not isinstance(value, (list, tuple)) or not value:
        return None
    items = cast("Sequence[Any]", value)
    if all(map(_is_number, items)):
        return Embeddings([items])
    return Embeddings(items) if all(map(_is_vector, items)) else None


def _is_vector(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(map(_is_number, cast("Sequence[object]", value)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def inputs_of(request: ModelRequest) -> Sequence[object] | None:
    """Return the inputs to embed, or None if the request asks for something else."""
    body = request.body
    if request.api == "google-embeddings":
        requests = body.get("requests")
        return [each.get("content") for each in requests] if requests else [body.get("content")]
    if request.api == "vertex-predict":
        instances = [each for each in body.get("instances", ()) if "content" in each]
        return [each["content"] for each in instances] or None
    if request.api == "bedrock-invoke":
        return [body["inputText"]] if "embed" in request.model and "inputText" in body else (
            body.get("texts")
        )  # fmt: skip
    if not request.api.endswith("-embeddings"):
        return None
    names = ("input", "prompt", "texts", "inputs", "images")
    given: Any = next((body[name] for name in names if name in body), ())
    # A list of numbers is one text as token ids.
    return [given] if isinstance(given, str) or all(map(_is_number, given)) else given


def embedding_response(
    request: ModelRequest,
    inputs: Sequence[object],
    embeddings: Embeddings,
    tokens: int,
    number: int,
) -> Response:
    """Return the response with the vectors.

    Args:
        request: The parsed request.
        inputs: The inputs to embed, as of `inputs_of`.
        embeddings: The vectors.
        tokens: Number of input tokens, for formats that report it.
        number: Number of the call, for the ids.

    Raises:
        ValueError: The numbers of vectors and inputs differ, or this kind of vector is not faked.
    """
    vectors = embeddings.vectors or [_vector_of(each, request.body, embeddings) for each in inputs]
    if len(vectors) == 1:
        vectors = [*vectors] * len(inputs)
    if len(vectors) != len(inputs):
        raise ValueError(f"{len(vectors)} vectors for {len(inputs)} inputs: give one for each")
    write = _BODIES[request.api]
    return Response(200, _JSON, (dumps(write(request, vectors, tokens, number)),))


def embedding_error(request: ModelRequest, failure: Failure) -> Response:
    """Return a provider's error in the format of the vendor's embedding calls."""
    if request.api in ("openai-embeddings", "google-embeddings", "vertex-predict"):
        return error_response("openai" if request.api == "openai-embeddings" else "google", failure)
    status, _, _, message = failure.on("openai")
    if request.api == "ollama-embeddings":
        return Response(status, _JSON, (dumps({"error": message}),))
    headers = _JSON
    if request.api == "bedrock-invoke":
        headers += (("x-amzn-errortype", _AMAZON.get(status, "InternalServerException")),)
    if failure.retry_after is not None:
        headers += (("retry-after", f"{failure.retry_after:g}"),)
    return Response(status, headers, (dumps({"message": message}),))


def _vector_of(content: object, body: Mapping[str, Any], embeddings: Embeddings) -> Sequence[float]:
    """Return a unit vector that is computed from the input's digest."""
    dimensions = [body.get(name) for name in _DIMENSIONS]
    for first in body.get("requests", ())[:1]:
        dimensions += [first.get(name) for name in _DIMENSIONS]
    count = next((each for each in dimensions if isinstance(each, int) and each > 0), None)
    count = count or embeddings.dimensions
    digest = hashlib.shake_256(dumps(content)).digest(4 * count)
    numbers = [value / 2**31 for value in struct.unpack(f">{count}i", digest)]
    length = math.sqrt(sum(value * value for value in numbers)) or 1.0
    return [value / length for value in numbers]


def _in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


# --- the vendors' bodies -------------------------------------------------------------------------

_Vectors = Sequence[Sequence[float]]


def _openai(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    if request.url.partition("?")[0].endswith("/contextualizedembeddings"):
        raise ValueError("vectors of parts of documents are not faked: record such a call")
    encoded = request.body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _in_base64(each) if encoded else each}
        for index, each in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def _google(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    values = [{"values": each} for each in vectors]
    if urlsplit(request.url).path.endswith(":embedContent"):
        return {"embedding": values[0]}
    return {"embeddings": values}


def _vertex(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    counted = [tokens // len(vectors)] * len(vectors)
    counted[0] += tokens - sum(counted)
    return {
        "predictions": [
            {"embeddings": {"values": each, "statistics": {"token_count": n, "truncated": False}}}
            for each, n in zip(vectors, counted, strict=True)
        ]
    }


_COHERE_TYPES: Mapping[str, Callable[[Sequence[float]], Any]] = {
    "float": list,
    "base64": _in_base64,
    "int8": lambda vector: [round(max(-1.0, min(1.0, each)) * 127) for each in vector],
    "uint8": lambda vector: [round((max(-1.0, min(1.0, each)) + 1) * 127.5) for each in vector],
}


def _cohere(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    types = request.body.get("embedding_types")
    version = "2" if "/v2/" in request.url else "1"
    if types is None and version == "1":
        kind, found = "embeddings_floats", cast("Any", vectors)
    else:
        if unknown := [each for each in types or () if each not in _COHERE_TYPES]:
            raise ValueError(f"embedding_types={unknown!r} are not faked: record such a call")
        kind = "embeddings_by_type"
        found = {each: [*map(_COHERE_TYPES[each], vectors)] for each in types or ["float"]}
    return {
        "id": f"fake{number}",
        "response_type": kind,
        "embeddings": found,
        "texts": request.body.get("texts", []),
        "meta": {"api_version": {"version": version}, "billed_units": {"input_tokens": tokens}},
    }


def _ollama(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    if urlsplit(request.url).path.endswith("/embeddings"):
        return {"embedding": vectors[0]}
    counts = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": tokens}
    return {"model": request.model, "embeddings": vectors, **counts}


def _bedrock(request: ModelRequest, vectors: _Vectors, tokens: int, number: int) -> dict[str, Any]:
    if "inputText" not in request.body:
        return _cohere(request, vectors, tokens, number)
    return {"embedding": vectors[0], "inputTextTokenCount": tokens}


_BODIES: Mapping[str, Callable[[ModelRequest, _Vectors, int, int], dict[str, Any]]] = {
    "openai-embeddings": _openai,
    "google-embeddings": _google,
    "vertex-predict": _vertex,
    "cohere-embeddings": _cohere,
    "ollama-embeddings": _ollama,
    "bedrock-invoke": _bedrock,
}
