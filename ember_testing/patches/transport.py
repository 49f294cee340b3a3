"""The seam: httpx's transport classes while a cassette is in use, sync and async, httpx2 as well.

Their public methods `handle_request` and `handle_async_request` are replaced on the class, so every
client of the process is seen, whether made before or after, from whatever thread. (A ContextVar
would be invisible to pool threads, which would then reach the network.) The innermost cassette
answers; with the last one gone the methods are the original ones again.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from ember_testing.exceptions import CassetteMiss
from ember_testing.patches import keys, network
from ember_testing.patches import tls as late_trust
from ember_testing.replay.request import LOOPBACK
from ember_testing.replay.session import Session
from ember_testing.wires.playback import Playback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from ember_testing.replay.recording import Take

_PATIENCE = 1.0  # seconds, on top of how long the recorded caller waited
_CHANGE = threading.RLock()
_sessions: list[Session] = []  # the innermost is last
_seams: list[_Seam] = []
_pinned = False
_lent: Mapping[str, str] = {}


def activate(session: Session) -> None:
    """Let this cassette answer from now on."""
    with _CHANGE:
        if not _sessions:
            for seam in _installed():
                seam.put_in()
        _sessions.append(session)
        _guard()


def deactivate(session: Session) -> None:
    """Let the cassette around it answer again, or the network."""
    with _CHANGE:
        _sessions.remove(session)
        if not _sessions:
            for seam in _seams:
                seam.take_out()
        _guard()


def innermost() -> Session | None:
    """The cassette that answers now."""
    sessions = _sessions
    return sessions[-1] if sessions else None


def _guard() -> None:
    session = innermost()
    _pin(session)
    _lend(session)
    if session is None or session.record:
        late_trust.take_out()
        network.open_network(recording=session is not None)
    else:
        late_trust.put_in()
        network.close_network(
            allow_loopback=session.settings.allow_loopback,
            fail=session.fail,
            command=session.command(),
        )


def _pin(session: Session | None) -> None:
    """Put the innermost cassette's prices in force."""
    global _pinned
    wanted = session.pins.table if session is not None and session.pins else None
    if wanted is not None or _pinned:
        from ember_testing.replay import prices

        prices.pin(wanted)
        _pinned = wanted is not None


def _lend(session: Session | None) -> None:
    """Let calls that are only replayed do without their keys."""
    global _lent
    keys.take_back(_lent)
    _lent = keys.lend() if session is not None and not session.record else {}


def _installed() -> list[_Seam]:
    """httpx, and its fork that the newest vendor SDKs send through, if it is there."""
    if not _seams:
        _seams.append(_Seam(httpx))
        if importlib.util.find_spec("httpx2"):
            _seams.append(_Seam(importlib.import_module("httpx2")))
    return _seams


class _Streams(NamedTuple):
    """One library's classes for a response's body."""

    sync: Callable[..., Any]
    awaited: Callable[..., Any]
    replayed: Callable[..., Any]


