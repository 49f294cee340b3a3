"""A response that was made up, as httpx hands it to its caller, in both colours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import httpx

from ember_testing.wires.response import Broken, Served

__all__ = ["respond"]


def respond(served: Served, request: httpx.Request) -> httpx.Response:
    """The response to a request.

    Raises:
        httpx.TransportError: The connection breaks before there is one.
    """
    if served.status is None:
        raise _error(served.broken, request)
    headers = [*served.headers]
    if len(served.pieces) <= 1 and not served.pause and served.broken is None:
        body = b"".join(served.pieces)
        return httpx.Response(served.status, headers=headers, content=body, request=request)
    return httpx.Response(
        served.status, headers=headers, stream=_Pieces(served, request), request=request
    )


def _error(broken: Broken | None, request: httpx.Request) -> httpx.TransportError:
    name, message = broken or Broken("ReadError", "")
    kind: type[httpx.TransportError] = getattr(httpx, name)
    return kind(message, request=request)


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body piece by piece, and what breaks it."""

    def __init__(self, served: Served, request: httpx.Request) -> None:
        self._served = served
        self._request = request

    def _check_pause(self) -> float:
        pause = self._served.pause
        patience = self._request.extensions.get("timeout", {}).get("read")
        if patience is not None and pause > patience:
            # The caller would wait for its whole timeout, and learn no more.
            raise _error(Broken("ReadTimeout", "The read operation timed out"), self._request)
        return pause

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._served.pieces:
            if pause := self._check_pause():
                time.sleep(pause)
            yield piece
        if self._served.broken is not None:
            raise _error(self._served.broken, self._request)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._served.pieces:
            if pause := self._check_pause():
                import anyio  # late: httpx's own dependency, needed for slow answers only

                await anyio.sleep(pause)
            yield piece
        if self._served.broken is not None:
            raise _error(self._served.broken, self._request)
