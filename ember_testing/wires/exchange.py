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

from ember.exceptions import EmberError, ModelProviderError, ProviderAPIError
from ember.models.routing import built_in
from ember.models.schemas import ChatResponse, UsageStats
from ember.providers.call import Address, Call
from ember.providers.provider import HTTPProvider, StreamedCall
from ember.providers.servers import SERVERS
from ember.transport.send import Reply
from ember_testing.wires import WIRES, wire_of
from ember_testing.wires.body import as_bytes, headers_from_json
from ember_testing.wires.event_bodies import EventReader, as_server_sent
from ember_testing.wires.other_bodies import Content, read_content, text_of_pieces
from ember_testing.wires.vendors import (
    UNKNOWN,
    Kind,
    host_and_path,
    is_vendor,
    kinds_at,
    price_table,
    vendor_at,
)

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

# Of the models that OpenAI has behind /audio and /images, which are asked by a form.
_MODEL_OF_FORM = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)')
_FORM_PATHS = ("/audio/transcriptions", "/audio/translations", "/images/edits")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Args:
        provider: Who is called: a provider of Ember's, a vendor of `data/vendors.json`, or
            `unknown`.
        model: The model's id on the wire.
        stream: Whether the answer is to come in pieces.
        body: The request's JSON.
        form: In whose words it is asked: `openai`, `openai-responses`, `anthropic`, `google`, or
            another of `data/vendors.json`; `other` where the address alone says something.
        url: Where the request goes.
    """

    provider: str
    model: str
    stream: bool
    body: Mapping[str, Any]
    form: str
    url: str = ""

    @property
    def wire(self) -> str | None:
        """The wire of Ember's that it is asked in, None where Ember's client speaks no such one."""
        return self.form if self.form in WIRES else None

    @property
    def is_guessed(self) -> bool:
        """Whether the address is that of no provider of Ember's."""
        return self.provider not in SERVERS

    @property
    def route(self) -> str:
        """Who is called, as a model's name in Ember says it: `openai-responses` too.

        Where nobody knows the address it is the provider whose words are spoken.
        """
        if self.provider in (UNKNOWN, "openai"):
            return self.form.removesuffix("-embeddings")
        return self.provider


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
    host, path = host_and_path(url)
    return bool(kinds_at(vendor_at(host, path), path))


def read_request(url: str, body: bytes) -> Asked | None:
    """What a request asks of a model, or None where it is no such request."""
    host, path = host_and_path(url)
    vendor = vendor_at(host, path)
    kinds = kinds_at(vendor, path)
    if not kinds and vendor == UNKNOWN:
        return None
    try:
        loaded: object = json.loads(body) if body else {}
    except ValueError:
        if path.endswith(_FORM_PATHS) and (model := _MODEL_OF_FORM.search(body)):
            return Asked(vendor, model[1].decode("utf-8", "replace"), False, {}, "other", url)
        return None
    if not isinstance(loaded, Mapping):
        return None
    asked = cast(Mapping[str, Any], loaded)
    kind = next((each for each in kinds if _is_of(each, asked)), None)
    if kind is None and (vendor == UNKNOWN or not isinstance(asked.get("model"), str)):
        return None
    return _asked(vendor, kind or Kind("other"), asked, url)


def _is_of(kind: Kind, body: Mapping[str, Any]) -> bool:
    """Whether a body has the keys that a call of this kind needs."""
    return all(
        any(name in body or (name == "model" and kind.model) for name in names)
        for names in kind.needs
    )


def _asked(vendor: str, kind: Kind, body: Mapping[str, Any], url: str) -> Asked:
    form, model = kind.form, kind.model
    own = body.get("model") or body.get("model_id") or body.get("version")
    if not model and isinstance(own, str):
        model = own
    stream = kind.stream or bool(body.get("stream", form == "ollama"))
    if form == "bedrock-invoke" and "anthropic_version" in body:
        form = "anthropic"
    if form in ("converse", "anthropic", "bedrock-invoke") and model.startswith("arn:"):
        model = model.rpartition("/")[2]  # an ARN holds the account's number
    seller, slash, name = model.partition("/")
    if vendor == "cloudflare" and slash and "/compat/" in url and is_vendor(seller):
        vendor, model = seller, name
    return Asked(vendor, model, stream, body, form, url)


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
    if asked.wire is None:
        return _other_reading(asked, status, _lower(response_headers), response_body)
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
    """The answer to a request; in the words of Ember's wires, as Ember's own client reads it.

    Args:
        asked: The request.
        status: The answer's status.
        headers: The answer's headers.
        body: The answer's body, content encoding removed.

    Raises:
        EmberError: It is an error, or not what the provider's wire says.
    """
    lower = _lower(headers)
    if asked.wire is None:
        if status >= 400:
            raise ModelProviderError(f"{asked.provider} answered with status {status}")
        content = read_content(lower, body)
        return content.response(asked.provider, asked.model, _dollars(asked, content))
    provider, call = _provider(asked), _call(asked)
    if (events := as_server_sent(lower, body)) is not None:
        body = events
    try:
        return provider.answer(call, Reply(status, lower, body))
    except ProviderAPIError as error:
        # Some vendors speak a wire's requests, and answer in words of their own.
        content = read_content(lower, body)
        if error.error_type != "bad_response" or not all(content.counted):
            raise
        return content.response(asked.provider, asked.model, _dollars(asked, content))


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _other_reading(asked: Asked, status: int, headers: Mapping[str, str], body: bytes) -> Reading:
    if status >= 400:
        return Reading(asked.provider, asked.model)
    content = read_content(headers, body)
    dollars, usage = _dollars(asked, content), content.usage or UsageStats()
    return Reading(
        asked.provider,
        content.model or asked.model,
        usage.prompt_tokens if content.counted[0] else None,
        usage.completion_tokens if content.counted[1] else None,
        None if math.isnan(dollars) else dollars,
        content.text,
    )


def _dollars(asked: Asked, content: Content) -> float:
    """The vendor's own figure, else the cost by the tables of prices; `nan` is unknown."""
    from ember.pricing.cost import Billing, cost  # late: prices are read at the first cost

    # What `other` counts are images and speech too, which have prices of their own.
    is_known = content.usage is not None and all(content.counted) and asked.form != "other"
    if not is_known and content.reported_cost is None:
        return math.nan
    return cost(
        price_table(asked.route),
        content.model or asked.model,
        content.billed or content.usage or UsageStats(),
        billing=Billing(reported=content.reported_cost),
        requested_model=asked.model,
        base_url=_address(asked),
    )


def _provider(asked: Asked) -> HTTPProvider:
    """Who reads the answer: the provider of Ember's that is called, where it speaks this wire."""
    named = asked.provider in SERVERS and wire_of(asked.provider) == asked.form
    return built_in(asked.provider if named else asked.form)


def _address(asked: Asked) -> str:
    """The base URL, which names the seller."""
    if asked.provider == "huggingface" and ":" in asked.model:
        return f"https://router.huggingface.co/{asked.model.rpartition(':')[2]}"
    parts = urlsplit(asked.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _call(asked: Asked) -> Call:
    return Call(asked.model, (), {}, asked.stream, Address(_address(asked)), None)


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
    lower = _lower(headers)
    if asked.wire is None or EventReader(lower).framed:
        return text_of_pieces(lower, pieces)
    streamed = StreamedCall(_provider(asked), _call(asked))
    streamed.start(status, lower)
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
