"""What every wire has in common: a call in, a request out; a body in, an answer out; pure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from ember.conversation.messages import Message, as_messages
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats
from ember.providers.arguments import as_address, as_headers, as_key
from ember.providers.json_values import request_id
from ember.providers.servers import Server, seller
from ember.transport.environment import without_user
from ember.transport.send import Request, Timeout

if TYPE_CHECKING:
    from ember.pricing.cost import Billing

__all__ = ["Answer", "Call", "StreamReader", "Wire"]


class Call(NamedTuple):
    """One call as the caller meant it, before it is put into a provider's words.

    Args:
        model: The model's id on the wire.
        messages: The conversation, `system=` as its first message.
        params: The other parameters that were given, in Ember's words.
        stream: Whether the answer is to come in pieces.
        base_url: Where to send it, without a slash at its end.
        key: The key, or None.
        timeout: How long to wait.
        extra_headers: Headers to send beside the wire's own.
    """

    model: str
    messages: Sequence[Message]
    params: Mapping[str, Any]
    stream: bool
    base_url: str
    key: str | None
    timeout: Timeout
    extra_headers: Mapping[str, str]


class Answer:
    """What a wire reads out of a provider's answer; the fields are those of `ChatResponse`.

    `usage` and `billing` are None where the provider did not count.
    """

    __slots__ = (
        "billing",
        "finish_reason",
        "message",
        "model",
        "reasoning",
        "refusal",
        "request_id",
        "text",
        "tool_calls",
        "usage",
    )

    def __init__(
        self,
        text: str = "",
        finish_reason: FinishReason | None = None,
        tool_calls: Sequence[ToolCall] = (),
        reasoning: str | None = None,
        refusal: str | None = None,
        model: str = "",
        request_id: str | None = None,
        message: Mapping[str, Any] | None = None,
    ) -> None:
        self.text = text
        self.finish_reason: FinishReason | None = finish_reason
        self.tool_calls = tool_calls
        self.reasoning = reasoning
        self.refusal = refusal
        self.model = model
        self.request_id = request_id
        self.message = message
        self.usage: UsageStats | None = None
        self.billing: Billing | None = None


class StreamReader(Protocol):
    """Reads the events of one stream, in one wire's words."""

    started: bool
    """Whether any event was one of this wire's."""
    complete: bool
    """Whether the wire's end marker has been seen."""
    ends_with_done: bool
    """Whether `[DONE]` is that marker."""
    failure: Mapping[str, Any] | None
    """The error that an event reported, where the event is not an error itself."""

    def read(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """What an event adds, or None where it adds neither text nor reasoning."""
        ...

    def answer(self) -> Answer:
        """All that was read so far."""
        ...


class Wire:
    """One wire format, spoken to one server.

    Args:
        server: Where, and with which differences.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    # --- what each wire says for itself ---

    def url(self, call: Call) -> str:
        """Where the call goes."""
        raise NotImplementedError

    def body(self, call: Call) -> dict[str, Any]:
        """The call as the wire's JSON."""
        raise NotImplementedError

    def headers(self, call: Call) -> dict[str, str]:
        """The wire's own headers, authentication included."""
        set_here = ((h, os.environ.get(name, "").strip()) for h, name in self.server.header_vars)
        headers = {header: value for header, value in set_here if value}
        if call.key is not None:
            auth = "authorization" if self.is_token(call.key) else self.server.auth_header
            headers[auth] = f"Bearer {call.key}" if auth == "authorization" else call.key
        return headers

    def is_token(self, key: str) -> bool:
        """Whether this is the environment's token, which is sent as one, and not a key."""
        name = self.server.token_var
        return bool(name) and os.environ.get(name, "").strip() == key

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """A whole answer; None where the body is none of this wire's."""
        raise NotImplementedError

    def stream_reader(self) -> StreamReader:
        """A reader for one stream's events."""
        raise NotImplementedError

    def for_call(self, model: str, params: Mapping[str, Any]) -> Wire:
        """The wire that serves a call with these parameters: this one, mostly."""
        return self

    # --- the same for all ---

    def call(
        self, prompt: object, model: str, kwargs: Mapping[str, Any], stream: bool = False
    ) -> Call:
        """The call that a caller's arguments mean.

        Raises:
            ModelProviderError: The key is missing, or an argument cannot be.
        """
        params = dict(kwargs)
        given_url = as_address(params.pop("base_url", None))
        key = as_key(params.pop("api_key", None)) or self.key()
        if bool(params.pop("stream", stream)) is not stream:
            raise ModelProviderError(
                "stream= is no parameter: models.stream() and models.astream() stream, and "
                "models() and models.acall() do not"
            )
        if key is None and self.server.key_required and given_url is None:
            raise ModelProviderError(
                f"no API key for {self.server.name}: set the environment variable "
                f"{' or '.join(self.server.key_vars)}, or pass api_key=",
                {"provider": self.server.name, "model": model},
            )
        timeout = _timeout(params.pop("timeout")) if "timeout" in params else _DEFAULT_TIMEOUT
        extra_headers = as_headers(params.pop("extra_headers", None) or _NOTHING)
        system = params.pop("system", None)
        messages = as_messages(prompt)
        if system is not None:
            messages = [*as_messages([{"role": "system", "content": system}]), *messages]
        return Call(
            model,
            messages,
            {name: value for name, value in params.items() if value is not None},
            stream,
            (given_url or self.base_url()).rstrip("/"),
            key,
            timeout,
            extra_headers,
        )

    def request(self, call: Call) -> Request:
        """The HTTP request that a call means.

        Raises:
            ModelProviderError: Something in it cannot be sent.
        """
        name = self.server.name
        headers = {"content-type": "application/json", **self.headers(call)}
        for header, value in call.extra_headers.items():
            headers[header.lower()] = value
        _check_headers(headers, name)
        content = _json(self.body(call), name)
        return Request(self.url(call), headers, content, call.timeout, name, call.model)

    def base_url(self) -> str:
        """The server's base URL: the environment's, else its own."""
        server = self.server
        for name in server.url_vars:
            if value := os.environ.get(name, "").strip().rstrip("/"):
                return value if value.endswith(server.url_suffix) else value + server.url_suffix
        if not server.base_url:
            raise ModelProviderError(
                f"no address for {server.name}: set the environment variable "
                f"{' or '.join(server.url_vars)}, or pass base_url=",
                {"provider": server.name},
            )
        return server.base_url

    def key(self) -> str | None:
        """The key that the environment holds."""
        for name in self.server.key_vars:
            if value := os.environ.get(name, "").strip():
                return value
        return None

    def response(
        self, call: Call, answer: Answer, headers: Mapping[str, str], raw: object
    ) -> ChatResponse:
        """The answer as the caller gets it, with its cost."""
        from ember.pricing import cost as pricing  # late: prices are read at the first cost

        name, model = self.server.name, answer.model or call.model
        usage = answer.usage or UsageStats()
        failure: ModelProviderError | None = None
        if answer.usage is not None:  # else nobody counted, and the cost stays unknown
            try:
                cost = pricing.cost(
                    seller(name, call.base_url),
                    model,
                    usage,
                    billing=answer.billing,
                    requested_model=call.model,
                    base_url=call.base_url,
                )
                usage = usage.priced(cost)
            except ModelProviderError as error:
                failure = error
        response = ChatResponse(
            answer.text,
            usage,
            model,
            name,
            answer.finish_reason,
            answer.tool_calls,
            answer.reasoning,
            answer.refusal,
            request_id(headers) or answer.request_id,
            headers,
            answer.message or {"role": "assistant", "content": answer.text},
            raw,
        )
        if failure is not None:
            failure.context["response"] = response  # it is paid for
            raise failure
        return response

    def error(
        self, call: Call, status: int, headers: Mapping[str, str], body: object, **facts: Any
    ) -> ProviderAPIError:
        """The error that the provider's answer means."""
        from ember.providers.error_mapping import api_error  # late: few programs meet one

        key_names = " or ".join((*self.server.key_vars[:1], "api_key="))
        name, keys = self.server.name, _keys(call)
        vendor = seller(name, call.base_url)
        return api_error(name, call.model, status, headers, body, keys, key_names, facts, vendor)

    def bad_response(
        self, call: Call, status: int, headers: Mapping[str, str], body: object, **facts: Any
    ) -> ProviderAPIError:
        """The error of an answer that is not of this wire."""
        from ember.providers.error_mapping import without_keys  # late: few programs meet one

        body = without_keys(body, _keys(call))
        shown = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        address = without_user(call.base_url)
        return ProviderAPIError(
            f"{self.server.name} ({call.model}): the answer with status {status} is not what this "
            f"provider sends: {shown[:200]!r}; is base_url= right ({address})?",
            {
                "error_type": "bad_response",
                "status_code": status,
                "provider": self.server.name,
                "model": call.model,
                "request_id": request_id(headers),
                "body": body,
                "phase": "read",
                **facts,
            },
        )


_NOTHING: Mapping[str, Any] = {}
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_DEFAULT_TIMEOUT = Timeout()
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _keys(call: Call) -> list[str]:
    """What must not come back in an error."""
    given = [v for name, v in call.extra_headers.items() if name.lower() in _KEY_HEADERS]
    return [call.key or "", *(value.removeprefix("Bearer ") for value in given)]


def _timeout(value: object) -> Timeout:
    """What a caller gave as `timeout`: seconds, a dict by phase, an httpx.Timeout, or None."""
    if value is None:
        return Timeout(None, None, None)
    if isinstance(value, Timeout):
        return value
    if isinstance(value, Mapping):
        by_phase = dict(cast("Mapping[str, object]", value))
        if unknown := by_phase.keys() - {"connect", "read", "total"}:
            raise ModelProviderError(
                f"timeout= has no {sorted(unknown)}; there are 'connect', 'read' and 'total'"
            )
        seconds = {name: _seconds(wait) for name, wait in by_phase.items()}
        return Timeout(**{"total": None, **seconds})
    if hasattr(value, "connect") and hasattr(value, "read"):  # an httpx.Timeout
        phases = cast("Any", value)
        return Timeout(_seconds(phases.connect), _seconds(phases.read), None)
    wait = _seconds(value)
    return Timeout(wait, wait, wait)


# Seconds; a socket cannot count to much more, and nobody waits to see the difference.
_LONGEST_WAIT = 10**9


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelProviderError(f"timeout= is a number of seconds above 0, not {value!r}")
    return float(value) if value <= _LONGEST_WAIT else None


def _check_headers(headers: Mapping[str, str], provider: str) -> None:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or not name.isascii():
            # The value may be a key: the message does not show it.
            raise ModelProviderError(
                f"{provider}: the header {name!r} cannot be sent: it holds a line break or a "
                "sign beyond ASCII; look at the key, or at extra_headers=",
                {"provider": provider},
            )


def _json(body: Mapping[str, Any], provider: str) -> bytes:
    try:
        return _ENCODER.encode(body).encode()
    except (TypeError, ValueError) as error:
        for name, value in body.items():
            try:
                _ENCODER.encode(value).encode()
            except (TypeError, ValueError):
                raise ModelProviderError(
                    f"{provider}: {name!r} cannot be sent as JSON: {error}",
                    {"provider": provider, "param": name},
                ) from error
        raise
