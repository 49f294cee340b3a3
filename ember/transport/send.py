"""Sends a request and brings its answer, whole or piece by piece, or an error in Ember's words.

With the rest of this folder the only code that touches the network.
"""

from __future__ import annotations

import functools
import math
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httpx

from ember.exceptions import ErrorType, ModelProviderError, ProviderAPIError
from ember.transport.bounds import BodyTooLong, ContentDecoder
from ember.transport.client import async_client, client
from ember.transport.environment import proxy_for, without_user

__all__ = ["AsyncBody", "Body", "Reply", "Request", "Timeout", "aopen", "asend", "open", "send"]

# Behind a stream's last event: for what some servers send after it, and for the body's end, without
# which the connection cannot carry another call.
_END_SECONDS = 5.0
_DEFAULT_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "ember"}


class Timeout(NamedTuple):
    """How long to wait, in seconds; None waits for ever.

    Args:
        connect: For a connection, with its TLS handshake.
        read: For each piece of the request to be taken and for each piece of the answer to come;
            in a stream, for each event that carries text, reasoning, a tool call or usage.
        total: For the whole of an answer that is not streamed; in a stream, for the first such
            event.
    """

    connect: float | None = 5.0
    read: float | None = 600.0
    total: float | None = 600.0


class Request(NamedTuple):
    """One HTTP POST, ready to send.

    Args:
        url: Where to.
        headers: Names in lower case.
        content: The body.
        timeout: How long to wait.
        provider: Named in errors.
        model: Named in errors.
        address: Host and port behind the URL's name, asked for when a connection is needed: a
            server in this process starts then, and not for an answer that comes from a recording.
    """

    url: str
    headers: Mapping[str, str]
    content: bytes
    timeout: Timeout
    provider: str
    model: str
    address: Callable[[], tuple[str, int]] | None = None


class Reply(NamedTuple):
    """The answer to a `Request`, read whole; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def send(request: Request) -> Reply:
    """Send a request and read the whole answer.

    Raises:
        ProviderAPIError: `timeout`, `connection` or `bad_response`.
        ModelProviderError: The URL, a header or the proxy's address is not valid.
    """
    with _Exchange(request) as exchange:
        response = client().exchange(_httpx_request(request, exchange))
        pieces: list[bytes] = []
        try:
            headers = _headers(response)
            decoder = ContentDecoder(headers)
            exchange.next = None
            for piece in cast("httpx.SyncByteStream", response.stream):
                if decoded := decoder.feed(piece):
                    pieces += decoded
                    exchange.next = None
                exchange.check()
        except BaseException:
            # The answer may repeat the key: no variable of a frame that is left shows it.
            pieces, piece, decoded = [], b"", []
            raise
        finally:
            response.close()
        return Reply(response.status_code, headers, b"".join(pieces))


async def asend(request: Request) -> Reply:
    """`send` without blocking the event loop."""
    with _Exchange(request) as exchange:
        response = await (await async_client()).exchange(_httpx_request(request, exchange))
        pieces: list[bytes] = []
        try:
            headers = _headers(response)
            decoder = ContentDecoder(headers)
            exchange.next = None
            # Kept until the connection is closed: let go before, it would be closed by the event
            # loop, at a time of its own.
            arriving = aiter(cast("httpx.AsyncByteStream", response.stream))
            async for piece in arriving:
                if decoded := decoder.feed(piece):
                    pieces += decoded
                    exchange.next = None
                exchange.check()
        except BaseException:
            # The answer may repeat the key: no variable of a frame that is left shows it.
            pieces, piece, decoded = [], b"", []
            raise
        finally:
            await response.aclose()
        return Reply(response.status_code, headers, b"".join(pieces))


def open(request: Request) -> Body:
    """A block that sends a request; its answer can be read inside, piece by piece as it arrives."""
    return Body(request)


def aopen(request: Request) -> AsyncBody:
    """`open` without blocking the event loop."""
    return AsyncBody(request)


class _OpenResponse:
    """What the two kinds of body share: status, headers, and how long to wait for what."""

    status: int
    headers: Mapping[str, str]
    _exchange: _Exchange

    def __init__(self, request: Request) -> None:
        self._request = request

    def _begin(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = _headers(response)
        self._exchange.expect_first_event()

    def expect_event(self) -> None:
        """Let the next wait begin: the caller has taken an event that carries some of the answer.

        Until the next one `timeout.read` bounds the wait, whatever else the server sends.
        """
        self._exchange.expect_event()

    def expect_end(self) -> None:
        """Wait a little for the end of the body: the answer is complete.

        From now on neither a connection that stays open nor one that breaks is an error.
        """
        self._exchange.expect_end()


class Body(_OpenResponse):
    """The answer to a request, still on its way: the block in which it is read."""

    def __enter__(self) -> Body:
        self._exchange = _Exchange(self._request)
        with self._exchange:
            self._begin(client().exchange(_httpx_request(self._request, self._exchange)))
        return self

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives, content encoding removed."""
        with self._exchange:
            decoder = ContentDecoder(self.headers)
            try:
                for piece in cast("httpx.SyncByteStream", self._response.stream):
                    yield from decoder.feed(piece)
            except httpx.TransportError:
                if not self._exchange.answered:
                    raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._exchange:
            self._response.close()


