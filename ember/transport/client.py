"""The HTTP clients of this process: one `Client`, and one `AsyncClient` for each event loop.

Code that intercepts requests replaces what is httpx's own: `httpx.HTTPTransport.handle_request` and
its async twin, or the transport of a whole client.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from anyio.lowlevel import RunVar

__all__ = ["AsyncClient", "Client", "async_client", "client"]


class _Transport(httpx.HTTPTransport):
    """httpx's transport on a pool of Ember's."""

    def __init__(self) -> None:
        from ember.transport.pool import Pool  # late: it loads httpcore

        # The one private name of httpx that Ember sets: httpx has no other way to give it a pool.
        self._pool: Any = Pool()


class _AsyncTransport(httpx.AsyncHTTPTransport):
    """`_Transport` for one event loop."""

    def __init__(self) -> None:
        from ember.transport.pool import AsyncPool

        self._pool: Any = AsyncPool()


class Client(httpx.Client):
    """httpx's client, for calls that need no redirects, cookies or authentication from it."""

    def exchange(self, request: httpx.Request) -> httpx.Response:
        """Send a request as it is; the response's stream is to be read and closed.

        `Client.send` would do so too, for a tenth of what the whole call costs. Like it, this asks
        for the transport by the one method that libraries which intercept a client replace.
        """
        return self._transport_for_url(request.url).handle_request(request)


class AsyncClient(httpx.AsyncClient):
    """`Client` for one event loop."""

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Send a request as it is; the response's stream is to be read and closed."""
        return await self._transport_for_url(request.url).handle_async_request(request)


_lock = threading.Lock()
_client: Client | None = None
_async_clients: RunVar[tuple[AsyncClient, AsyncGenerator[None]]] | None = None
# A forked child must neither use nor close what it shares with its parent.
_parents: list[object] = []


def client() -> Client:
    """The process's client."""
    global _client
    if _client is None:
        with _lock:
            if _client is None:
                _client = Client(transport=_Transport())
    return _client


async def async_client() -> AsyncClient:
    """The running event loop's client: a connection cannot be used from another loop."""
    held = _of_loops().get(None)
    if held is None:
        new_client = AsyncClient(transport=_AsyncTransport())
        closer = _close_with_loop(new_client)
        await closer.__anext__()
        _of_loops().set(held := (new_client, closer))
    return held[0]


def _of_loops() -> RunVar[tuple[AsyncClient, AsyncGenerator[None]]]:
    global _async_clients
    if _async_clients is None:
        # httpx itself depends on anyio, and loads it at its first asynchronous request.
        from anyio.lowlevel import RunVar

        with _lock:
            if _async_clients is None:
                _async_clients = RunVar("ember_async_client")
    return _async_clients


async def _close_with_loop(client: AsyncClient) -> AsyncGenerator[None]:
    # An event loop that ends closes the asynchronous generators that are still open in it: the
    # one hook that every loop offers.
    try:
        yield
    finally:
        await client.aclose()


def _close() -> None:
    if _client is not None:
        _client.close()


def _start_afresh() -> None:
    global _client, _async_clients, _lock
    _parents.extend((_client, _async_clients))
    _client = _async_clients = None
    _lock = threading.Lock()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
