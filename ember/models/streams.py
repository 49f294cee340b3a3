"""Streamed answers, sync and async."""

from __future__ import annotations

import atexit
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Protocol
from weakref import WeakSet

from ember.exceptions import EmberError, ModelProviderError
from ember.models.schemas import ChatResponse, Chunk, UsageStats

__all__ = ["AsyncStream", "Stream", "StreamObserver", "StreamSource", "close_open_streams"]


class StreamSource(Protocol):
    """The source of one answer's chunks and of the answer so far."""

    def run(self) -> Generator[Chunk]:
        """Send the request and yield the answer's chunks."""
        ...

    def arun(self) -> AsyncGenerator[Chunk]:
        """`run` without blocking the event loop."""
        ...

    def response(self) -> ChatResponse:
        """Return the answer as far as it was read."""
        ...


class StreamObserver(Protocol):
    """An observer of one stream from its request to its end."""

    def complete(self, answer: ChatResponse) -> ChatResponse:
        """Return the answer with the fields that the provider left out.

        Raises:
            ModelProviderError: The price settings are malformed; the context has the answer.
        """
        ...

    def end(self, response: ChatResponse, error: BaseException | None) -> None:
        """Count the stream."""
        ...


class _BaseStream:
    """The part that sync and async streams share: the text so far, and the end of the stream.

    Streams are not generators: an event loop closes all async generators at once as it ends, so
    one that closes another could find it already running.
    """

    def __init__(self, source: StreamSource, start_observer: Callable[[], StreamObserver]) -> None:
        self._source = source
        self._start_observer = start_observer
        self._observer: StreamObserver | None = None
        self._pieces: list[str] = []
        self._response: ChatResponse | None = None

    @property
    def text(self) -> str:
        """The text so far; after the end, the whole text."""
        return "".join(self._pieces)

    @property
    def response(self) -> ChatResponse:
        """The whole answer, or the part received if the stream was closed early.

        Raises:
            ModelProviderError: The stream has not ended yet.
        """
        if self._response is None:
            raise ModelProviderError(
                "the stream has not ended: iterate it to its end, or close() it, and then look "
                "at .response and .usage"
            )
        return self._response

    @property
    def usage(self) -> UsageStats:
        """The usage of the answer; see `response`."""
        return self.response.usage

    def _end(self, error: BaseException | None = None) -> None:
        if self._response is not None:
            return
        observer = self._observer
        failure: EmberError | None = None
        try:
            response = self._source.response()
            self._response = observer.complete(response) if observer else response
        except EmberError as error_at_end:
            # The answer was billed nevertheless.
            failure, paid = error_at_end, error_at_end.context.get("response")
            self._response = paid if isinstance(paid, ChatResponse) else ChatResponse("")
        if observer is not None:
            observer.end(self._response, error or failure)
        if failure is not None and error is None:
            raise failure

    def __del__(self) -> None:
        # Collected before its end: count its usage. Its generator closes the connection.
        if self._observer is not None and not sys.is_finalizing():
            self._end()


class Stream(_BaseStream):
    """A streamed answer: an iterator of chunks, and a context manager that closes it.

    The request is sent when the first chunk is read. Leaving early closes the connection.
    """

    def __init__(self, source: StreamSource, start_observer: Callable[[], StreamObserver]) -> None:
        super().__init__(source, start_observer)
        self._chunks = source.run()
        _open_streams.add(self)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        if self._observer is None:
            self._observer = self._start_observer()
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._pieces.append(chunk.text)
        return chunk

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise TypeError(
                "models.stream() is read by `for`; for `async for` write "
                "`async for chunk in models.astream(model, prompt)`"
            )

        __aenter__ = __aexit__ = __await__ = __aiter__

    def close(self) -> None:
        """Stop here and close the connection."""
        self._chunks.close()
        self._end()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


# Streams still open at exit are closed by atexit: the interpreter's final collection can run
# without parts of Python (CPython 3.13.0 crashes in httpx, even without Ember).
_open_streams: WeakSet[Stream] = WeakSet()


def close_open_streams() -> None:
    """Close the streams that are still open as the process ends."""
    for stream in tuple(_open_streams):
        with suppress(Exception):  # raised if another thread is reading the stream
            stream.close()


atexit.register(close_open_streams)


class AsyncStream(_BaseStream):
    """`Stream` for an event loop: `async for`, `async with`, `await stream.close()`."""

    def __init__(self, source: StreamSource, start_observer: Callable[[], StreamObserver]) -> None:
        super().__init__(source, start_observer)
        self._chunks = source.arun()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._observer is None:
            self._observer = self._start_observer()
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        self._pieces.append(chunk.text)
        return chunk

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "models.astream() is read by `async for`, without an await; for `for` write "
                "`for chunk in models.stream(model, prompt)`"
            )

        __enter__ = __exit__ = __await__ = __iter__

    async def close(self) -> None:
        """Stop here and close the connection."""
        await self._chunks.aclose()
        self._end()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()