class AsyncBody(_OpenResponse):
    """`Body` for an event loop.

    It is an iterator and no generator, for the reason that stands in `streams.py`.
    """

    async def __aenter__(self) -> AsyncBody:
        self._exchange = _Exchange(self._request)
        with self._exchange:
            send = (await async_client()).exchange
            self._begin(await send(_httpx_request(self._request, self._exchange)))
        # Kept, as in asend.
        self._arriving = aiter(cast("httpx.AsyncByteStream", self._response.stream))
        self._decoder: ContentDecoder | None = None
        self._decoded: deque[bytes] = deque()
        return self

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives, content encoding removed."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self._exchange:
            if self._decoder is None:
                self._decoder = ContentDecoder(self.headers)
            try:
                while not self._decoded:
                    self._decoded += self._decoder.feed(await self._arriving.__anext__())
            except httpx.TransportError:
                if not self._exchange.answered:
                    raise
                raise StopAsyncIteration from None
            return self._decoded.popleft()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._exchange:
            await self._response.aclose()


def _headers(response: httpx.Response) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    try:
        for raw_name, raw_value in response.headers.raw:
            name, value = raw_name.decode("ascii").lower(), raw_value.decode("ascii")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    except UnicodeDecodeError:
        return dict(response.headers)  # httpx finds out the encoding, which takes longer
    return headers


def _httpx_request(request: Request, exchange: _Exchange) -> httpx.Request:
    url, host, unix_socket = _parsed(request.url)
    extensions: dict[str, Any] = {
        "timeout": _by_phase(request.timeout),
        "ember_deadline": exchange,
    }
    if unix_socket:
        extensions["ember_unix_socket"] = unix_socket
    if request.address is not None:
        extensions["ember_address"] = request.address
    made = httpx.Request(
        "POST",
        url,
        headers={
            "host": host,
            **_DEFAULT_HEADERS,
            **request.headers,
            "content-length": str(len(request.content)),
        },
        # With content= httpx would build the headers a second time.
        stream=httpx.ByteStream(request.content),
        extensions=extensions,
    )
    made.read()  # for hooks that look at request.content
    return made


@functools.lru_cache(maxsize=100)
def _by_phase(timeout: Timeout) -> dict[str, float | None]:
    """A timeout in httpx's words."""
    waits = [seconds for seconds in (timeout.read, timeout.total) if seconds is not None]
    read = min(waits, default=None)
    return {"connect": timeout.connect, "read": read, "write": read, "pool": read}


@functools.lru_cache(maxsize=1000)
def _parsed(url: str) -> tuple[httpx.URL, str, str | None]:
    """A URL, its host header and its Unix socket; parsing one takes a tenth of a call."""
    unix_socket = None
    if url.startswith("http+unix://"):  # a socket's path, percent-encoded, in the host's place
        quoted, slash, path = url.removeprefix("http+unix://").partition("/")
        unix_socket, url = unquote(quoted), f"http://localhost{slash}{path}"
        if "\0" in quoted or "\0" in unix_socket[1:]:  # at the beginning: Linux's abstract sockets
            raise httpx.InvalidURL("the path of a socket holds a NUL")
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol("it does not begin with http:// or https://")
    if not parsed.host or unix_socket == "":
        raise httpx.InvalidURL("it names no host")
    return parsed, parsed.netloc.decode("ascii"), unix_socket


# --- what httpx raises, in our words -----------------------------------------------------------

