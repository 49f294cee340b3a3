"""Sends requests, and reads responses whole or in pieces.

Only this package touches the network.
"""

from __future__ import annotations

import functools
import math
import os
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httpx

from ember.transport.client import send_request, send_request_async

__all__ = [
    "AsyncStreamedResponse",
    "Request",
    "Response",
    "StreamedResponse",
    "Timeout",
    "asend",
    "send",
]

# The wait after a stream's last event, for what some servers send after it and for the body's end,
# without which the connection cannot be reused.
_END_SECONDS = 5.0
# More than any provider sends: a response with several large images has about 50 MB.
_MAX_BODY_BYTES = 128 * 1024 * 1024
# A small piece can decode to a thousand times its size; at most this much is decoded at once.
_PIECE_BYTES = 1024 * 1024
# The window size that makes zlib expect a gzip header.
_GZIP = 16 + zlib.MAX_WBITS
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


class Response(NamedTuple):
    """The whole response to a `Request`; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def send(request: Request) -> Response:
    """Send a request and read the whole response.

    Raises:
        ProviderAPIError: Its type is `timeout`, `connection` or `bad_response`.
        ModelProviderError: The URL, a header or the proxy's address is not valid.
    """
    with _CallDeadline(request) as deadline:
        response = send_request(_httpx_request(request, deadline))
        pieces: list[bytes] = []
        try:
            headers = _headers(response)
            decoder = ContentDecoder(headers)
            deadline.read_end = None
            for piece in cast("httpx.SyncByteStream", response.stream):
                if decoded := decoder.feed(piece):
                    pieces += decoded
                    deadline.read_end = None
                deadline.enforce()
        except BaseException:
            # The response may repeat the key: clear the variables that a traceback could show.
            pieces, piece, decoded = [], b"", []
            raise
        finally:
            response.close()
        return Response(response.status_code, headers, b"".join(pieces))


async def asend(request: Request) -> Response:
    """`send` without blocking the event loop."""
    with _CallDeadline(request) as deadline:
        response = await send_request_async(_httpx_request(request, deadline))
        pieces: list[bytes] = []
        try:
            headers = _headers(response)
            decoder = ContentDecoder(headers)
            deadline.read_end = None
            # A variable keeps the iterator until the connection is closed: if it were collected
            # earlier, the event loop would close it at some other time.
            stream = aiter(cast("httpx.AsyncByteStream", response.stream))
            async for piece in stream:
                if decoded := decoder.feed(piece):
                    pieces += decoded
                    deadline.read_end = None
                deadline.enforce()
        except BaseException:
            # The response may repeat the key: clear the variables that a traceback could show.
            pieces, piece, decoded = [], b"", []
            raise
        finally:
            await response.aclose()
        return Response(response.status_code, headers, b"".join(pieces))


class _BaseStreamedResponse:
    """The part of a response that sync and async share: status, headers and deadline."""

    status: int
    headers: Mapping[str, str]
    deadline: _CallDeadline

    def __init__(self, request: Request) -> None:
        self._request = request

    def _begin(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = _headers(response)
        self.deadline.expect_first_event()


class StreamedResponse(_BaseStreamedResponse):
    """A response that is read as it arrives, inside a `with` block."""

    def __enter__(self) -> StreamedResponse:
        self.deadline = _CallDeadline(self._request)
        with self.deadline:
            self._begin(send_request(_httpx_request(self._request, self.deadline)))
        return self

    def pieces(self) -> Iterator[bytes]:
        """Iterate over the decoded body as it arrives."""
        with self.deadline:
            decoder = ContentDecoder(self.headers)
            try:
                for piece in cast("httpx.SyncByteStream", self._response.stream):
                    yield from decoder.feed(piece)
            except httpx.TransportError:
                if not self.deadline.is_answered:
                    raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self.deadline:
            self._response.close()


class AsyncStreamedResponse(_BaseStreamedResponse):
    """`StreamedResponse` for an event loop.

    An iterator, not a generator, for the reason given in `streams.py`.
    """

    async def __aenter__(self) -> AsyncStreamedResponse:
        self.deadline = _CallDeadline(self._request)
        with self.deadline:
            self._begin(await send_request_async(_httpx_request(self._request, self.deadline)))
        # Kept as in asend.
        self._stream = aiter(cast("httpx.AsyncByteStream", self._response.stream))
        self._decoder: ContentDecoder | None = None
        self._decoded: deque[bytes] = deque()
        return self

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the decoded body as it arrives."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self.deadline:
            if self._decoder is None:
                self._decoder = ContentDecoder(self.headers)
            try:
                while not self._decoded:
                    self._decoded += self._decoder.feed(await self._stream.__anext__())
            except httpx.TransportError:
                if not self.deadline.is_answered:
                    raise
                raise StopAsyncIteration from None
            return self._decoded.popleft()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self.deadline:
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


def _httpx_request(request: Request, deadline: _CallDeadline) -> httpx.Request:
    url, host, unix_socket = _parsed(request.url)
    extensions: dict[str, Any] = {
        "timeout": _by_phase(request.timeout),
        "ember_deadline": deadline,
    }
    if unix_socket:
        extensions["ember_unix_socket"] = unix_socket
    if request.address is not None:
        extensions["ember_address"] = request.address
    httpx_request = httpx.Request(
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
    httpx_request.read()  # for hooks that read request.content
    return httpx_request


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


class _CallDeadline:
    """The deadlines of one call; as a context manager, it converts httpx's errors to Ember's.

    Attributes:
        is_answered: Whether the answer is complete and only the end of the body is missing.
        connect: See `pool.Deadline`, as for `end`, `read` and `read_end`.
    """

    __slots__ = ("_request", "_streamed", "connect", "end", "is_answered", "read", "read_end")

    def __init__(self, request: Request) -> None:
        connect, read, total = request.timeout
        self._request = request
        self._streamed = self.is_answered = False
        self.connect = math.inf if connect is None else connect
        self.read = math.inf if read is None else read
        self.end = math.inf if total is None else time.monotonic() + total
        self.read_end: float | None = None

    def expect_first_event(self) -> None:
        """Start the wait for a stream's first event with a part of the answer: at most `total`."""
        self._streamed = True
        self.read_end = None if self.end == math.inf else self.end

    def expect_event(self) -> None:
        """Start the wait for the next such event; their number is not limited."""
        self.end, self.read_end, self.is_answered = math.inf, None, False

    def expect_end(self) -> None:
        """Start the wait for the end of the body, which matters only for reuse."""
        if not self.is_answered:
            self.is_answered = True
            self.end, self.read_end = math.inf, time.monotonic() + min(self.read, _END_SECONDS)

    def enforce(self) -> None:
        """Enforce the deadline on a custom transport, which does not know it."""
        if time.monotonic() > self.end:
            raise httpx.ReadTimeout("timed out")

    def __enter__(self) -> _CallDeadline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            return
        # Imported late, but no later than the pool is: importing Ember does without it.
        from ember.transport.errors import as_ember_error, without_frames

        request = self._request
        limit = request.timeout.total if time.monotonic() >= self.end else None
        facts = {"provider": request.provider, "model": request.model}
        converted = as_ember_error(error, request.url, facts, self._streamed, limit)
        if converted is not None:
            raise converted from without_frames(error)


