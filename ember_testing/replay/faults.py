"""A fault over a recording: what is played in the place of what was recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ember_testing.faults import Fault, applied, replaces_answer
from ember_testing.wires.exchange import read_request
from ember_testing.wires.response import Broken, Request, Response, plain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["faulted"]

_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


def faulted(fault: Fault, request: Request, recorded: Callable[[], Response]) -> Response:
    """What a call gets that meets a fault in a replay.

    Args:
        fault: Any.
        request: The call.
        recorded: Its recording, asked for where the fault leaves anything of it.
    """
    found = Response(200) if replaces_answer(fault) else recorded()
    response = plain(found)
    if response is not found:  # the network's own pieces are lost with the encoding
        pieces = [piece for piece in _EVENT_END.split(response.body) if piece]
        response = response._replace(pieces=pieces)
    asked = read_request(request.url, request.body)
    damaged = applied(fault, response, (asked and asked.wire) or "openai")
    end = damaged.end
    if damaged.status is None and isinstance(end, Broken) and end.error == "ReadError":
        # A client may send again what met a connection that had been idle: its error is this one.
        return damaged._replace(end=end._replace(error="RemoteProtocolError"))
    return damaged
