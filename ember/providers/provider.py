"""The base class of providers that are called over HTTP, sync and async.

A call is `answer(call, send(request(call)))`. All decisions are pure; the I/O is in `complete`,
`acomplete` and the two loops of `StreamedCall`. Each wire is a subclass in its own file, which
defines `url`, `body`, `read` and `fold`.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any

from ember.conversation.messages import as_messages
from ember.conversation.tools import NativeTool, as_response_format, as_tool_choice, as_tools
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk, UsageStats
from ember.pricing import cost as pricing
from ember.pricing.snapshot import seller
from ember.providers.arguments import NO_HEADERS, Address, Headers, Key, as_address, as_key
from ember.providers.base import BaseProvider
from ember.providers.call import (
    DOCUMENTED,
    ENCODER,
    Call,
    Fold,
    ParsedAnswer,
    as_headers,
    as_object,
    as_prompt,
    as_timeout,
    body_error,
    check_names,
    header_error,
    is_valid_header,
    with_answer,
)
from ember.providers.json_values import (
    NOTHING,
    Json,
    body_of,
    carries_answer,
    fields,
    has_surrogates,
    loaded,
    parsed,
    replace_surrogates,
    request_id,
    text_of,
)
from ember.providers.servers import Server
from ember.transport import send as transport
from ember.transport.send import Timeout

if TYPE_CHECKING:
    from ember.conversation.tools import JsonFormat, Tool, ToolChoice
    from ember.providers.error_mapping import FailedResponse

__all__ = ["HTTPProvider", "StreamedCall"]

_DEFAULT_TIMEOUT = Timeout()
# Bytes to keep of an answer in another format, to show what it was.
_STRAY_LIMIT = 2000


class HTTPProvider(BaseProvider):
    """A provider that is called over HTTP.

    The key and the base URL are read from the environment at each call, so that a rotated key
    is used at once.

    Args:
        server: The server to call, with its differences.
    """

    is_priced = True
    path = ""
    # The path in the body (`outer.inner`) of each parameter that has another name there.
    paths: Mapping[str, str] = {}
    # Objects that a caller may pass in addition to parameters that belong inside them.
    merged: Collection[str] = ()
    # Parameters that the wire lacks, and what to do about it.
    unsupported: Mapping[str, str] = {}

    def __init__(self, server: Server) -> None:
        self.server = server
        self.paths = {**self.paths, **server.paths}
        self.merged = {*self.merged, *server.merged}

    # --- defined by each wire ---

    def url(self, call: Call) -> str:
        """Return the URL of the call, by default the base URL with the wire's `path`."""
        base, mark, query = call.base_url.partition("?")
        return f"{base.rstrip('/')}{self.path}{mark}{query}"

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

    def read(self, body: Mapping[str, Any]) -> ParsedAnswer | None:
        """Read a whole answer; return None if the body is not in the wire's format."""
        raise NotImplementedError

    def fold(self) -> Fold:
        """Return a new fold of a stream into a body for `read`."""
        raise NotImplementedError

    def for_tools(self, model: str, params: Mapping[str, Any]) -> HTTPProvider:
        """Return the provider that serves a call with tools, by default this one."""
        return self

    # --- the steps of a call ---

    @property
    def api_key(self) -> Key | None:  # type: ignore[override]  # looked up, not stored
        """The key that is now in the environment."""
        for name in self.server.key_vars:
            if value := os.environ.get(name, "").strip():
                return Key(value)
        return None

    def complete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt; see `models` for the parameters and the errors."""
        provider = self.for_tools(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs)
        return provider.answer(call, transport.send(provider.request(call)))

    async def acomplete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt without blocking the event loop."""
        provider = self.for_tools(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs)
        return provider.answer(call, await transport.asend(provider.request(call)))

    def stream(self, prompt: Any, model: str, **kwargs: Any) -> StreamedCall:
        """Prepare a streamed answer; nothing is sent before it runs."""
        provider = self.for_tools(model, kwargs) if "tools" in kwargs else self
        call = provider.call(prompt, model, kwargs, stream=True)
        return StreamedCall(provider, call, provider.request(call))

    def call(
        self, prompt: object, model: str, kwargs: Mapping[str, Any], stream: bool = False
    ) -> Call:
        """Make a call of a caller's arguments; refuse invalid ones, and a missing key."""
        params = {name: value for name, value in kwargs.items() if value is not None}
        url = as_address(params.pop("base_url", None))
        key = as_key(params.pop("api_key", None)) or self.api_key
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
        """Return the HTTP request of a call; refuse what cannot be sent."""
        name = self.server.name
        headers = self.headers(call)
        headers.update({header.lower(): value for header, value in call.extra_headers.items()})
        if not is_valid_header("".join([*headers, *headers.values()])):
            raise header_error(headers, name)
        url = Address(self.url(call))
        body = self.body(call)
        try:
            content = ENCODER.encode(body).encode()
        except (TypeError, ValueError) as error:
            raise body_error(body, name, error) from error
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

    def add(self, body: dict[str, Any], params: Mapping[str, Any]) -> None:
        """Add parameters to a body, by the tables above; refuse those that the wire lacks."""
        objects = {name: value for name, value in params.items() if name in self.merged}
        for name, value in params.items():
            if name in objects:
                continue
            if remedy := self.unsupported.get(name):
                raise ModelProviderError(
                    f"{self.server.name} has no {name} ({name}={value!r}): {remedy}",
                    {"provider": self.server.name, "param": name},
                )
            parent, key = self._parent_and_key(body, name)
            parent[key] = self.translate(name, value)
        for name, value in objects.items():  # last: the caller's own objects take precedence
            parent, key = self._parent_and_key(body, name)
            parent[key] = {**parent.get(key, {}), **as_object(name, value)}

    def _parent_and_key(self, body: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
        *outer, key = self.paths[name].split(".") if name in self.paths else (name,)
        for step in outer:
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

    def answer(self, call: Call, received: transport.Response) -> ChatResponse:
        """Return the response to a call, or raise the error that was received instead."""
        status, headers = received.status, received.headers
        body, surrogates = body_of(received.content)
        if not 200 <= status < 300:
            error = self.failed(call, status, headers).reported_error(body)
        elif isinstance(body, dict):
            answer = self.read(body)
            is_error = _reports_error(body)
            if answer is not None and not is_error:
                if surrogates:  # perhaps in the arguments of a tool call
                    answer = replace_surrogates(answer)
                return self.response(call, answer, headers, body)
            failed = self.failed(call, status, headers)
            error = failed.reported_error(body) if is_error else failed.wrong_format(body)
            error = with_answer(error, answer) if is_error else error
        else:
            # Some servers stream unasked, and Google may send an array.
            streamed = StreamedCall(self, call)
            try:
                for _ in streamed.read(status, headers, [received.content]):
                    pass
                return streamed.response()
            except ProviderAPIError as broken:
                error = broken.with_traceback(None)
            if error.error_type == "incomplete_stream" and not error.context["partial_text"]:
                error = self.failed(call, status, headers).wrong_format(body)
        # Some servers repeat the key: no variable of this frame must show what they sent.
        del received, body
        raise error

    def response(
        self, call: Call, answer: ParsedAnswer, headers: Mapping[str, str], raw: object
    ) -> ChatResponse:
        """Return the answer as a `ChatResponse`, with its cost and its parsed object."""
        name, model = self.server.name, answer.model or call.model
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
            request_id(headers) or answer.request_id,
            headers,
            answer.message or {"role": "assistant", "content": answer.text},
            raw,
        )
        if failure is not None:
            failure.context["response"] = response  # it is paid for
            raise failure
        if (requested := call.params.get("response_format")) is None:
            return response
        from ember.conversation.python_types import with_parsed  # imported late: rarely needed

        return with_parsed(requested, response)

    def failed(
        self, call: Call, status: int, headers: Mapping[str, str], in_stream: bool = False
    ) -> FailedResponse:
        """Return the response as one of which an error is made."""
        from ember.providers.error_mapping import FailedResponse  # imported late: rarely needed

        name = self.server.name
        vendor, _ = seller(name, call.base_url)
        key_names = " or ".join((*self.server.key_vars[:1], "api_key="))
        facts = name, call.model, status, headers, in_stream, vendor, call.base_url
        return FailedResponse(*facts, call.secrets(), key_names)


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
        self._error_body: list[bytes] = []
        self._beginning = b""  # of the body
        self._progressed = False  # whether the last piece had a part of the answer
        self._has_surrogates = False  # whether an event may contain unpaired ones
        self._surrogates: dict[str, str] = {}  # at the end of each text, until their pairs come
        self._status = 0
        self._headers: Mapping[str, str] = NO_HEADERS

    def run(self) -> Generator[Chunk]:
        """Send the request and yield the chunks of the answer as they arrive."""
        assert self._request is not None
        piece = b""
        try:
            with transport.StreamedResponse(self._request) as response:
                self.start(response.status, response.headers)
                for piece in response.pieces():
                    yield from self.feed(piece)
                    self._set_deadline(response)
            yield from self._finish()
        except ProviderAPIError as error:
            piece = b""  # see `HTTPProvider.answer`
            raise with_answer(error, self.answer()) from error.__cause__

    async def arun(self) -> AsyncGenerator[Chunk]:
        """Do the same as `run` without blocking the event loop."""
        assert self._request is not None
        piece = b""
        try:
            async with transport.AsyncStreamedResponse(self._request) as response:
                self.start(response.status, response.headers)
                async for piece in response.pieces():
                    for chunk in self.feed(piece):
                        yield chunk
                    self._set_deadline(response)
            for chunk in self._finish():
                yield chunk
        except ProviderAPIError as error:
            piece = b""
            raise with_answer(error, self.answer()) from error.__cause__

    def read(
        self, status: int, headers: Mapping[str, str], pieces: Sequence[bytes]
    ) -> Iterator[Chunk]:
        """Do the same as `run` with an answer that was already received, in these pieces."""
        self.start(status, headers)
        piece = b""
        try:
            for piece in pieces:
                yield from self.feed(piece)
            yield from self._finish()
        except ProviderAPIError as error:
            pieces, piece = (), b""
            raise with_answer(error, self.answer()) from error.__cause__

    def answer(self) -> ParsedAnswer:
        """Return the answer as read so far."""
        answer = self._provider.read(self._fold.body()) or ParsedAnswer()
        return replace_surrogates(answer) if self._has_surrogates else answer

    def response(self) -> ChatResponse:
        """Return the answer as read so far as a `ChatResponse`."""
        call = self._call
        if not self._fold.complete:  # perhaps half an object
            call = call._replace(params={**call.params, "response_format": None})
        return self._provider.response(call, self.answer(), self._headers, self._events)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Set the status and the headers of the answer."""
        self._status, self._headers = status, headers

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """Yield the chunks that a piece of the body completes."""
        if not 200 <= self._status < 300:
            self._error_body.append(piece)
            return
        if len(self._beginning) < _STRAY_LIMIT:
            self._beginning += piece[:_STRAY_LIMIT]
        for name, data in self._decoder.feed(piece):
            yield from self._read(name, data)

    def _set_deadline(
        self, response: transport.StreamedResponse | transport.AsyncStreamedResponse
    ) -> None:
        """Set the deadline for the next event or, after the last one, for the end of the body."""
        if self._progressed:
            self._progressed = False
            response.deadline.expect_event()
        if self._fold.complete:
            response.deadline.expect_end()

    def _finish(self) -> Iterator[Chunk]:
        """Yield the chunks that the end of the body completes."""
        if not 200 <= self._status < 300:
            body = parsed(text_of(b"".join(self._error_body)))
            error = self._failed(in_stream=False).reported_error(body)
            del body  # see `HTTPProvider.answer`
            raise error
        for name, data in self._decoder.finish():
            yield from self._read(name, data, at_end=True)
        if self._surrogates:
            texts = (self._surrogates.get(what, "") for what in ("text", "reasoning"))
            yield Chunk(*map(replace_surrogates, texts))
        if (found := self._foreign_body()) is not None:
            raise self._failed().wrong_format(found)
        if not self._fold.complete:
            raise self._failed().incomplete_stream()

    def _foreign_body(self) -> object:
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

    def _read(self, name: str, data: str, at_end: bool = False) -> Iterable[Chunk]:
        """Add an event to the answer and return its chunks."""
        fold = self._fold
        try:
            event: Json = loaded(data)
        except ValueError:
            bare = data.strip()
            if bare == "[DONE]":
                fold.complete = fold.complete or (fold.ends_with_done and fold.started)
            elif bare and not at_end:  # at the end it was cut off, which is reported as such
                raise self._failed().wrong_format(data) from None
            return ()
        surrogates = has_surrogates(data)
        self._has_surrogates = self._has_surrogates or surrogates
        self._events.append(replace_surrogates(event) if surrogates else event)
        if isinstance(event, list) and len(event) == 1:
            event = event[0]  # Google sometimes wraps an error in a list
        if not isinstance(event, dict):
            return ()
        chunks = fold.add(name, event)
        failure = event if name == "error" or _reports_error(event) else fold.failure
        if failure is not None:
            raise self._failed().reported_error(failure)
        self._progressed = self._progressed or bool(chunks) or carries_answer(event)
        return self._with_pairs(chunks) if self._has_surrogates else chunks

    def _with_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yield chunks of whole characters; an unpaired surrogate waits for the next chunk."""
        for chunk in chunks:
            text = self._pair("text", chunk.text)
            reasoning, call = self._pair("reasoning", chunk.reasoning), chunk.tool_call
            if call is not None:
                call = call._replace(arguments=self._pair(f"call {call.id}", call.arguments))
            if text or reasoning or call:
                yield Chunk(text, reasoning, self._events[-1], call)

    def _pair(self, what: str, text: str) -> str:
        text = self._surrogates.pop(what, "") + text
        if "\ud800" <= text[-1:] < "\udc00":  # the first of a pair
            self._surrogates[what], text = text[-1], text[:-1]
        return str(replace_surrogates(text))

    def _failed(self, in_stream: bool = True) -> FailedResponse:
        return self._provider.failed(self._call, self._status, self._headers, in_stream)


def _reports_error(body: Mapping[str, Any]) -> bool:
    """Return whether the body of a success is an error all the same."""
    failed = body.get("status") == "failed"  # the Responses API, perhaps without its error
    return failed or bool(body.get("error")) or "error" in (body.get("type"), body.get("object"))
