"""Parse requests to models and their answers, whichever client sent them; pure.

Ember's own parsers read the traffic, so that a recording made through a vendor's SDK is understood
like one made through Ember.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from ember.exceptions import EmberError, ModelProviderError, ProviderAPIError
from ember.models.routing import built_in
from ember.models.schemas import ChatResponse, UsageStats
from ember.providers.arguments import Address
from ember.providers.call import Call
from ember.providers.provider import HTTPProvider, StreamedCall
from ember.providers.servers import SERVERS
from ember.transport.send import Response
from ember_testing.wires import WIRES, wire_of
from ember_testing.wires.body import as_bytes, headers_from_json
from ember_testing.wires.event_bodies import EventReader, as_server_sent
from ember_testing.wires.other_bodies import Content, read_content, text_of_pieces
from ember_testing.wires.vendors import (
    UNKNOWN,
    CallKind,
    call_kinds,
    host_and_path,
    is_vendor,
    price_table,
    vendor_at,
)

__all__ = [
    "COLUMNS",
    "CallFacts",
    "ModelRequest",
    "ParsedRow",
    "asks_model",
    "read_exchange",
    "read_pieces",
    "read_request",
    "read_response",
    "read_row",
]

# The model in a multipart form, which OpenAI's endpoints under /audio and /images take.
_MODEL_OF_FORM = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)')
_FORM_PATHS = ("/audio/transcriptions", "/audio/translations", "/images/edits")


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request to a model."""

    provider: str  # one of Ember's, a vendor of `data/vendors.json`, or `unknown`
    model: str  # its id on the wire
    stream: bool  # whether a streamed answer is requested
    body: Mapping[str, Any]
    # `openai`, `openai-responses`, `anthropic`, `google`, or another of `data/vendors.json`;
    # `other` if only the address is understood.
    api: str
    url: str

    @property
    def wire(self) -> str | None:
        """The API's wire format if Ember's client supports it, else None."""
        return self.api if self.api in WIRES else None

    @property
    def has_unknown_address(self) -> bool:
        """Whether the address belongs to none of Ember's providers."""
        return self.provider not in SERVERS

    @property
    def route(self) -> str:
        """The provider called, as in Ember's model names: `openai-responses` too.

        For an unknown address, it is the provider whose format the request has.
        """
        if self.provider in (UNKNOWN, "openai"):
            return self.api.removesuffix("-embeddings")
        return self.provider


class CallFacts(NamedTuple):
    """The columns of the table `calls` that are parsed; None for what is not reported."""

    provider: str
    model: str  # the one that the answer reports, else the requested one
    prompt_tokens: int | None = None  # all input tokens
    completion_tokens: int | None = None  # all billed output tokens
    cost_usd: float | None = None
    text: str | None = None


COLUMNS = CallFacts._fields


def asks_model(url: str) -> bool:
    """Return whether a request to this URL may be one to a model."""
    host, path = host_and_path(url)
    return bool(call_kinds(vendor_at(host, path), path))


def read_request(url: str, body: bytes) -> ModelRequest | None:
    """Parse a request to a model; return None for any other request."""
    host, path = host_and_path(url)
    vendor = vendor_at(host, path)
    kinds = call_kinds(vendor, path)
    if not kinds and vendor == UNKNOWN:
        return None
    try:
        loaded: object = json.loads(body) if body else {}
    except ValueError:
        if path.endswith(_FORM_PATHS) and (model := _MODEL_OF_FORM.search(body)):
            return ModelRequest(
                vendor, model[1].decode("utf-8", "replace"), False, {}, "other", url
            )
        return None
    if not isinstance(loaded, Mapping):
        return None
    fields = cast(Mapping[str, Any], loaded)
    kind = next((each for each in kinds if _is_of(each, fields)), None)
    if kind is None and (vendor == UNKNOWN or not isinstance(fields.get("model"), str)):
        return None
    return _model_request(vendor, kind or CallKind("other"), fields, url)


def _is_of(kind: CallKind, body: Mapping[str, Any]) -> bool:
    """Return whether a body has the keys that a call of this kind needs."""
    return all(
        any(name in body or (name == "model" and kind.model) for name in names)
        for names in kind.needs
    )


def _model_request(vendor: str, kind: CallKind, body: Mapping[str, Any], url: str) -> ModelRequest:
    api, model = kind.api, kind.model
    own = body.get("model") or body.get("model_id") or body.get("version")
    if not model and isinstance(own, str):
        model = own
    stream = kind.stream or bool(body.get("stream", api == "ollama"))
    if api == "bedrock-invoke" and "anthropic_version" in body:
        api = "anthropic"
    if api in ("converse", "anthropic", "bedrock-invoke") and model.startswith("arn:"):
        model = model.rpartition("/")[2]  # an ARN contains the account number
    seller, slash, name = model.partition("/")
    if vendor == "cloudflare" and slash and "/compat/" in url and is_vendor(seller):
        vendor, model = seller, name
    return ModelRequest(vendor, model, stream, body, api, url)


def read_exchange(
    request: ModelRequest, status: int, headers: Mapping[str, str], body: bytes
) -> CallFacts:
    """Parse a provider's answer, even if it is an error or incomplete.

    Args:
        request: The parsed request.
        status: The answer's status.
        headers: The answer's headers.
        body: The answer's body without content encoding; of a stream, what has arrived.
    """
    try:
        response, (prompt_known, completion_known) = _parse(request, status, _lower(headers), body)
    except EmberError as error:
        partial = error.context.get("partial_text") if isinstance(error, ProviderAPIError) else None
        return CallFacts(request.provider, request.model, text=partial)
    usage = response.usage
    return CallFacts(
        request.provider,
        response.model,
        usage.prompt_tokens if prompt_known else None,
        usage.completion_tokens if completion_known else None,
        None if math.isnan(usage.cost) else usage.cost,
        response.text,
    )


