"""A provider that is reached over HTTP: the way of a call, in both colours.

A call is `parse(send(request))`. All that decides anything is pure and stands in the wire; here is
the I/O, and the two colours differ in a few `await`s only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk
from ember.providers.base import BaseProvider
from ember.providers.json_values import loaded, reported_error, text_of
from ember.transport import send as transport

if TYPE_CHECKING:
    from ember.providers.streaming import StreamParser
    from ember.providers.wire import Call, Wire

__all__ = ["HTTPProvider", "StreamedCall", "parse"]


class HTTPProvider(BaseProvider):
    """A provider that speaks one of Ember's wires.

    The key and the base URL are the environment's at the time of each call, so that a rotated key
    is used at once.

    Args:
        wire: What is spoken, and where.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @property
    def api_key(self) -> str | None:  # type: ignore[override]  # looked up, where others store it
        """The key that the environment holds now."""
        return self.wire.key()

    def complete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """Answer a prompt; see `models` for the parameters and the errors."""
        wire = self.wire.for_call(model, kwargs)
        call = wire.call(prompt, model, kwargs)
        return parse(wire, call, transport.send(wire.request(call)))

    async def acomplete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        """`complete` without blocking the event loop."""
        wire = self.wire.for_call(model, kwargs)
        call = wire.call(prompt, model, kwargs)
        return parse(wire, call, await transport.asend(wire.request(call)))

    def stream(self, prompt: Any, model: str, **kwargs: Any) -> StreamedCall:
        """Prepare an answer in pieces; nothing is sent before it runs."""
        from ember.providers.streaming import StreamParser  # late: for streams only

        wire = self.wire.for_call(model, kwargs)
        call = wire.call(prompt, model, kwargs, stream=True)
        return StreamedCall(wire.request(call), StreamParser(wire, call))


class StreamedCall:
    """One streamed call.

    Args:
        request: What to send.
        parser: What reads the answer.
    """

    def __init__(self, request: transport.Request, parser: StreamParser) -> None:
        self._request = request
        self._parser = parser

    def run(self) -> Generator[Chunk]:
        """Send the request and yield what the answer brings, as it arrives."""
        parser = self._parser
        try:
            with transport.open(self._request) as body:
                parser.start(body.status, body.headers)
                for piece in body.pieces():
                    yield from parser.feed(piece)
            yield from parser.finish()
        except ProviderAPIError as error:
            parser.explain(error)
            raise

    async def arun(self) -> AsyncGenerator[Chunk]:
        """`run` without blocking the event loop."""
        parser = self._parser
        try:
            async with transport.aopen(self._request) as body:
                parser.start(body.status, body.headers)
                async for piece in body.pieces():
                    for chunk in parser.feed(piece):
                        yield chunk
            for chunk in parser.finish():
                yield chunk
        except ProviderAPIError as error:
            parser.explain(error)
            raise

    def response(self) -> ChatResponse:
        """The answer as far as it was read."""
        return self._parser.response()


def parse(wire: Wire, call: Call, reply: transport.Reply) -> ChatResponse:
    """The response that an answer means.

    Raises:
        ProviderAPIError: The provider reports an error, or the answer is not of this wire.
    """
    status, headers = reply.status, reply.headers
    text = text_of(reply.content)
    try:
        body = loaded(text)
    except ValueError:
        body = text
    if not 200 <= status < 300:
        raise wire.error(call, status, headers, body)
    if not isinstance(body, Mapping):
        return _parse_as_stream(wire, call, reply, body)
    item = cast("Mapping[str, Any]", body)
    answer = wire.read(item)
    if reported_error(item):
        from ember.providers.streaming import told_so_far  # late: few programs meet one

        raise told_so_far(wire.error(call, status, headers, item), answer)
    if answer is None:
        raise wire.bad_response(call, status, headers, item)
    return wire.response(call, answer, headers, item)


def _parse_as_stream(wire: Wire, call: Call, reply: transport.Reply, body: object) -> ChatResponse:
    """Some servers stream whether asked to or not, and Google may send an array."""
    from ember.providers.streaming import StreamParser  # late: for streams only

    parser = StreamParser(wire, call)
    parser.start(reply.status, reply.headers)
    try:
        for _ in (*parser.feed(reply.content), *parser.finish()):
            pass
    except ProviderAPIError as error:
        parser.explain(error)
        if error.error_type == "incomplete_stream" and not error.context["partial_text"]:
            raise wire.bad_response(call, reply.status, reply.headers, body) from None
        raise
    return parser.response()
