"""From the bytes of a streamed answer to its chunks, for any wire; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk
from ember.providers.json_values import items, loaded, reported_error, request_id, text_of
from ember.providers.sse import EventDecoder
from ember.providers.wire import Answer, Call, Wire

__all__ = ["StreamParser", "told_so_far"]

_FACTS: Mapping[str, Any] = {"in_stream": True, "phase": "stream"}


class StreamParser:
    """Reads one streamed answer.

    Args:
        wire: The wire that it comes in.
        call: What was asked.
    """

    def __init__(self, wire: Wire, call: Call) -> None:
        self._wire = wire
        self._call = call
        self._reader = wire.stream_reader()
        self._decoder = EventDecoder()
        self._events: list[Any] = []
        self._failed: list[bytes] = []
        self._status = 0
        self._headers: Mapping[str, str] = {}

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the beginning of the answer."""
        self._status, self._headers = status, headers

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """The chunks that a piece of the body completes.

        Raises:
            ProviderAPIError: The stream reports an error, or is not of this wire.
        """
        if not 200 <= self._status < 300:
            self._failed.append(piece)
            return
        for name, data in self._decoder.feed(piece):
            if (chunk := self._read(name, data)) is not None:
                yield chunk

    def finish(self) -> Iterator[Chunk]:
        """The chunks that the end of the body completes.

        Raises:
            ProviderAPIError: The provider refused the call, or the stream ended too early.
        """
        if not 200 <= self._status < 300:
            text = text_of(b"".join(self._failed))
            try:
                body = loaded(text)
            except ValueError:
                body = text
            raise self._wire.error(self._call, self._status, self._headers, body)
        for name, data in self._decoder.finish():
            if (chunk := self._read(name, data, at_end=True)) is not None:
                yield chunk
        if self._reader.complete:
            return
        if not self._reader.started:
            stray = text_of(self._decoder.stray).strip()
            if self._events or stray:
                raise self._misread(self._events or stray)
        name = self._wire.server.name
        raise ProviderAPIError(
            f"{name} ({self._call.model}): the stream ended before the answer did; what arrived "
            "is in context['partial_text']",
            {
                "error_type": "incomplete_stream",
                "status_code": self._status,
                "provider": name,
                "model": self._call.model,
                "request_id": request_id(self._headers),
                **_FACTS,
            },
        )

    def response(self) -> ChatResponse:
        """The answer as far as it was read."""
        return self._wire.response(self._call, self._reader.answer(), self._headers, self._events)

    def explain(self, error: ProviderAPIError) -> None:
        """Put what arrived into the error that ended the stream: it is paid for."""
        told_so_far(error, self._reader.answer())

    def _read(self, name: str, data: str, at_end: bool = False) -> Chunk | None:
        try:
            event = loaded(data)
        except ValueError:
            bare = data.strip()
            if bare == "[DONE]":
                self._reader.complete = self._reader.complete or self._reader.ends_with_done
                return None
            if at_end or not bare:
                return None  # the last event was cut off: the missing end marker will tell
            raise self._misread(data) from None
        self._events.append(event)
        if len(wrapped := items(event)) == 1:
            event = wrapped[0]  # Google wraps an error in a list at times
        if not isinstance(event, dict):
            return None
        item = cast("Mapping[str, Any]", event)
        chunk = self._reader.read(name, item)
        failure = item if name == "error" or reported_error(item) else self._reader.failure
        if failure is not None:
            raise self._wire.error(self._call, self._status, self._headers, failure, **_FACTS)
        return chunk

    def _misread(self, body: object) -> ProviderAPIError:
        return self._wire.bad_response(self._call, self._status, self._headers, body, **_FACTS)


def told_so_far(error: ProviderAPIError, answer: Answer | None) -> ProviderAPIError:
    """The error, with what the provider had already answered: that is paid for."""
    if answer is None:
        answer = Answer()
    error.context["partial_text"] = answer.text
    if answer.usage is not None:
        error.context["usage"] = answer.usage.as_dict()
    if answer.text:
        error.retryable = False  # what was delivered can't be asked for again unnoticed
    return error
