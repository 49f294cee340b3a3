"""Apply a fault to a recorded response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ember_testing.faults import Fault, applied, replaces_answer
from ember_testing.wires.parsing import read_request
from ember_testing.wires.response import NetworkFailure, Request, Response, without_encoding

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["faulted"]

_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


def faulted(fault: Fault, request: Request, recorded: Callable[[], Response]) -> Response:
    """Return the response to a request that has a fault in a replay.

    `recorded` returns its recording, and is called only if the fault uses it.
    """
    found = Response(200) if replaces_answer(fault) else recorded()
    response = without_encoding(found)
    if response is not found:  # decoded: the network's pieces no longer apply
        pieces = [piece for piece in _EVENT_END.split(response.body) if piece]
        response = response._replace(pieces=pieces)
    parsed = read_request(request.url, request.body)
    damaged = applied(fault, response, (parsed and parsed.wire) or "openai")
    end = damaged.end
    if damaged.status is None and isinstance(end, NetworkFailure) and end.error == "ReadError":
        # A client may resend a request that met a stale connection, which raises this error.
        return damaged._replace(end=end._replace(error="RemoteProtocolError"))
    return damaged
