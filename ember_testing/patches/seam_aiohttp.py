"""The seam of aiohttp: the connector and the data that its connections receive.

aiohttp itself writes the request and parses the response. For an answered request it gets a
connection whose transport accepts all writes and delivers the answer's bytes; for a recorded
request, the data received by the connection is recorded.
"""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ember_testing.patches.exchange import Exchange, answer_of_async, answerers_for, sending
from ember_testing.patches.http_bytes import ResponseParser, response_bytes
from ember_testing.patches.patch import Patch
from ember_testing.patches.sleep import wait_async
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ember_testing.wires.body import Headers

__all__ = ["Seam"]

# Turns of the event loop for the reader of a chunk before the next chunk arrives.
_TURNS = 4
# Attributes of the library and of a replayed connection that aiohttp does not guarantee.
_OF_LIBRARY = ("connector.Connection", "client_proto.ResponseHandler")
_NOT_PUBLIC = ("_parser", "_payload", "_on_read_timeout")


class Seam:
    """The replaced methods of the library's connector and of its connections.

    Args:
        library: `aiohttp`.
    """

    def __init__(self, library: Any) -> None:  # Any: aiohttp is not installed for every type check
        self._library = library
        self._parsers: WeakKeyDictionary[Any, ResponseParser] = WeakKeyDictionary()
        self.patches = [Patch(library.BaseConnector, "connect", self._connect)]
        if not _absent(library, _OF_LIBRARY):
            protocol = library.client_proto.ResponseHandler
            self.patches += [
                Patch(protocol, "data_received", self._data_received),
                Patch(protocol, "connection_lost", self._connection_lost),
                Patch(protocol, "set_exception", self._set_exception),
            ]

    def _require(self, owner: Any, names: tuple[str, ...], prefix: str = "") -> None:
        if absent := _absent(owner, names):
            raise RuntimeError(
                f"aiohttp {self._library.__version__} has no {prefix}{absent[0]}, which recording "
                "and replay need: install aiohttp 3.14, or point the client at cassette_server"
            )

    def _connect(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def connect(connector: Any, req: Any, *arguments: Any, **named: Any) -> Any:
            __tracebackhide__ = True
            url = str(req.url.with_fragment(None))
            if not (chosen := answerers_for(req.method, url)):
                return await original(connector, req, *arguments, **named)
            self._require(self._library, _OF_LIBRARY)
            body = await _body_of(req)
            sent = Request(req.method, url, _pairs(req.headers), body)
            answer = await answer_of_async(chosen, sent)
            if isinstance(answer, Response):
                return await self._played(connector, req, answer)
            try:
                with sending(req.method, url):
                    connection = await original(connector, req, *arguments, **named)
            except BaseException as error:
                if answer is not None:
                    self._failed(answer, error)
                raise
            if answer is not None:
                self._parsers[connection.protocol] = ResponseParser(answer)
                connection.add_callback(self._parsers[connection.protocol].closed)
            return connection

        return connect

    def _failed(self, exchange: Exchange, error: BaseException) -> None:
        if isinstance(error, asyncio.TimeoutError):
            exchange.finish("failed", NetworkFailure("ConnectTimeout", str(error)))
        elif isinstance(error, (OSError, self._library.ClientError)):
            exchange.finish("failed", NetworkFailure("ConnectError", str(error)))
        elif isinstance(error, Exception):  # the client's error: its session or its loop is closed
            exchange.finish("unsent")
        else:  # cancelled
            exchange.finish("closed")

    # Recorded connections --------------------------------------------------------------------

    def _data_received(self, original: Callable[..., None]) -> Callable[..., None]:
        def data_received(protocol: Any, data: bytes) -> None:
            if data and (parser := self._parsers.get(protocol)) is not None:
                parser.receive(data)
            original(protocol, data)

        return data_received

    def _connection_lost(self, original: Callable[..., None]) -> Callable[..., None]:
        def connection_lost(protocol: Any, exc: BaseException | None) -> None:
            if (parser := self._parsers.pop(protocol, None)) is not None:
                if exc is None:
                    parser.receive(b"")
                else:
                    parser.broke(NetworkFailure("ReadError", str(exc)))
            original(protocol, exc)

        return connection_lost

    def _set_exception(self, original: Callable[..., None]) -> Callable[..., None]:
        def set_exception(protocol: Any, exc: BaseException, *arguments: Any) -> None:
            parser = self._parsers.get(protocol)
            if parser is not None and isinstance(exc, asyncio.TimeoutError):
                parser.broke(NetworkFailure("ReadTimeout", str(exc)))
            original(protocol, exc, *arguments)

        return set_exception

    # Replayed connections --------------------------------------------------------------------

    async def _played(self, connector: Any, req: Any, answer: Response) -> Any:
        if answer.status is None:
            end = answer.end
            if not isinstance(end, NetworkFailure):
                if answer.delay:
                    await wait_async(answer.delay)
                raise answer.failure(_error)
            if end.error == "ConnectTimeout":
                raise asyncio.TimeoutError(end.message)
            if end.error == "ConnectError":
                cause = OSError(111, end.message)
                raise self._library.ClientConnectorError(req.connection_key, cause)
        loop = asyncio.get_running_loop()
        protocol = self._library.client_proto.ResponseHandler(loop)
        self._require(protocol, _NOT_PUBLIC, "ResponseHandler.")
        protocol.force_close()  # the connection must not be reused
        protocol.connection_made(_ReplayTransport(protocol, answer))
        return self._library.connector.Connection(connector, req.connection_key, protocol, loop)


class _ReplayTransport(asyncio.Transport):
    """Accepts a request and delivers the answer's bytes to the protocol."""

    def __init__(self, protocol: Any, answer: Response) -> None:
        super().__init__()
        self._protocol = protocol
        self._answer = answer
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def write(self, data: Any) -> None:
        # The data is discarded. The first write is the request's headers, after which the response
        # may begin; the body is already known.
        if self._task is None and not self._closing:
            self._task = asyncio.get_running_loop().create_task(self._play())

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"")

    async def _play(self) -> None:
        protocol = self._protocol
        while protocol._parser is None:
            await asyncio.sleep(0)
        last = 1 + sum(map(bool, self._answer.pieces))  # the headers, then the chunks
        try:
            for pause, data in response_bytes(self._answer, protocol.read_timeout, _error):
                if pause > 0:
                    await wait_async(pause)
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                await self._resumed.wait()
                if self._closing:
                    return
                protocol.data_received(data)
                last -= 1
                if not last and callable(self._answer.end) and not await self._is_read_on():
                    return
        except _End as ended:
            protocol.connection_lost(ended.cause)
        except TimeoutError:
            protocol._on_read_timeout()
        except BaseException as failure:  # a miss is raised to the reader
            protocol.set_exception(failure)
            if protocol._payload is not None:
                protocol._payload.set_exception(failure)
        else:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if not self._closing:
                protocol.connection_lost(None)

    async def _is_read_on(self) -> bool:
        """Wait until a reader waits for more data: a reader who leaves causes no miss."""
        while not self._closing:
            payload: Any = self._protocol._payload
            if payload is not None and getattr(payload, "_waiter", payload):
                return True
            await wait_async(0.001)
        return False

    def pause_reading(self) -> None:
        self._resumed.clear()

    def resume_reading(self) -> None:
        self._resumed.set()

    def is_reading(self) -> bool:
        return self._resumed.is_set()

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self._closing = True
        self._resumed.set()

    abort = close


class _End(Exception):
    """The connection ends here, with an error if there is a cause."""

    def __init__(self, cause: OSError | None) -> None:
        self.cause = cause


def _error(broken: NetworkFailure) -> Exception:
    if broken.error.endswith("Timeout"):
        return TimeoutError(broken.message)
    if broken.error == "RemoteProtocolError":
        return _End(None)
    return _End(ConnectionResetError(104, broken.message))


def _absent(owner: Any, names: tuple[str, ...]) -> list[str]:
    """Return the dotted names that `owner` does not have."""
    absent: list[str] = []
    for name in names:
        try:
            attrgetter(name)(owner)
        except AttributeError:
            absent.append(name)
    return absent


async def _body_of(req: Any) -> bytes:
    body = req.body
    if isinstance(body, bytes):
        return body
    as_bytes: Any = getattr(body, "as_bytes", None)
    if as_bytes is not None:
        read: bytes = await as_bytes()
        return read
    raise TypeError(
        f"a body of type {type(body).__name__} cannot be read before it is sent by this version of "
        "aiohttp: pass bytes, or install aiohttp 3.12 or newer"
    )


def _pairs(headers: Any) -> Headers:
    return tuple((str(name), HeaderValue(str(value))) for name, value in headers.items())