class _Seam:
    """The replaced methods of one library.

    Args:
        library: `httpx`, or a fork with the same public classes.
    """

    def __init__(self, library: Any) -> None:  # Any: httpx2 is not installed for every type check
        self.library = library
        self.streams = _Streams(
            type("RecordedStream", (_Recorded, library.SyncByteStream), {}),
            type("AsyncRecordedStream", (_AsyncRecorded, library.AsyncByteStream), {}),
            type(
                "ReplayedStream", (_Replayed, library.SyncByteStream, library.AsyncByteStream), {}
            ),
        )
        self._original: Callable[[Any, Any], Any] = library.HTTPTransport.handle_request
        self._awaited: Callable[[Any, Any], Awaitable[Any]] = (
            library.AsyncHTTPTransport.handle_async_request
        )
        self._put: tuple[Any, Any] = (None, None)

    def put_in(self) -> None:
        """Replace the methods."""
        sync, awaited = self.library.HTTPTransport, self.library.AsyncHTTPTransport
        self._original, self._awaited = sync.handle_request, awaited.handle_async_request
        self._put = (self._sync_method(self._original), self._async_method(self._awaited))
        sync.handle_request, awaited.handle_async_request = self._put

    def take_out(self) -> None:
        """Put the original methods back, unless somebody has replaced ours meanwhile.

        Then ours stays underneath and passes everything through.
        """
        sync, awaited = self.library.HTTPTransport, self.library.AsyncHTTPTransport
        if sync.handle_request is self._put[0]:
            sync.handle_request = self._original
        if awaited.handle_async_request is self._put[1]:
            awaited.handle_async_request = self._awaited

    def _sync_method(self, original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handle_request(transport: Any, request: Any) -> Any:
            session = _session_for(request)
            if session is None:
                return original(transport, request)
            exchange = _begin(session, request, request.read())
            if isinstance(exchange, Playback):
                if exchange.answer.outcome == "cancelled":
                    raise _waits_on(exchange)
                if exchange.timing:
                    time.sleep(exchange.answer.headers_after or 0.0)
                return self._replay(exchange)
            try:
                response = original(transport, request)
            except self.library.TransportError as error:
                exchange.finish("failed", error)
                raise
            except BaseException:  # cancelled, or interrupted
                exchange.finish("closed")
                raise
            return self._record(exchange, response, self.streams.sync)

        return handle_request

    def _async_method(
        self, original: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle_async_request(transport: Any, request: Any) -> Any:
            session = _session_for(request)
            if session is None:
                return await original(transport, request)
            exchange = _begin(session, request, await request.aread())
            if isinstance(exchange, Playback):
                if exchange.answer.outcome == "cancelled":
                    # Its caller is expected to give up here as well; at twice the time it has not.
                    await _sleep(2 * (exchange.answer.elapsed or 0.0) + _PATIENCE)
                    raise _waits_on(exchange)
                if exchange.timing:
                    await _sleep(exchange.answer.headers_after or 0.0)
                return self._replay(exchange)
            try:
                response = await original(transport, request)
            except self.library.TransportError as error:
                exchange.finish("failed", error)
                raise
            except BaseException:  # cancelled, or interrupted
                exchange.finish("closed")
                raise
            return self._record(exchange, response, self.streams.awaited)

        return handle_async_request

    def _record(self, take: Take, response: Any, stream: Callable[..., Any]) -> Any:
        extensions = response.extensions
        take.head(
            response.status_code,
            _text_pairs(response.headers.raw),
            extensions.get("http_version", b"").decode("ascii", "replace"),
            extensions.get("reason_phrase", b"").decode("ascii", "replace"),
        )
        response.stream = stream(response.stream, take, self.library.TransportError)
        return response

    def _replay(self, playback: Playback) -> Any:
        answer = playback.answer
        if answer.status is None:
            raise _error(self.library, playback)
        extensions = {
            "http_version": (answer.http_version or "HTTP/1.1").encode(),
            "reason_phrase": (answer.reason or "").encode(),
        }
        return self.library.Response(
            answer.status,
            headers=playback.headers,
            stream=self.streams.replayed(playback, self.library),
            extensions=extensions,
        )


def _session_for(request: Any) -> Session | None:
    session = innermost()
    if session and session.settings.allow_loopback and request.url.host in LOOPBACK:
        return None
    return session


def _begin(session: Session, request: Any, body: bytes) -> Playback | Take:
    __tracebackhide__ = True  # a miss is told without the way it came
    return session.begin(request.method, str(request.url), _text_pairs(request.headers.raw), body)


def _text_pairs(raw: list[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    # latin-1 keeps every byte, whatever a server thinks a header may hold
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)


def _error(library: Any, playback: Playback) -> Exception:
    answer = playback.answer
    kind = getattr(library, answer.error_type or "", library.ReadError)
    error: Exception = kind(answer.error_message or "")
    return error


def _waits_on(playback: Playback) -> BaseException:
    request = playback.request
    return playback.session.fail(
        CassetteMiss(
            f"recording {playback.answer.id} of {request.method} {request.url} has no answer, "
            "because its caller gave up before one came; this one waits on\n"
            f"to record it anew: {playback.session.command(anew=True)}"
        )
    )


async def _sleep(seconds: float) -> None:
    import anyio  # late: httpx's own dependency, needed for timing=True only

    await anyio.sleep(seconds)


class _Recorded:
    """A response's pieces on their way to the caller, each noted as it passes."""

    def __init__(self, inner: Any, take: Take, errors: type[Exception]) -> None:
        self._inner = inner
        self._take = take
        self._errors = errors

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._inner:
                self._take.piece(piece)
                yield piece
        except self._errors as error:
            self._take.finish("cut", error)
            raise
        self._take.finish("complete")

    def close(self) -> None:
        self._take.finish("closed")
        self._inner.close()


class _AsyncRecorded:
    """The same for an awaiting caller."""

    def __init__(self, inner: Any, take: Take, errors: type[Exception]) -> None:
        self._inner = inner
        self._take = take
        self._errors = errors

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                self._take.piece(piece)
                yield piece
        except self._errors as error:
            self._take.finish("cut", error)
            raise
        self._take.finish("complete")

    async def aclose(self) -> None:
        self._take.finish("closed")
        await self._inner.aclose()


class _Replayed:
    """Recorded pieces, at the same boundaries; one class for both kinds of caller."""

    def __init__(self, playback: Playback, library: Any) -> None:
        self._playback = playback
        self._library = library

    def _pieces(self) -> Iterator[tuple[float, bytes]]:
        """How long to wait, and then the piece; the recorded end after the last."""
        playback = self._playback
        before = playback.answer.headers_after or 0.0
        for offset, piece in playback.chunks:
            yield (offset - before if playback.timing else 0.0), piece
            before = offset
        if playback.answer.outcome == "cut":
            raise _error(self._library, playback)
        if playback.answer.outcome == "closed":
            request = playback.request
            raise playback.session.fail(
                CassetteMiss(
                    f"recording {playback.answer.id} of {request.method} {request.url} ends after "
                    f"{len(playback.chunks)} pieces, because its reader closed it there; this one "
                    f"reads on\nto record it anew: {playback.session.command(anew=True)}"
                )
            )

    def __iter__(self) -> Iterator[bytes]:
        for pause, piece in self._pieces():
            if pause > 0:
                time.sleep(pause)
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause, piece in self._pieces():
            if pause > 0:
                await _sleep(pause)
            yield piece

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""
