"""What a request and its answer say, by whatever client they were sent; pure.

Ember's own parsers read the traffic, so that a recording made through a vendor's SDK is understood
as one of Ember's is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from ember.exceptions import EmberError, ProviderAPIError
from ember.models.routing import built_in
from ember.models.schemas import ChatResponse
from ember.providers.call import Address, Call
from ember.providers.provider import StreamedCall
from ember.providers.servers import SELLERS
from ember.transport.send import Reply
from ember_testing.wires.body import as_bytes, headers_from_json

__all__ = [
    "COLUMNS",
    "Asked",
    "Read",
    "Reading",
    "asks_model",
    "read_exchange",
    "read_pieces",
    "read_request",
    "read_response",
    "read_row",
    "sets_prices",
]

# What is read of a recorded call, as it stands in the table `calls`.
COLUMNS = ("provider", "model", "prompt_tokens", "completion_tokens", "cost_usd", "text")

_GOOGLE_METHOD = re.compile(
    r"/(?P<model>[^/:]+):(?P<method>generateContent|streamGenerateContent)$"
)
_PATHS = (
    ("/chat/completions", "openai"),
    ("/responses", "openai-responses"),
    ("/messages", "anthropic"),
)
_ENDINGS = tuple(path for path, _ in _PATHS)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Args:
        provider: The provider's name in Ember.
        model: The model's id on the wire.
        stream: Whether the answer is to come in pieces.
        body: The request's JSON.
        guessed: Whether the address is no provider's own, and the wire alone told the provider.
    """

    provider: str
    model: str
    stream: bool
    body: Mapping[str, Any]
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What a recorded exchange says; None where it does not.

    Args:
        provider: The provider's name in Ember.
        model: The model as the answer reports it, else as it was asked for.
        prompt_tokens: All input tokens.
        completion_tokens: All billed output tokens.
        cost: US dollars.
        text: The answer's text.
    """

    provider: str
    model: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    text: str | None = None


def asks_model(url: str) -> bool:
    """Whether a request to this URL may ask something of a model."""
    path = urlsplit(url).path
    return path.endswith(_ENDINGS) or bool(_GOOGLE_METHOD.search(path))


def read_request(url: str, body: bytes) -> Asked | None:
    """What a request asks of a model, or None where it is no such request."""
    parts = urlsplit(url)
    try:
        loaded: object = json.loads(body) if body else {}
    except ValueError:
        return None
    if not isinstance(loaded, Mapping):
        return None
    asked = cast(Mapping[str, Any], loaded)
    if match := _GOOGLE_METHOD.search(parts.path):
        stream = match["method"] == "streamGenerateContent"
        guessed = parts.netloc not in SELLERS
        return Asked("google", match["model"], stream, asked, guessed)
    for path, wire in _PATHS:
        if parts.path.endswith(path):
            provider = _provider(parts.netloc, parts.path, wire)
            guessed = provider == wire and parts.netloc not in SELLERS
            model = str(asked.get("model") or "")
            return Asked(provider, model, bool(asked.get("stream")), asked, guessed)
    return None


def _provider(host: str, path: str, wire: str) -> str:
    if wire != "openai":
        return wire
    if "/deployments/" in path or host.endswith((".openai.azure.com", ".services.ai.azure.com")):
        return "azure"
    return SELLERS.get(host, wire)


def read_exchange(
    method: str,
    url: str,
    request_body: bytes,
    status: int,
    response_headers: Mapping[str, str],
    response_body: bytes,
) -> Reading | None:
    """What an exchange with a provider says, or None where it is not one.

    Args:
        method: The HTTP method.
        url: The whole URL.
        request_body: The request's body.
        status: The answer's status.
        response_headers: The answer's headers.
        response_body: The answer's body, content encoding removed; for a stream as much as came.
    """
    asked = read_request(url, request_body) if method == "POST" else None
    if asked is None:
        return None
    try:
        response = read_response(asked, status, response_headers, response_body)
    except ProviderAPIError as error:
        return Reading(asked.provider, asked.model, text=error.context.get("partial_text"))
    except EmberError:
        return Reading(asked.provider, asked.model)
    usage = response.usage
    counted = bool(usage.total_tokens)
    return Reading(
        asked.provider,
        response.model,
        usage.prompt_tokens if counted else None,
        usage.completion_tokens if counted else None,
        None if math.isnan(usage.cost) else usage.cost,
        response.text,
    )


def read_response(
    asked: Asked, status: int, headers: Mapping[str, str], body: bytes
) -> ChatResponse:
    """The answer to a request, as Ember's own client reads it.

    Args:
        asked: The request.
        status: The answer's status.
        headers: The answer's headers.
        body: The answer's body, content encoding removed.

    Raises:
        EmberError: It is an error, or not what the provider's wire says.
    """
    provider = built_in(asked.provider)
    lower = {name.lower(): value for name, value in headers.items()}
    return provider.answer(_call(asked), Reply(status, lower, body))


def _call(asked: Asked) -> Call:
    base_url = built_in(asked.provider).server.base_url
    return Call(asked.model, (), {}, asked.stream, Address(base_url), None)


def read_pieces(
    asked: Asked, status: int, headers: Mapping[str, str], pieces: Sequence[bytes]
) -> list[str]:
    """The text and reasoning that each piece of a streamed answer completes.

    Args:
        asked: The request.
        status: The answer's status.
        headers: The answer's headers.
        pieces: The answer's body, content encoding removed.
    """
    streamed = StreamedCall(built_in(asked.provider), _call(asked))
    streamed.start(status, {name.lower(): value for name, value in headers.items()})
    texts: list[str] = []
    try:
        for piece in pieces:
            chunks = streamed.feed(piece)
            texts.append("".join(f"{chunk.reasoning}{chunk.text}" for chunk in chunks))
    except EmberError:  # the stream reports an error, or is no stream: no more text comes
        pass
    return texts + [""] * (len(pieces) - len(texts))


class Read(NamedTuple):
    """What one row says.

    Args:
        columns: Values for `COLUMNS`, null where nothing is known.
        charges: What was charged (`pricing.cost.Charge`), with its prices as JSON text.
        problem: Why it could not be read, None if it could.
    """

    columns: dict[str, Any]
    charges: Sequence[tuple[tuple[Any, ...], str]] = ()
    problem: str | None = None


def read_row(row: Mapping[str, Any]) -> Read:
    """Read one recorded call, without what was charged.

    This takes as long as writing it down, so it is done for all calls of a session at its end, or
    when one of them is looked at.

    Args:
        row: `method, url, request_body, status, response_headers, response_body` of the table
            `calls`.
    """
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    if row["status"] is None:
        return Read(columns)
    try:
        reading = read_exchange(
            row["method"],
            row["url"],
            as_bytes(row["request_body"] or b""),
            row["status"],
            dict(headers_from_json(row["response_headers"])),
            as_bytes(row["response_body"] or b""),
        )
    except Exception as error:  # an answer of a shape that nobody foresaw is recorded all the same
        problem = f"usage and cost not read: {type(error).__name__}: {error}"
        return Read(columns, problem=problem)
    if reading is not None:
        columns.update(
            provider=reading.provider,
            model=reading.model,
            prompt_tokens=reading.prompt_tokens,
            completion_tokens=reading.completion_tokens,
            cost_usd=reading.cost,
            text=reading.text,
        )
    # A lone surrogate, which JSON can escape, is no UTF-8, and SQLite takes none.
    for name, value in columns.items():
        if isinstance(value, str):
            columns[name] = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return Read(columns)


@lru_cache(maxsize=16)
def sets_prices(variables: tuple[str, ...]) -> bool:
    """Whether variables of these names set prices.

    A test may do that for as long as it runs only, and so its calls are read at once.
    """
    return any(name.startswith(("EMBER_COST_", "EMBER_MODEL_COSTS_JSON")) for name in variables)
