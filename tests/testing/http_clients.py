"""The HTTP libraries of a process, each called as its users call it, for tests over all of them."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest


class Got(NamedTuple):
    """What a client got: status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Library(NamedTuple):
    """One library.

    Attributes:
        post: Sends JSON to a URL, with headers.
        pieces: The pieces of a streamed response as they are read; it may be left early.
        gathered: Many calls at once, by whatever the library has for that.
        errors: What it raises where a connection fails or breaks.
    """

    post: Callable[..., Got]
    pieces: Callable[[str], Iterator[bytes]]
    errors: tuple[type[BaseException], ...]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _httpx_like(name: str) -> Library:
    library: Any = pytest.importorskip(name)

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        with library.Client(verify=False, timeout=5) as client:
            response = client.post(url, json=body, headers=headers)
        return Got(response.status_code, _lower(response.headers), response.content)

    def pieces(url: str) -> Iterator[bytes]:
        with (
            library.Client(verify=False, timeout=5) as client,
            client.stream("POST", url, json={}) as response,
        ):
            yield from response.iter_raw()

    return Library(post, pieces, (library.TransportError,))


def _awaited(
    post: Callable[..., Any], pieces: Callable[[str], AsyncIterator[bytes]], errors: Any
) -> Library:
    """A library whose calls are awaited, each in a loop of its own."""

    def run(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        got: Got = asyncio.run(post(url, body, headers))
        return got

    def iterate(url: str) -> Iterator[bytes]:
        with asyncio.Runner() if hasattr(asyncio, "Runner") else _Runner() as runner:
            stream = pieces(url)
            try:
                while True:
                    try:
                        yield runner.run(stream.__anext__())
                    except StopAsyncIteration:
                        return
            finally:
                runner.run(stream.aclose())  # type: ignore[attr-defined]  # a generator

    return Library(run, iterate, errors)


class _Runner:
    """`asyncio.Runner`, which Python 3.10 has not."""

    def __enter__(self) -> _Runner:
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def run(self, awaitable: Any) -> Any:
        return self._loop.run_until_complete(awaitable)


def _httpx_async() -> Library:
    async def post(url: str, body: Any, headers: dict[str, str] | None) -> Got:
        async with httpx.AsyncClient(verify=False, timeout=5) as client:
            response = await client.post(url, json=body, headers=headers)
        return Got(response.status_code, _lower(response.headers), response.content)

    async def pieces(url: str) -> AsyncIterator[bytes]:
        async with (
            httpx.AsyncClient(verify=False, timeout=5) as client,
            client.stream("POST", url, json={}) as response,
        ):
            async for piece in response.aiter_raw():
                yield piece

    return _awaited(post, pieces, (httpx.TransportError,))


def _aiohttp() -> Library:
    aiohttp: Any = pytest.importorskip("aiohttp", reason="in the extra dev")
    timeout = aiohttp.ClientTimeout(total=5)

    async def post(url: str, body: Any, headers: dict[str, str] | None) -> Got:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body, headers=headers) as response,
        ):
            return Got(response.status, _lower(response.headers), await response.read())

    async def pieces(url: str) -> AsyncIterator[bytes]:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={}) as response,
        ):
            async for piece in response.content.iter_any():
                yield piece

    return _awaited(post, pieces, (aiohttp.ClientError, asyncio.TimeoutError))


def _requests() -> Library:
    requests: Any = pytest.importorskip("requests", reason="in the extra dev")

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        with requests.Session() as session:
            response = session.post(url, json=body, headers=headers, timeout=5)
        return Got(response.status_code, _lower(response.headers), response.content)

    def pieces(url: str) -> Iterator[bytes]:
        with (
            requests.Session() as session,
            session.post(url, json={}, stream=True, timeout=5) as response,
        ):
            yield from response.iter_content(None)

    return Library(post, pieces, (requests.RequestException,))


def _urllib3() -> Library:
    urllib3: Any = pytest.importorskip("urllib3", reason="in the extra dev")

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        with urllib3.PoolManager(retries=False, timeout=5) as pool:
            response = pool.request("POST", url, json=body, headers=headers)
        return Got(response.status, _lower(response.headers), response.data)

    def pieces(url: str) -> Iterator[bytes]:
        with urllib3.PoolManager(retries=False, timeout=5) as pool:
            response = pool.request("POST", url, json={}, preload_content=False)
            try:
                yield from response.stream(None)
            finally:
                response.close()

    return Library(post, pieces, (urllib3.exceptions.HTTPError,))


def _urllib() -> Library:
    def request(url: str, body: Any, headers: dict[str, str] | None) -> urllib.request.Request:
        sent = {"content-type": "application/json", **(headers or {})}
        return urllib.request.Request(url, json.dumps(body).encode(), sent)

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        try:
            with urllib.request.urlopen(request(url, body, headers), timeout=5) as response:
                return Got(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Got(error.code, _lower(error.headers), error.read())

    def pieces(url: str) -> Iterator[bytes]:
        with urllib.request.urlopen(request(url, {}, None), timeout=5) as response:
            while piece := response.read1(65536):
                yield piece

    return Library(post, pieces, (OSError, ValueError, EOFError, Exception))


def _http_client(*, explicit: bool, chunked: bool = False) -> Library:
    """http.client as SDKs use it that write a request part by part.

    Args:
        explicit: Connect before the request.
        chunked: Send the body in chunks.
    """

    @contextmanager
    def asked(url: str, body: Any, headers: dict[str, str] | None) -> Iterator[Any]:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=5)
        sent = json.dumps(body).encode()
        with closing(connection):
            if explicit:
                connection.connect()
            connection.putrequest("POST", f"{parts.path or '/'}?{parts.query}".rstrip("?"))
            connection.putheader("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders([sent[:3], sent[3:]], encode_chunked=True)
            else:
                connection.putheader("Content-Length", str(len(sent)))
                connection.endheaders()
                connection.send(sent[:1])
                connection.send([sent[1:]])
            with connection.getresponse() as response:
                yield response

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        with asked(url, body, headers) as response:
            return Got(response.status, _lower(response.headers), response.read())

    def pieces(url: str) -> Iterator[bytes]:
        with asked(url, {}, None) as response:
            while piece := response.read1(65536):
                yield piece

    return Library(post, pieces, (OSError, HTTPException, ValueError))


def _httplib2() -> Library:
    httplib2: Any = pytest.importorskip("httplib2", reason="in the extra dev")

    def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        sent = {"content-type": "application/json", **(headers or {})}
        with closing(httplib2.Http(timeout=5)) as http:
            response, content = http.request(url, "POST", json.dumps(body), sent)
        return Got(response.status, _lower(response), content)

    def pieces(url: str) -> Iterator[bytes]:
        yield post(url, {}).body

    return Library(post, pieces, (OSError, HTTPException, httplib2.HttpLib2Error))


LIBRARIES: dict[str, Callable[[], Library]] = {
    "httpx": lambda: _httpx_like("httpx"),
    "httpx async": _httpx_async,
    "httpx2": lambda: _httpx_like("httpx2"),
    "urllib3": _urllib3,
    "requests": _requests,
    "urllib": _urllib,
    "aiohttp": _aiohttp,
    "http.client in parts": lambda: _http_client(explicit=False),
    "http.client in chunks": lambda: _http_client(explicit=False, chunked=True),
    "http.client connected": lambda: _http_client(explicit=True),
    "httplib2": _httplib2,
}
STREAMING = [name for name in LIBRARIES if name != "httplib2"]  # which reads a response whole
