"""Sends requests, reads responses whole or in pieces, and maps httpx's errors to Ember's.

Only this package touches the network.
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

# The wait after a stream's last event, for what some servers send after it and for the body's end,
# without which the connection cannot be reused.
_END_SECONDS = 5.0
_DEFAULT_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "ember"}


class Timeout(NamedTuple):
    """Timeouts in seconds; None waits for ever.

    Args:
        connect: For opening a connection, including the TLS handshake.
        read: For each write of the request and each read of the response; in a stream, for each
            event that carries text, reasoning, a tool call or usage.
        total: For a whole response that is not streamed; in a stream, for the first such event.
    """

    connect: float | None = 5.0
    read: float | None = 600.0
    total: float | None = 600.0


class Request(NamedTuple):
    """One HTTP POST, ready to send.

    Args:
        url: The URL.
        headers: The headers, with names in lower case.
        content: The body.
        timeout: How long to wait.
        provider: The provider, for error messages.
        model: The model, for error messages.
        address: Returns the host and port to connect to instead of the URL's. It is called when a
            connection is needed: only then does a server in this process start.
    """

    url: str
    headers: Mapping[str, str]
    content: bytes
    timeout: Timeout
    provider: str
    model: str
    address: Callable[[], tuple[str, int]] | None = None


class Reply(NamedTuple):
    """The whole response to a `Request`; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def send(request: Request) -> Reply:
    """Send a request and read the whole response.

    Raises:
        ProviderAPIError: Its type is `timeout`, `connection` or `bad_response`.
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
            # The response may repeat the key: clear the variables that a traceback could show.
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
            # A variable keeps the iterator until the connection is closed: if it were collected
            # earlier, the event loop would close it at some other time.
            arriving = aiter(cast("httpx.AsyncByteStream", response.stream))
            async for piece in arriving:
                if decoded := decoder.feed(piece):
                    pieces += decoded
                    exchange.next = None
                exchange.check()
        except BaseException:
            # The response may repeat the key: clear the variables that a traceback could show.
            pieces, piece, decoded = [], b"", []
            raise
        finally:
            await response.aclose()
        return Reply(response.status_code, headers, b"".join(pieces))


def open(request: Request) -> Body:
    """Return a context manager that sends a request, to read the response as it arrives."""
    return Body(request)


def aopen(request: Request) -> AsyncBody:
    """`open` without blocking the event loop."""
    return AsyncBody(request)


class _OpenResponse:
    """The part of a response that sync and async share: status, headers and timeouts."""

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
        """Start the wait for the next event that carries a part of the answer.

        `timeout.read` limits it, whatever else the server sends.
        """
        self._exchange.expect_event()

    def expect_end(self) -> None:
        """Wait a few seconds for the end of the body: the answer is complete.

        From now on it is no error if the connection stays open or breaks.
        """
        self._exchange.expect_end()


class Body(_OpenResponse):
    """A response that is read as it arrives, inside a `with` block."""

    def __enter__(self) -> Body:
        self._exchange = _Exchange(self._request)
        with self._exchange:
            self._begin(client().exchange(_httpx_request(self._request, self._exchange)))
        return self

    def pieces(self) -> Iterator[bytes]:
        """Iterate over the decoded body as it arrives."""
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

    An iterator, not a generator, for the reason given in `streams.py`.
    """

    async def __aenter__(self) -> AsyncBody:
        self._exchange = _Exchange(self._request)
        with self._exchange:
            send = (await async_client()).exchange
            self._begin(await send(_httpx_request(self._request, self._exchange)))
        # Kept as in asend.
        self._arriving = aiter(cast("httpx.AsyncByteStream", self._response.stream))
        self._decoder: ContentDecoder | None = None
        self._decoded: deque[bytes] = deque()
        return self

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the decoded body as it arrives."""
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
        return dict(response.headers)  # httpx detects the encoding, which takes longer
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
    made.read()  # for hooks that read request.content
    return made


@functools.lru_cache(maxsize=100)
def _by_phase(timeout: Timeout) -> dict[str, float | None]:
    """Convert a timeout to httpx's."""
    waits = [seconds for seconds in (timeout.read, timeout.total) if seconds is not None]
    read = min(waits, default=None)
    return {"connect": timeout.connect, "read": read, "write": read, "pool": read}


