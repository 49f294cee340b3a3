"""The base class of providers that are called over HTTP, sync and async.

A call is `answer(call, send(request(call)))`. All decisions are pure; the I/O is in `complete`,
`acomplete` and the two loops of `StreamedCall`. Each wire is a subclass in its own file, which
defines `url`, `body`, `read` and `fold`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ember.conversation.messages import as_messages
from ember.conversation.tools import NativeTool, as_response_format, as_tool_choice, as_tools
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk, UsageStats
from ember.pricing.snapshot import seller
from ember.providers.arguments import NO_HEADERS, Address, Headers, Key
from ember.providers.base import BaseProvider
from ember.providers.call import (
    DOCUMENTED,
    ENCODER,
    Answer,
    Call,
    Fold,
    as_address,
    as_headers,
    as_key,
    as_object,
    as_prompt,
    as_timeout,
    check_names,
    not_json,
    sendable,
    unsendable,
    with_answer,
    with_parsed,
)
from ember.providers.json_values import (
    NOTHING,
    body_of,
    carries_answer,
    fields,
    half_at_end,
    items,
    loaded,
    may_hold_halves,
    parsed,
    request_id,
    text_of,
    whole_characters,
)
from ember.providers.servers import Server
from ember.transport import send as transport
from ember.transport.send import Timeout

if TYPE_CHECKING:
    from ember.conversation.tools import JsonFormat, Tool, ToolChoice
    from ember.providers.sse import Event

__all__ = ["HTTPProvider", "StreamedCall"]

_DEFAULT_TIMEOUT = Timeout()
# Bytes to keep of an answer in another format, to show what it was.
_STRAY_LIMIT = 2000
_STREAM: Mapping[str, Any] = {"in_stream": True, "phase": "stream"}


class HTTPProvider(BaseProvider):
    """A provider that is called over HTTP.

    The key and the base URL are read from the environment at each call, so that a rotated key
    is used at once.

    Args:
        server: The server to call, with its differences.
    """

    is_priced = True
    # The path of a parameter in the body, outermost key first, if it is not the parameter's name.
    places: Mapping[str, Sequence[str]] = {}
    # Objects that a caller may pass in addition to parameters that belong inside them.
    merged: Collection[str] = ()
    # Parameters that the wire lacks, and what to do about it.
    refused: Mapping[str, str] = {}

    def __init__(self, server: Server) -> None:
        self.server = server
        self.places = {**self.places, **server.places}
        self.merged = {*self.merged, *server.merged}

    # --- defined by each wire ---

    def url(self, call: Call) -> str:
        """Return the URL of the call."""
        raise NotImplementedError

    def body(self, call: Call) -> dict[str, Any]:
        """Return the call as the wire's JSON."""
        raise NotImplementedError

    def tool(self, tool: Tool) -> Mapping[str, Any]:
        """Return a tool in the wire's format."""
        raise NotImplementedError

    def choice(self, choice: ToolChoice) -> Any:
        """Return a tool choice in the wire's format."""
        raise NotImplementedError

    def format(self, json_format: JsonFormat) -> Mapping[str, Any]:
        """Return a response format as the wire has it."""
        raise NotImplementedError

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """Read a whole answer; return None if the body is not in the wire's format."""
        raise NotImplementedError

    def fold(self) -> Fold:
        """Return a new fold of a stream into a body for `read`."""
        raise NotImplementedError

    def serving(self, model: str, params: Mapping[str, Any]) -> HTTPProvider:
        """Return the provider that serves a call with tools, by default this one."""
        return self

    # --- the steps of a call ---

    @property
    def api_key(self) -> str | None:  # type: ignore[override]  # looked up, not stored
        """The key that is now in the environment."""
        return self.key()

    def complete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt; see `models` for the parameters and the errors."""
        provider = self.serving(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs)
        return provider.answer(call, transport.send(provider.request(call)))

    async def acomplete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt without blocking the event loop."""
        provider = self.serving(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs)
        return provider.answer(call, await transport.asend(provider.request(call)))

    def stream(self, prompt: Any, model: str, **kwargs: Any) -> StreamedCall:
        """Prepare a streamed answer; nothing is sent before it runs."""
        provider = self.serving(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs, stream=True)
        return StreamedCall(provider, call, provider.request(call))

    def call(
        self, prompt: object, model: str, kwargs: Mapping[str, Any], stream: bool = False
    ) -> Call:
        """Check a caller's arguments and make a call of them.

        Raises:
            ModelProviderError: The key is missing, or an argument is invalid.
        """
        params = {name: value for name, value in kwargs.items() if value is not None}
        url = as_address(params.pop("base_url")) if "base_url" in params else None
        key = as_key(params.pop("api_key")) if "api_key" in params else None
        key = key or self.key()
        if bool(params.pop("stream", stream)) is not stream:
            raise ModelProviderError(
                "stream= is no parameter: models.stream() and models.astream() stream, and "
                "models() and models.acall() do not"
            )
        if key is None and url is None and self.server.key_required:
            raise ModelProviderError(
                f"no API key for {self.server.name}: set the environment variable "
                f"{' or '.join(self.server.key_vars)}, or pass api_key=",
                {"provider": self.server.name, "model": model},
            )
        if prompt is None or "messages" in params:
            prompt = as_prompt(prompt, params.pop("messages", None))
        if not DOCUMENTED.issuperset(params):
            check_names(params)
        timeout, headers = _DEFAULT_TIMEOUT, NO_HEADERS
        if "timeout" in kwargs:  # an explicit None is no timeout
            timeout = as_timeout(params.pop("timeout", None))
        if "extra_headers" in params:
            headers = as_headers(params.pop("extra_headers") or NO_HEADERS)
        messages = as_messages(prompt)
        if (system := params.pop("system", None)) is not None:
            messages = [*as_messages([{"role": "system", "content": system}]), *messages]
        base_url = Address((url or self.base_url()).rstrip("/"))
        return Call(model, messages, params, stream, base_url, key, timeout, headers)

    def request(self, call: Call) -> transport.Request:
        """Return the HTTP request of a call.

        Raises:
            ModelProviderError: Part of it cannot be sent.
        """
        name = self.server.name
        headers = self.headers(call)
        headers.update({header.lower(): value for header, value in call.extra_headers.items()})
        if not sendable("".join([*headers, *headers.values()])):
            raise unsendable(headers, name)
        url = Address(self.url(call))
        body = self.body(call)
        try:
            content = ENCODER.encode(body).encode()
        except (TypeError, ValueError) as error:
            raise not_json(body, name, error) from error
        return transport.Request(url, headers, content, call.timeout, name, call.model)

    def headers(self, call: Call) -> Headers:
        """Return the wire's own headers, authentication included."""
        server = self.server
        headers = Headers({"content-type": "application/json"})
        for header, name in server.header_vars:
            if value := os.environ.get(name, "").strip():
                headers[header] = Key(value)
        if (key := call.key) is not None:
            token = server.token_var and os.environ.get(server.token_var, "").strip() == key
            auth = "authorization" if token else server.auth_header
            headers[auth] = Key(f"Bearer {key}") if auth == "authorization" else key
        return headers

    def base_url(self) -> str:
        """Return the base URL in the environment, else the server's default."""
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

    def key(self) -> Key | None:
        """Return the key in the environment."""
        for name in self.server.key_vars:
            if value := os.environ.get(name, "").strip():
                return Key(value)
        return None

    def add(self, body: dict[str, Any], params: Mapping[str, Any]) -> None:
        """Add parameters to a body, by the tables above.

        Raises:
            ModelProviderError: The wire lacks a parameter, or a value cannot be sent.
        """
        own: list[str] = []
        for name, value in params.items():
            if name in self.merged:
                own.append(name)
                continue
            if name in self.refused:
                raise ModelProviderError(
                    f"{self.server.name} has no {name} ({name}={value!r}): {self.refused[name]}",
                    {"provider": self.server.name, "param": name},
                )
            inside, key = self._place(body, name)
            inside[key] = self.translate(name, value)
        for name in own:  # last: the caller's own objects take precedence
            inside, key = self._place(body, name)
            inside[key] = {**inside.get(key, {}), **as_object(name, params[name])}

    def _place(self, body: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
        """Return the object that a parameter goes into, and its key there."""
        *outside, key = self.places.get(name, (name,))
        for step in outside:
            body = body.setdefault(step, {})
        return body, key

    def translate(self, name: str, value: Any) -> Any:
        """Return a parameter's value in the wire's format."""
        if name == "tools":
            tools = as_tools(value, self.server.name)
            return [t.value if isinstance(t, NativeTool) else self.tool(t) for t in tools]
        if name == "tool_choice":
            choice = as_tool_choice(value)
            return choice if isinstance(choice, Mapping) else self.choice(choice)
        if name == "response_format":
            json_format = as_response_format(value)
            return json_format if isinstance(json_format, Mapping) else self.format(json_format)
        return value

    # --- answers ---

    def answer(self, call: Call, reply: transport.Response) -> ChatResponse:
        """Return the response for a reply.

        Raises:
            ProviderAPIError: The provider reports an error, or the reply is in another format.
        """
        status, headers = reply.status, reply.headers
        body, halves = body_of(reply.content)
        if not 200 <= status < 300:
            error = self.error(call, status, headers, body)
        elif isinstance(body, dict):
            item = cast("Mapping[str, Any]", body)
            answer = self.read(item)
            failed = _reports_error(item)
            if answer is not None and not failed:
                if halves:  # perhaps in the arguments of a tool call
                    answer = whole_characters(answer)
                response = self.response(call, answer, headers, item)
                return with_parsed(call.params, response)
            if failed:
                error = with_answer(self.error(call, status, headers, item), answer)
            else:
                error = self.bad_response(call, status, headers, item)
            item = {}
        else:
            # Some servers stream unasked, and Google may send an array.
            streamed = StreamedCall(self, call)
            try:
                for _ in streamed.read(status, headers, [reply.content]):
                    pass
                return streamed.response()
            except ProviderAPIError as broken:
                error = broken.with_traceback(None)
            if error.error_type == "incomplete_stream" and not error.context["partial_text"]:
                error = self.bad_response(call, status, headers, body)
        # Some servers repeat the key: no variable of this frame must show what they sent.
        del reply, body
        raise error

    def response(
        self, call: Call, answer: Answer, headers: Mapping[str, str], raw: object
    ) -> ChatResponse:
        """Return the answer as a `ChatResponse`, with its cost."""
        from ember.pricing import cost as pricing  # imported late: prices are read at first use

        name, model = self.server.name, answer.model or call.model
        identity = headers.get("x-request-id") or request_id(headers) or answer.request_id
        usage = answer.usage
        failure: ModelProviderError | None = None
        if usage is None:  # not reported: the cost stays unknown
            usage = UsageStats()
        else:
            try:
                cost = pricing.cost(
                    name,
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
            identity,
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
        """Return the error for the provider's answer."""
        from ember.providers.error_mapping import api_error  # imported late: rarely needed

        key_names = " or ".join((*self.server.key_vars[:1], "api_key="))
        name = self.server.name
        vendor, _ = seller(name, call.base_url)
        keys = call.secrets()
        return api_error(name, call.model, status, headers, body, keys, key_names, facts, vendor)

    def bad_response(
        self, call: Call, status: int, headers: Mapping[str, str], body: object, **facts: Any
    ) -> ProviderAPIError:
        """Return the error for an answer that is not in this wire's format."""
        from ember.providers.error_mapping import not_of_wire  # imported late: rarely needed

        name, keys = self.server.name, call.secrets()
        return not_of_wire(name, call.model, status, headers, body, keys, call.base_url, facts)


class StreamedCall:
    """One streamed call.

    Args:
        provider: The provider that is called.
        call: The call.
        request: The request to send; None for an answer that was already received.
    """

    def __init__(
        self, provider: HTTPProvider, call: Call, request: transport.Request | None = None
    ) -> None:
        from ember.providers.sse import EventDecoder  # imported late: for streams only

        self._provider = provider
        self._call = call
        self._request = request
        self._fold = provider.fold()
        self._decoder = EventDecoder()
        self._events: list[Any] = []
        self._failed: list[bytes] = []
        self._beginning = b""  # of the body
        self._halves = False  # whether an event may contain unpaired surrogates
        self._half: dict[str, str] = {}  # an unpaired surrogate at a text's end, until its pair
        self._brought_text = False
        self._examined = 0  # number of events that `_brought_answer` has seen
        self._status = 0
        self._headers: Mapping[str, str] = NO_HEADERS

    def run(self) -> Generator[Chunk]:
        """Send the request and yield the chunks of the answer as they arrive."""
        assert self._request is not None
        piece = b""
        try:
            with transport.StreamedResponse(self._request) as body:
                self.start(body.status, body.headers)
                for piece in body.pieces():
                    yield from self.feed(piece)
                    if self._brought_answer():
                        body.expect_event()
                    if self._fold.complete:
                        body.expect_end()
            yield from self._finish()
        except ProviderAPIError as error:
            piece = b""  # see `HTTPProvider.answer`
            raise with_answer(error, self.answer()) from error.__cause__

    async def arun(self) -> AsyncGenerator[Chunk]:
        """Do the same as `run` without blocking the event loop."""
        assert self._request is not None
        piece = b""
        try:
            async with transport.AsyncStreamedResponse(self._request) as body:
                self.start(body.status, body.headers)
                async for piece in body.pieces():
                    for chunk in self.feed(piece):
                        yield chunk
                    if self._brought_answer():
                        body.expect_event()
                    if self._fold.complete:
                        body.expect_end()
            for chunk in self._finish():
                yield chunk
        except ProviderAPIError as error:
            piece = b""
            raise with_answer(error, self.answer()) from error.__cause__

    def read(
        self, status: int, headers: Mapping[str, str], pieces: Sequence[bytes]
    ) -> Iterator[Chunk]:
        """Yield the chunks of an answer that was already received, in these pieces.

        Raises:
            ProviderAPIError: The answer is or contains an error, or it ended too early.
        """
        self.start(status, headers)
        piece = b""
        try:
            for piece in pieces:
                yield from self.feed(piece)
            yield from self._finish()
        except ProviderAPIError as error:
            pieces, piece = (), b""
            raise with_answer(error, self.answer()) from error.__cause__

    def answer(self) -> Answer:
        """Return the answer as read so far."""
        answer = self._provider.read(self._fold.body()) or Answer()
        return whole_characters(answer) if self._halves else answer

    def response(self) -> ChatResponse:
        """Return the answer as read so far as a `ChatResponse`."""
        call, answer = self._call, self.answer()
        response = self._provider.response(call, answer, self._headers, self._events)
        return with_parsed(call.params, response) if self._fold.complete else response

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Set the status and the headers of the answer."""
        self._status, self._headers = status, headers

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """Yield the chunks that a piece of the body completes."""
        if not 200 <= self._status < 300:
            self._failed.append(piece)
            return
        if len(self._beginning) < _STRAY_LIMIT:
            self._beginning += piece[:_STRAY_LIMIT]
        yield from self._chunks(self._decoder.feed(piece))

    def _chunks(self, events: list[Event], at_end: bool = False) -> Iterator[Chunk]:
        for name, data in events:
            if (chunk := self._read(name, data, at_end)) is not None:
                self._brought_text = True
                yield chunk
            while self._fold.pieces:
                piece = self._fold.pieces.pop(0)
                if self._halves:
                    arguments = self._whole(f"arguments of {piece.id}", piece.arguments)
                    piece = piece._replace(arguments=arguments)
                yield Chunk("", "", self._events[-1], piece)

    def _brought_answer(self) -> bool:
        """Return whether an event since the last call had some of the answer."""
        brought, self._brought_text = self._brought_text, False
        events, self._examined = self._events[self._examined :], len(self._events)
        return brought or any(map(carries_answer, events))

    def _finish(self) -> Iterator[Chunk]:
        """Yield the chunks that the end of the body completes."""
        if not 200 <= self._status < 300:
            body = parsed(text_of(b"".join(self._failed)))
            error = self._provider.error(self._call, self._status, self._headers, body)
            del body  # see `HTTPProvider.answer`
            raise error
        yield from self._chunks(self._decoder.finish(), at_end=True)
        if self._half:
            text, reasoning = self._half.get("text", ""), self._half.get("reasoning", "")
            yield Chunk(whole_characters(text), whole_characters(reasoning))
        if (found := self._something_else()) is not None:
            raise self._misread(found)
        if self._fold.complete:
            return
        from ember.providers.error_mapping import broken_off  # imported late: rarely needed

        name, model = self._provider.server.name, self._call.model
        raise broken_off(name, model, self._status, self._headers, _STREAM)

    def _something_else(self) -> object:
        """Return what was received if it is not in this wire's format, else None."""
        if self._fold.started:
            # A whole body instead of a stream is judged as a whole body.
            only = fields(self._events[0]) if len(self._events) == 1 else NOTHING
            is_whole = text_of(self._beginning).lstrip().startswith(("[", "{"))
            return only if only and is_whole and self._provider.read(only) is None else None
        stray = text_of(self._decoder.stray or self._beginning).strip()
        if self._events or self._decoder.stray or self._status == 204:  # no body
            return self._events or stray
        return stray if stray.startswith(("[", "{")) and parsed(stray) != [] else None

    def _read(self, name: str, data: str, at_end: bool) -> Chunk | None:
        fold = self._fold
        try:
            event = loaded(data)
        except ValueError:
            bare = data.strip()
            if bare == "[DONE]":
                fold.complete = fold.complete or (fold.ends_with_done and fold.started)
                return None
            if at_end or not bare:
                return None  # the last event was cut off: the missing end marker is reported
            raise self._misread(data) from None
        halves = may_hold_halves(data)
        self._halves = self._halves or halves
        self._events.append(whole_characters(event) if halves else event)
        if len(wrapped := items(event)) == 1:
            event = wrapped[0]  # Google sometimes wraps an error in a list
        if not isinstance(event, dict):
            return None
        item = cast("Mapping[str, Any]", event)
        chunk = fold.add(name, item)
        failure = item if name == "error" or _reports_error(item) else fold.failure
        if failure is not None:
            error = self._provider.error
            raise error(self._call, self._status, self._headers, failure, **_STREAM)
        return self._joined(chunk) if self._halves and chunk is not None else chunk

    def _joined(self, chunk: Chunk) -> Chunk | None:
        """Return a chunk of whole characters; an unpaired surrogate waits for the next chunk."""
        text, reasoning = self._whole("text", chunk.text), self._whole("reasoning", chunk.reasoning)
        return Chunk(text, reasoning, self._events[-1]) if text or reasoning else None

    def _whole(self, what: str, text: str) -> str:
        text = self._half.pop(what, "") + text
        if half := half_at_end(text):
            self._half[what] = half
        return str(whole_characters(text.removesuffix(half)))

    def _misread(self, body: object) -> ProviderAPIError:
        bad_response = self._provider.bad_response
        return bad_response(self._call, self._status, self._headers, body, **_STREAM)


def _reports_error(body: Mapping[str, Any]) -> bool:
    """Return whether the body of a success is an error all the same."""
    failed = body.get("status") == "failed"  # the Responses API, perhaps without its error
    return failed or bool(body.get("error")) or "error" in (body.get("type"), body.get("object"))