# httpx.HTTPError is abstract to us: every subclass that a request can raise stands here, the more
# special before the more general.
_ERRORS: tuple[tuple[type[httpx.HTTPError], ErrorType, str, str], ...] = (
    (httpx.ConnectTimeout, "timeout", "connect", "no connection in time"),
    (httpx.PoolTimeout, "timeout", "connect", "no connection in time"),
    (httpx.WriteTimeout, "timeout", "write", "the request was not taken in time"),
    (httpx.ReadTimeout, "timeout", "read", "no answer in time"),
    (httpx.ProxyError, "connection", "connect", "the proxy refused"),
    (httpx.ConnectError, "connection", "connect", "could not connect"),
    (httpx.WriteError, "connection", "write", "the connection broke while sending"),
    (httpx.ReadError, "connection", "read", "the connection broke"),
    (httpx.CloseError, "connection", "read", "the connection broke while closing"),
    (httpx.RemoteProtocolError, "connection", "read", "the server broke off its answer"),
    (httpx.DecodingError, "bad_response", "read", "the answer's content encoding is broken"),
    (BodyTooLong, "bad_response", "read", "the answer is too long"),
)
_SETUP_ERRORS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class _Exchange:
    """One call on its way: the errors that its failures become, and when its waits end.

    Attributes:
        answered: Whether the answer is complete, and only the body's end is missing.
        connect: See `connection.Deadline`, as for `end`, `next` and `read`.
    """

    __slots__ = ("_request", "_streamed", "answered", "connect", "end", "next", "read")

    def __init__(self, request: Request) -> None:
        connect, read, total = request.timeout
        self._request = request
        self._streamed = self.answered = False
        self.end = math.inf if total is None else time.monotonic() + total
        self.next: float | None = None
        self.connect = math.inf if connect is None else connect
        self.read = math.inf if read is None else read

    def expect_first_event(self) -> None:
        """Wait for the first event of a stream that says anything: `total` bounds it, if given."""
        self._streamed = True
        self.next = None if self.end == math.inf else self.end

    def expect_event(self) -> None:
        """Wait for the next such event; how many follow is not bounded."""
        self.end, self.next, self.answered = math.inf, None, False

    def expect_end(self) -> None:
        """Wait for the body's end, on which nothing depends but the connection."""
        if not self.answered:
            self.answered = True
            self.end, self.next = math.inf, time.monotonic() + min(self.read, _END_SECONDS)

    def check(self) -> None:
        """End a body that comes from a transport in place of httpx's, which knows no deadline."""
        if time.monotonic() > self.end:
            raise httpx.ReadTimeout("timed out")

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # A host name that has no form in DNS is a UnicodeError.
        if isinstance(error, (httpx.InvalidURL, *_SETUP_ERRORS, UnicodeError)):
            raise _setup_error(error, self._request) from _without_frames(error)
        if isinstance(error, httpx.HTTPError):
            late = time.monotonic() >= self.end
            api_error = _api_error(error, self._request, self._streamed, late)
            raise api_error from _without_frames(error)


def _setup_error(error: Exception, request: Request) -> ModelProviderError:
    where, why = without_user(request.url), str(error)
    if isinstance(error, httpx.LocalProtocolError):
        # Its text, and that of its causes, holds the header's value: perhaps the key.
        why = "a header is not valid HTTP"
        error.args, error.__cause__, error.__context__ = (why,), None, None
    if isinstance(error, httpx.HTTPError):
        error.request = httpx.Request("POST", where)
    return ModelProviderError(
        f"{request.provider}: cannot send to {where!r}: {why}. Check base_url= (it begins with "
        "http:// or https://, or http+unix:// for a socket), the key and extra_headers= (no "
        "blanks at the ends, no line breaks)",
        {"provider": request.provider, "model": request.model},
    )


def _api_error(
    error: httpx.HTTPError, request: Request, streamed: bool, late: bool
) -> ProviderAPIError:
    where = without_user(request.url)
    # The request that httpx attaches carries the key in its headers.
    error.request = httpx.Request("POST", where)
    error_type, phase, what = _named(error)
    if error_type == "timeout" and late:
        part = "event that says anything" if streamed else "whole answer"
        what = f"no {part} within {request.timeout.total:g} s"
    if streamed:
        phase = "stream"
        if error_type == "connection":
            error_type = "incomplete_stream"
    # Under trio only a cause has words; how an event loop cancels is no part of them.
    errors = (cause for cause in _causes(error) if isinstance(cause, Exception))
    detail = next((f" ({cause})" for cause in errors if str(cause)), "")
    proxy = proxy_for(_parsed(request.url)[0]) if phase == "connect" else None
    through = f" through the proxy {without_user(proxy)}" if proxy else ""
    remedy, retryable = _remedy(error, error_type, phase, bool(proxy))
    return ProviderAPIError(
        f"{request.provider}: {what} at {where}{through}{detail}{remedy}",
        {**_context(request, error_type, phase), "in_stream": streamed},
        retryable,
    )


def _named(error: httpx.HTTPError) -> tuple[ErrorType, str, str]:
    for kind, error_type, phase, what in _ERRORS:
        if isinstance(error, kind):
            return error_type, phase, what
    return "unknown", "read", type(error).__name__


def _remedy(
    error: httpx.HTTPError, error_type: ErrorType, phase: str, proxied: bool
) -> tuple[str, bool | None]:
    """What to do about it, and whether the same call may succeed later (None: by its type)."""
    if error_type == "timeout":
        return "; timeout= sets how long to wait", None
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "; SSL_CERT_FILE names a file of trusted certificates", False
    if proxied:
        # A proxy's own refusal begins with its status.
        refused = isinstance(error, httpx.ProxyError) and str(error).startswith("4")
        remedy = "; HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names it, NO_PROXY=host goes past it"
        return remedy, False if refused else None
    if phase == "connect":
        return "; is the server up, and base_url= right?", None
    return "", None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, what caused it, what caused that."""
    seen: set[int] = set()  # an exception object that is raised again can stand in a circle
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def _without_frames(error: BaseException) -> BaseException:
    """An error without the frames of httpx, which hold the request, in which a key stands."""
    for cause in _causes(error):
        cause.__traceback__ = None
    return error


def _context(request: Request, error_type: ErrorType, phase: str) -> dict[str, Any]:
    return {
        "error_type": error_type,
        "provider": request.provider,
        "model": request.model,
        "phase": phase,
    }