@functools.lru_cache(maxsize=1000)
def _parsed(url: str) -> tuple[httpx.URL, str, str | None]:
    """Return a URL, its host header and its Unix socket; parsing takes a tenth of a call."""
    unix_socket = None
    if url.startswith("http+unix://"):  # the host is a socket's percent-encoded path
        quoted, slash, path = url.removeprefix("http+unix://").partition("/")
        unix_socket, url = unquote(quoted), f"http://localhost{slash}{path}"
        if "\0" in quoted or "\0" in unix_socket[1:]:  # Linux's abstract sockets begin with one
            raise httpx.InvalidURL("the path of a socket holds a NUL")
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol("it does not begin with http:// or https://")
    if not parsed.host or unix_socket == "":
        raise httpx.InvalidURL("it names no host")
    return parsed, parsed.netloc.decode("ascii"), unix_socket


# --- errors of httpx as Ember's ------------------------------------------------------------------

# Every subclass of httpx.HTTPError that a request can raise, subclasses before their bases.
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
    """The deadlines of one call; as a context manager, it maps httpx's errors to Ember's.

    Attributes:
        answered: Whether the answer is complete and only the end of the body is missing.
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
        """Start the wait for a stream's first event with a part of the answer: at most `total`."""
        self._streamed = True
        self.next = None if self.end == math.inf else self.end

    def expect_event(self) -> None:
        """Start the wait for the next such event; their number is not limited."""
        self.end, self.next, self.answered = math.inf, None, False

    def expect_end(self) -> None:
        """Start the wait for the end of the body, which matters only for reuse."""
        if not self.answered:
            self.answered = True
            self.end, self.next = math.inf, time.monotonic() + min(self.read, _END_SECONDS)

    def check(self) -> None:
        """Enforce the deadline on a custom transport, which does not know it."""
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
        # A host name that cannot be encoded for DNS raises UnicodeError.
        if isinstance(error, (httpx.InvalidURL, *_SETUP_ERRORS, UnicodeError)):
            raise _setup_error(error, self._request) from _without_frames(error)
        if isinstance(error, httpx.HTTPError):
            late = time.monotonic() >= self.end
            api_error = _api_error(error, self._request, self._streamed, late)
            raise api_error from _without_frames(error)


def _setup_error(error: Exception, request: Request) -> ModelProviderError:
    where, why = without_user(request.url), str(error)
    if isinstance(error, httpx.LocalProtocolError):
        # Its message and those of its causes contain the header's value, perhaps the key.
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
    # The request that httpx attaches has the key in its headers.
    error.request = httpx.Request("POST", where)
    error_type, phase, what = _named(error)
    if error_type == "timeout" and late:
        part = "event that says anything" if streamed else "whole answer"
        what = f"no {part} within {request.timeout.total:g} s"
    if streamed:
        phase = "stream"
        if error_type == "connection":
            error_type = "incomplete_stream"
    # Under trio only a cause has a message. Cancellations (BaseException) do not belong in it.
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
    """Return a hint, and whether the call may be retried (None: depends on the error type)."""
    if error_type == "timeout":
        return "; timeout= sets how long to wait", None
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "; SSL_CERT_FILE names a file of trusted certificates", False
    if proxied:
        # The message of a proxy's own refusal begins with its status.
        refused = isinstance(error, httpx.ProxyError) and str(error).startswith("4")
        remedy = "; HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names it, NO_PROXY=host goes past it"
        return remedy, False if refused else None
    if phase == "connect":
        return "; is the server up, and base_url= right?", None
    return "", None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its chain of causes."""
    seen: set[int] = set()  # an exception that is raised again can be its own cause
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def _without_frames(error: BaseException) -> BaseException:
    """Remove the traceback of an error: httpx's frames hold the request with the key."""
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