def read_response(
    request: ModelRequest, status: int, headers: Mapping[str, str], body: bytes
) -> ChatResponse:
    """Do the same as `read_exchange`, for the whole answer.

    Raises:
        EmberError: The answer is an error, or malformed.
    """
    return _parse(request, status, _lower(headers), body)[0]


def _parse(
    request: ModelRequest, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[ChatResponse, tuple[bool, bool]]:
    """Return the answer, and whether it reports input and output tokens."""
    if request.wire is None:
        if status >= 400:
            raise ModelProviderError(f"{request.provider} answered with status {status}")
        return _other_response(request, read_content(headers, body))
    provider, call = _provider(request), _call(request)
    if (events := as_server_sent(headers, body)) is not None:
        body = events
    try:
        response = provider.answer(call, Response(status, headers, body))
    except ProviderAPIError as error:
        # Some vendors accept requests in a known format, but answer in their own.
        content = read_content(headers, body)
        if error.error_type != "bad_response" or not all(content.counted):
            raise
        return _other_response(request, content)
    is_counted = bool(response.usage.total_tokens)
    return response, (is_counted, is_counted)


def _other_response(
    request: ModelRequest, content: Content
) -> tuple[ChatResponse, tuple[bool, bool]]:
    """Return the answer in a format that Ember's client does not support."""
    response = ChatResponse(
        content.text,
        (content.usage or UsageStats()).priced(_dollars(request, content)),
        content.model or request.model,
        request.provider,
        None,
        list(content.tool_calls),
        content.reasoning or None,
    )
    return response, content.counted


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _dollars(request: ModelRequest, content: Content) -> float:
    """Return the cost that the vendor reports, else that by the price tables; `nan` if unknown."""
    # Imported late: prices are read for the first cost.
    from ember.pricing.cost import Billing, cost

    # The counts of `other` include images and speech, which are priced separately.
    is_known = content.usage is not None and all(content.counted) and request.api != "other"
    if not is_known and content.reported_cost is None:
        return math.nan
    return cost(
        price_table(request.route),
        content.model or request.model,
        content.billed or content.usage or UsageStats(),
        billing=Billing(reported=content.reported_cost),
        requested_model=request.model,
        base_url=_address(request),
    )


def _provider(request: ModelRequest) -> HTTPProvider:
    """Return Ember's provider to parse the answer: the one called, if it has this wire format."""
    named = request.provider in SERVERS and wire_of(request.provider) == request.api
    return built_in(request.provider if named else request.api)


def _address(request: ModelRequest) -> str:
    """Return the base URL, which identifies the seller."""
    if request.provider == "huggingface" and ":" in request.model:
        return f"https://router.huggingface.co/{request.model.rpartition(':')[2]}"
    parts = urlsplit(request.url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _call(request: ModelRequest) -> Call:
    return Call(request.model, (), {}, request.stream, Address(_address(request)), None)


def read_pieces(
    request: ModelRequest, status: int, headers: Mapping[str, str], pieces: Sequence[bytes]
) -> list[str]:
    """Return the text and reasoning that each piece of a streamed answer completes."""
    lower = _lower(headers)
    if request.wire is None or EventReader(lower).framed:
        return text_of_pieces(lower, pieces)
    streamed = StreamedCall(_provider(request), _call(request))
    streamed.start(status, lower)
    texts: list[str] = []
    try:
        for piece in pieces:
            chunks = streamed.feed(piece)
            texts.append("".join(f"{chunk.reasoning}{chunk.text}" for chunk in chunks))
    except EmberError:  # an error in the stream, or not a stream: no more text follows
        pass
    return texts + [""] * (len(pieces) - len(texts))


class ParsedRow(NamedTuple):
    """The values parsed from one row."""

    columns: dict[str, Any]  # values for `COLUMNS`, None if unknown
    # Each charge (`pricing.cost.PriceQuery`) with its prices as JSON text.
    charges: Sequence[tuple[tuple[Any, ...], str]] = ()
    problem: str | None = None  # why the row could not be parsed


def read_row(row: Mapping[str, Any]) -> ParsedRow:
    """Parse one recorded call, without its charges.

    This takes as long as recording it, so it is done for all calls at the end of a session, or
    when one of them is accessed.

    Args:
        row: `method, url, request_body, status, response_headers, response_body` of the table
            `calls`.
    """
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    if row["status"] is None or row["method"] != "POST":
        return ParsedRow(columns)
    headers = dict(headers_from_json(row["response_headers"]))
    try:
        request = read_request(row["url"], as_bytes(row["request_body"] or b""))
        if request is not None:
            body = as_bytes(row["response_body"] or b"")
            columns = read_exchange(request, row["status"], headers, body)._asdict()
    except Exception as error:  # an answer of an unexpected shape is recorded anyway
        problem = f"usage and cost not read: {type(error).__name__}: {error}"
        return ParsedRow(columns, problem=problem)
    # JSON can escape a lone surrogate, which is not valid UTF-8 and which SQLite rejects.
    for name, value in columns.items():
        if isinstance(value, str):
            columns[name] = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return ParsedRow(columns)
