"""The seam: every request of httpx and httpx2 is put to whoever may answer it before it is sent.

The public methods `handle_request` and `handle_async_request` of the libraries' own transports are
replaced on the class, so every client of the process is seen, whether made before or after, from
whatever thread. (A ContextVar would be invisible to pool threads, which would then reach the
network.) A client with a transport of its own, such as that of an application under test, is left
alone. With the last answerer gone the methods are the original ones again.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
import time
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_testing.patches.patch import Patch
from ember_testing.patches.sleep import note_call, wait, wait_async
from ember_testing.wires.response import Broken, HeaderValue, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from ember_testing.wires.body import Headers

__all__ = ["Answerer", "Exchange", "install", "is_asked_last", "remove"]

_LIBRARIES = ("httpx", "httpx2")


class Exchange:
    """A call that is sent and kept: its request, the pieces of its response, how it ends.

    Args:
        request: As it was sent.
        keep: Gets the exchange once, when it is over.

    Attributes:
        recorded_at: When it was sent, ISO 8601, UTC.
        status: Of the response; None before its head has come.
        headers: Of the response, as they came.
        http_version: Such as `HTTP/1.1`.
        reason: The words behind the status.
        headers_after: Seconds until the head came.
        chunks: Seconds until each piece of the body came, and its bytes.
        outcome: `complete`, `closed`, `cut`, `failed` or `cancelled`; "" until it is over.
        error: What broke it.
        elapsed: Seconds until it was over.
    """

    def __init__(self, request: Request, keep: Callable[[Exchange], None]) -> None:
        self.request = request
        self._keep = keep
        self._started = time.perf_counter()
        self.recorded_at = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        self.status: int | None = None
        self.headers: Headers = ()
        self.http_version = ""
        self.reason = ""
        self.headers_after: float | None = None
        self.chunks: list[tuple[float, bytes]] = []
        self.outcome = ""
        self.error: Exception | None = None
        self.elapsed = 0.0

    def head(self, status: int, headers: Headers, http_version: str, reason: str) -> None:
        """The response has begun."""
        self.headers_after = time.perf_counter() - self._started
        self.status, self.headers = status, headers
        self.http_version, self.reason = http_version, reason

    def piece(self, data: bytes) -> None:
        """A piece of the response has come."""
        self.chunks.append((time.perf_counter() - self._started, data))

    def finish(self, outcome: str, error: Exception | None = None) -> None:
        """The call is over; the first of several ends counts.

        Args:
            outcome: `complete`, `closed`, `cut` or `failed`; closed before the response's head is
                `cancelled`.
            error: What broke it.
        """
        if self.outcome:
            return
        cancelled = outcome == "closed" and self.status is None
        self.outcome, self.error = "cancelled" if cancelled else outcome, error
        self.elapsed = time.perf_counter() - self._started
        self._keep(self)


class Answerer(NamedTuple):
    """Whoever may answer requests in the place of the network.

    Args:
        wants: Whether a request to this URL may be for it; asked before the body is read.
        answer: Gets the request; gives the response, an exchange to send it and keep what comes,
            or None to have the next one asked.
    """

    wants: Callable[[str], bool]
    answer: Callable[[Request], Response | Exchange | None]


_change = threading.RLock()
_answerers: tuple[Answerer, ...] = ()  # in the order in which they are asked
_seams: list[_Seam] = []
# The request on its way out. Somebody's wrapper that outlived an earlier block has the method of
# that time inside of it: the request must not be answered, or recorded, there as well.
_sent: ContextVar[tuple[str, str] | None] = ContextVar("ember_testing_sent", default=None)


def install(answerer: Answerer, *, first: bool = False) -> None:
    """Ask somebody from now on.

    Args:
        answerer: Who is asked.
        first: Before the others rather than after them.
    """
    global _answerers
    with _change:
        if not _answerers:
            for seam in _installed():
                seam.put_in()
        _answerers = (answerer, *_answerers) if first else (*_answerers, answerer)


def remove(answerer: Answerer) -> None:
    """Ask that one no more."""
    global _answerers
    with _change:
        _answerers = tuple(each for each in _answerers if each is not answerer)
        if not _answerers:
            for seam in _seams:
                seam.take_out()


def is_asked_last(answerer: Answerer) -> bool:
    """Whether a request that this one leaves is sent."""
    return _answerers[-1:] == (answerer,)


def _asked(method: str, url: str) -> list[Answerer]:
    """Whom to ask about a request."""
    if not _answerers or _sent.get() == (method, url):
        return []
    return [each for each in _answerers if each.wants(url)]


def _answer(answerers: list[Answerer], request: Request) -> Response | Exchange | None:
    __tracebackhide__ = True  # a miss is told without the way it came
    note_call()
    for each in answerers:
        answer = each.answer(request)
        if answer is not None:
            return answer
    return None


def _installed() -> list[_Seam]:
    """httpx, and its fork that the newest vendor SDKs send through, if it is there."""
    if not _seams:
        found = [name for name in _LIBRARIES if importlib.util.find_spec(name)]
        _seams.extend(_Seam(importlib.import_module(name)) for name in found)
    return _seams


class _Seam:
    """The replaced methods of one library.

    Args:
        library: `httpx`, or a fork with the same public classes.
    """

    def __init__(self, library: Any) -> None:  # Any: httpx2 is not installed for every type check
        self.library = library
        self._recorded = type("RecordedStream", (_Recorded, library.SyncByteStream), {})
        self._recorded_async = type(
            "AsyncRecordedStream", (_AsyncRecorded, library.AsyncByteStream), {}
        )
        both = (_Played, library.SyncByteStream, library.AsyncByteStream)
        self._played = type("PlayedStream", both, {})
        self._patches = (
            Patch(library.HTTPTransport, "handle_request", self._sync_method),
            Patch(library.AsyncHTTPTransport, "handle_async_request", self._async_method),
        )

    def put_in(self) -> None:
        """Replace the methods."""
        for patch in self._patches:
            patch.put_in()

    def take_out(self) -> None:
        """Put the original methods back."""
        for patch in self._patches:
            patch.take_out()

    def _sync_method(self, original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handle_request(transport: Any, request: Any) -> Any:
            answerers = _asked(request.method, url := str(request.url))
            if not answerers:
                return original(transport, request)
            asked = Request(request.method, url, _sent_headers(request), request.read())
            answer = _answer(answerers, asked)
            if isinstance(answer, Response):
                if answer.delay and answer.status is not None:
                    wait(answer.delay)
                return self._response(answer, request)
            sent = _sent.set(asked[:2])
            try:
                response = original(transport, request)
            except BaseException as error:
                self._failed(answer, error)
                raise
            finally:
                _sent.reset(sent)
            return self._begun(answer, response, self._recorded)

        return handle_request

    def _async_method(
        self, original: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle_async_request(transport: Any, request: Any) -> Any:
            answerers = _asked(request.method, url := str(request.url))
            if not answerers:
                return await original(transport, request)
            asked = Request(request.method, url, _sent_headers(request), await request.aread())
            answer = _answer(answerers, asked)
            if isinstance(answer, Response):
                if answer.delay:
                    await wait_async(answer.delay)
                return self._response(answer, request)
            sent = _sent.set(asked[:2])
            try:
                response = await original(transport, request)
            except BaseException as error:
                self._failed(answer, error)
                raise
            finally:
                _sent.reset(sent)
            return self._begun(answer, response, self._recorded_async)

        return handle_async_request

    def _failed(self, exchange: Exchange | None, error: BaseException) -> None:
        if exchange is None:
            return
        if isinstance(error, Exception) and isinstance(error, self.library.TransportError):
            exchange.finish("failed", error)
        else:  # cancelled, or interrupted
            exchange.finish("closed")

    def _begun(self, exchange: Exchange | None, response: Any, stream: Callable[..., Any]) -> Any:
        if exchange is not None:
            more = response.extensions
            exchange.head(
                response.status_code,
                _pairs(response.headers),
                more.get("http_version", b"").decode("ascii", "replace"),
                more.get("reason_phrase", b"").decode("ascii", "replace"),
            )
            response.stream = stream(response.stream, exchange, self.library.TransportError)
        return response

    def _response(self, answer: Response, request: Any) -> Any:
        """An answer as the library hands it to its caller."""

        def error(broken: Broken) -> Exception:
            kind = getattr(self.library, broken.error, self.library.ReadError)
            made: Exception = kind(broken.message, request=request)
            return made

        if answer.status is None:
            raise answer.failure(error)
        more = {"http_version": answer.http_version.encode()}
        if answer.reason is not None:
            more["reason_phrase"] = answer.reason.encode()
        return self.library.Response(
            answer.status,
            # latin-1 keeps every byte, whatever a server thinks a header may hold
            headers=[(k.encode("latin-1"), v.encode("latin-1")) for k, v in answer.headers],
            stream=self._played(answer, error, request.extensions.get("timeout", {}).get("read")),
            extensions=more,
            request=request,
        )


def _sent_headers(request: Any) -> Headers:
    return tuple(
        (name.decode("latin-1"), HeaderValue(value.decode("latin-1")))
        for name, value in request.headers.raw
    )


def _pairs(headers: Any) -> Headers:
    return tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in headers.raw)


class _Recorded:
    """A response's pieces on their way to the caller, each noted as it passes."""

    def __init__(self, inner: Any, exchange: Exchange, errors: type[Exception]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._errors = errors

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._inner:
                self._exchange.piece(piece)
                yield piece
        except self._errors as error:
            self._exchange.finish("cut", error)
            raise
        self._exchange.finish("complete")

    def close(self) -> None:
        self._exchange.finish("closed")
        self._inner.close()


class _AsyncRecorded:
    """The same for an awaiting caller."""

    def __init__(self, inner: Any, exchange: Exchange, errors: type[Exception]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._errors = errors

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                self._exchange.piece(piece)
                yield piece
        except self._errors as error:
            self._exchange.finish("cut", error)
            raise
        self._exchange.finish("complete")

    async def aclose(self) -> None:
        self._exchange.finish("closed")
        await self._inner.aclose()


class _Played:
    """The pieces of an answer, at their boundaries; one class for both kinds of caller."""

    def __init__(
        self, answer: Response, error: Callable[[Broken], Exception], patience: float | None
    ) -> None:
        self._pieces = answer.timed_pieces(patience, error)

    def __iter__(self) -> Iterator[bytes]:
        for pause, piece in self._pieces:
            if pause > 0:
                wait(pause)
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause, piece in self._pieces:
            if pause > 0:
                await wait_async(pause)
            yield piece

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""
