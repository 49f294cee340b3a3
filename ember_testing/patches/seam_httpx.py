"""The seam of httpx and httpx2: public methods of their transports, replaced on the class.

This covers every client of the process, created before or after, in any thread. A client with a
custom transport, such as that of an application under test, is not affected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_testing.patches.exchange import (
    Exchange,
    answer_of,
    answer_of_async,
    answerers_for,
    sending,
)
from ember_testing.patches.patch import Patch
from ember_testing.patches.sleep import wait, wait_async
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from ember_testing.wires.body import Headers

__all__ = ["Seam"]


class Seam:
    """The replaced methods of one library.

    Args:
        library: `httpx`, or a fork with the same public classes.
    """

    def __init__(self, library: Any) -> None:  # Any: httpx2 is not installed for every type check
        self.library = library
        self._recorded = type("RecordedStream", (_SyncRecordingStream, library.SyncByteStream), {})
        self._recorded_async = type(
            "AsyncRecordedStream", (_AsyncRecordingStream, library.AsyncByteStream), {}
        )
        both = (_ReplayStream, library.SyncByteStream, library.AsyncByteStream)
        self._played = type("PlayedStream", both, {})
        self.patches = (
            Patch(library.HTTPTransport, "handle_request", self._sync_method),
            Patch(library.AsyncHTTPTransport, "handle_async_request", self._async_method),
        )

    def _sync_method(self, original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handle_request(transport: Any, request: Any) -> Any:
            __tracebackhide__ = True
            chosen = answerers_for(request.method, url := str(request.url))
            if not chosen:
                return original(transport, request)
            headers, body = _sent_headers(request), request.read()
            answer = answer_of(chosen, Request(request.method, url, headers, body))
            if isinstance(answer, Response):
                if answer.delay and answer.status is not None:
                    wait(answer.delay)
                return self._response(answer, request)
            try:
                with sending(request.method, url):
                    response = original(transport, request)
            except BaseException as error:
                self._failed(answer, error)
                raise
            return self._recording(answer, response, self._recorded)

        return handle_request

    def _async_method(
        self, original: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle_async_request(transport: Any, request: Any) -> Any:
            __tracebackhide__ = True
            chosen = answerers_for(request.method, url := str(request.url))
            if not chosen:
                return await original(transport, request)
            headers, body = _sent_headers(request), await request.aread()
            answer = await answer_of_async(chosen, Request(request.method, url, headers, body))
            if isinstance(answer, Response):
                if answer.delay:
                    await wait_async(answer.delay)
                return self._response(answer, request)
            try:
                with sending(request.method, url):
                    response = await original(transport, request)
            except BaseException as error:
                self._failed(answer, error)
                raise
            return self._recording(answer, response, self._recorded_async)

        return handle_async_request

    def _failed(self, exchange: Exchange | None, error: BaseException) -> None:
        if exchange is None:
            return
        if isinstance(error, self.library.TransportError):
            exchange.finish("failed", _broken(error))
        elif isinstance(error, Exception):
            # The client's error, such as that of a connection whose loop is closed.
            exchange.finish("unsent")
        else:  # cancelled, or interrupted
            exchange.finish("closed")

    def _recording(
        self, exchange: Exchange | None, response: Any, stream: Callable[..., Any]
    ) -> Any:
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
        """Return an answer as the library's own response."""

        def error(broken: NetworkFailure) -> Exception:
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
            # latin-1 keeps every byte, valid in a header or not
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


def _broken(error: BaseException) -> NetworkFailure:
    return NetworkFailure(type(error).__name__, str(error))


def _pairs(headers: Any) -> Headers:
    return tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in headers.raw)


class _RecordingStream:
    """The chunks of a response, each recorded as the caller reads it."""

    def __init__(self, inner: Any, exchange: Exchange, errors: type[Exception]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._errors = errors


class _SyncRecordingStream(_RecordingStream):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._inner:
                self._exchange.piece(piece)
                yield piece
        except self._errors as error:
            self._exchange.finish("cut", _broken(error))
            raise
        self._exchange.finish("complete")

    def close(self) -> None:
        self._exchange.finish("closed")
        self._inner.close()


class _AsyncRecordingStream(_RecordingStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                self._exchange.piece(piece)
                yield piece
        except self._errors as error:
            self._exchange.finish("cut", _broken(error))
            raise
        await self._exchange.finish_and_keep("complete")

    async def aclose(self) -> None:
        self._exchange.finish("closed")
        await self._inner.aclose()


class _ReplayStream:
    """The chunks of an answer at their recorded boundaries, for sync and async callers."""

    def __init__(
        self, answer: Response, error: Callable[[NetworkFailure], Exception], patience: float | None
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
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""