class ContentDecoder:
    """An incremental decoder for the content encoding of one body, with a length limit.

    Unknown encodings, such as `utf-8`, are ignored, as in httpx.

    Args:
        headers: The response's headers, with names in lower case.

    Raises:
        httpx.DecodingError: The body has several encodings, or one that was not requested.
        ModelProviderError: `EMBER_MAX_BODY_BYTES` is not a number of 0 or more.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._limit: float = _MAX_BODY_BYTES
        if "EMBER_MAX_BODY_BYTES" in os.environ:
            from ember.transport.environment import number

            self._limit = number("EMBER_MAX_BODY_BYTES", _MAX_BODY_BYTES)
        self._length = 0
        self._inflater = None
        self._header = b""  # the zlib header of "deflate", which some servers omit
        self._encoding = encoding = headers.get("content-encoding", "").strip().lower()
        if encoding in ("br", "zstd", "compress") or "," in encoding:
            raise httpx.DecodingError(f"content-encoding {encoding!r} was not asked for")
        if encoding in ("gzip", "x-gzip"):
            self._inflater = zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Decode a piece of the body.

        Raises:
            BodyTooLong: The decoded body exceeds the limit.
            httpx.DecodingError: The encoded data is invalid.
        """
        if self._inflater is None:
            if self._encoding != "deflate":
                self._length += len(data)
                if self._length > self._limit:
                    raise self._too_long()
                return (data,)
            data = self._header = self._header + data
            if len(data) < 2:
                return ()
            has_header = data[0] % 16 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._inflater.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise httpx.DecodingError(str(error)) from error
            self._length += len(piece)
            if self._length > self._limit:
                raise self._too_long()
            if piece:
                pieces.append(piece)
            data = self._inflater.unconsumed_tail
            if not data and len(piece) < _PIECE_BYTES:
                return pieces

    def _too_long(self) -> httpx.TransportError:
        from ember.transport.errors import BodyTooLong

        return BodyTooLong(f"EMBER_MAX_BODY_BYTES allows {self._limit:.0f} bytes, decoded")
