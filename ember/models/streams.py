"""A streamed answer as the caller holds it, sync and async."""

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

__all__ = ["AsyncStream", "Observe", "Observed", "Stream", "StreamSource", "close_open_streams"]


class StreamSource(Protocol):
    """What yields the chunks of one answer and knows the answer as far as it has come."""

    def run(self) -> Generator[Chunk]:
        """Send the request and yield what the answer brings."""
        ...

    def arun(self) -> AsyncGenerator[Chunk]:
        """`run` without blocking the event loop."""
        ...

    def response(self) -> ChatResponse:
        """The answer as far as it was read."""
        ...


class Observed(Protocol):
    """Follows one stream from its request to its end."""

    def finished(self, answer: ChatResponse) -> ChatResponse:
        """The answer with what the provider left out.

        Raises:
            ModelProviderError: It has no price, as it was set up; the answer is in the context.
        """
        ...

    def ended(self, response: ChatResponse, error: BaseException | None) -> None:
        """Count the stream."""
        ...


# Called when the request is sent.
Observe = Callable[[], Observed]


class _Streamed:
    """What both kinds of stream share: the text so far, and how the stream ends.

    No generator of its own: an event loop that ends closes all asynchronous generators at once,
    and one that is to close another would find it at work already.
    """

    def __init__(self, source: StreamSource, observe: Observe) -> None:
        self._source = source
        self._observe = observe
        self._observed: Observed | None = None
        self._pieces: list[str] = []
        self._response: ChatResponse | None = None

    @property
    def text(self) -> str:
        """The text so far; after the end, the whole text."""
        return "".join(self._pieces)

    @property
    def response(self) -> ChatResponse:
        """The whole answer; where the stream was left early, as far as it came.

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
        """What the answer used; see `response`."""
        return self.response.usage

    def _end(self, error: BaseException | None = None) -> None:
        if self._response is not None:
            return
        observed = self._observed
        failure: EmberError | None = None
        try:
            response = self._source.response()
            self._response = observed.finished(response) if observed else response
        except EmberError as unfinished:
            # The answer is paid for all the same.
            failure, paid = unfinished, unfinished.context.get("response")
            self._response = paid if isinstance(paid, ChatResponse) else ChatResponse("")
        if observed is not None:
            observed.ended(self._response, error or failure)
        if failure is not None and error is None:
            raise failure

    def __del__(self) -> None:
        # Let go before its end: what it used is counted; its generator closes the connection.
        if self._observed is not None and not sys.is_finalizing():
            self._end()


class Stream(_Streamed):
    """A streamed answer: an iterator of chunks, and a context manager that closes it.

    The request is sent when the first chunk is asked for. Leaving early closes the connection.
    """

    def __init__(self, source: StreamSource, observe: Observe) -> None:
        super().__init__(source, observe)
        self._chunks = source.run()
        _open_streams.add(self)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        if self._observed is None:
            self._observed = self._observe()
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


# What is still open when the interpreter ends is closed while all of Python is there: its last
# collection can find parts of it gone (CPython 3.13.0 crashes in httpx, and without Ember too).
_open_streams: WeakSet[Stream] = WeakSet()


def close_open_streams() -> None:
    """Close what is still being read, as the process ends."""
    for stream in tuple(_open_streams):
        with suppress(Exception):  # such as one that another thread is reading just now
            stream.close()


atexit.register(close_open_streams)


class AsyncStream(_Streamed):
    """`Stream` for an event loop: `async for`, `async with`, `await stream.close()`."""

    def __init__(self, source: StreamSource, observe: Observe) -> None:
        super().__init__(source, observe)
        self._chunks = source.arun()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._observed is None:
            self._observed = self._observe()
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
