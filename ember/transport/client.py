"""The HTTP clients of this process: one `Client`, and one `httpx.AsyncClient` for each event loop.

Code that intercepts requests can patch httpx as usual: `httpx.HTTPTransport.handle_request`, its
async counterpart, or a client's transport.
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

__all__ = ["async_client", "client", "send_request", "send_request_async"]


class _Transport(httpx.HTTPTransport):
    """httpx's transport with Ember's pool."""

    def __init__(self) -> None:
        from ember.transport.pool import Pool  # late: it loads httpcore

        # The only private name of httpx that Ember sets: a pool cannot be passed in any other way.
        self._pool: Any = Pool()


class _AsyncTransport(httpx.AsyncHTTPTransport):
    """`_Transport` for one event loop."""

    def __init__(self) -> None:
        from ember.transport.pool import AsyncPool

        self._pool: Any = AsyncPool()


_lock = threading.Lock()
_client: httpx.Client | None = None
_async_clients: RunVar[tuple[httpx.AsyncClient, AsyncGenerator[None]]] | None = None
# Clients of the parent process: a forked child must neither use nor close their connections.
_parents: list[object] = []


def send_request(request: httpx.Request) -> httpx.Response:
    """Send a request unchanged; the caller reads and closes the response's stream.

    `Client.send` would add a tenth to the cost of a call, with redirects, cookies and
    authentication. Like it, this takes the transport from `_transport_for_url`, which libraries
    that intercept clients replace.
    """
    transport = client()._transport_for_url(request.url)  # pyright: ignore[reportPrivateUsage] - as above
    return transport.handle_request(request)


async def send_request_async(request: httpx.Request) -> httpx.Response:
    """`send_request` without blocking the event loop."""
    async_transport = (await async_client())._transport_for_url(request.url)  # pyright: ignore[reportPrivateUsage] - as above
    return await async_transport.handle_async_request(request)


def client() -> httpx.Client:
    """Return the process's client."""
    global _client
    if _client is None:
        with _lock:
            if _client is None:
                _client = httpx.Client(transport=_Transport())
    return _client


async def async_client() -> httpx.AsyncClient:
    """Return the running event loop's client: connections cannot be shared between loops."""
    entry = _clients_of_loops().get(None)
    if entry is None:
        new_client = httpx.AsyncClient(transport=_AsyncTransport())
        closer = _close_with_loop(new_client)
        await closer.__anext__()
        _clients_of_loops().set(entry := (new_client, closer))
    return entry[0]


def _clients_of_loops() -> RunVar[tuple[httpx.AsyncClient, AsyncGenerator[None]]]:
    global _async_clients
    if _async_clients is None:
        # Late: httpx itself depends on anyio, but imports it only at its first async request.
        from anyio.lowlevel import RunVar

        with _lock:
            if _async_clients is None:
                _async_clients = RunVar("ember_async_client")
    return _async_clients


async def _close_with_loop(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    # An event loop closes its open async generators as it ends: the only hook that every loop
    # offers.
    try:
        yield
    finally:
        await client.aclose()


def _close_client() -> None:
    if _client is not None:
        _client.close()


def _reset_after_fork() -> None:
    global _client, _async_clients, _lock
    _parents.extend((_client, _async_clients))
    _client = _async_clients = None
    _lock = threading.Lock()


atexit.register(_close_client)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
