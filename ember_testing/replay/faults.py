"""A fault over a recording: what is played in the place of what was recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ember_testing.cassettes.file import Answer
from ember_testing.faults import Fault, applied, replaces_answer
from ember_testing.wires import wire_of
from ember_testing.wires.body import decoded
from ember_testing.wires.exchange import read_request
from ember_testing.wires.playback import Playback, Teller
from ember_testing.wires.response import Served

if TYPE_CHECKING:
    from collections.abc import Callable

    from ember_testing.replay.request import Request
    from ember_testing.wires.playback import Teller

__all__ = ["faulted"]

_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
_NO_ANSWER = Answer(
    id=0,
    n=0,
    status=None,
    http_version=None,
    reason=None,
    response_headers=None,
    outcome="complete",
    error_type=None,
    error_message=None,
    elapsed=None,
    headers_after=None,
    cost_usd=None,
    pieces=0,
    offset=None,
    data=None,
)


def faulted(
    fault: Fault, session: Teller, request: Request, recorded: Callable[[], Playback]
) -> Playback:
    """What a call gets that meets a fault in a replay.

    Args:
        fault: Any.
        session: The cassette.
        request: The call.
        recorded: Its recording, asked for where the fault leaves anything of it.
    """
    if replaces_answer(fault):
        return _spoilt(fault, Playback(_NO_ANSWER, [], [], False, session, request))
    return _spoilt(fault, recorded())


def _spoilt(fault: Fault, playback: Playback) -> Playback:
    request = playback.request
    headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in playback.headers)
    pieces = [piece for _, piece in playback.chunks]
    if any(name.lower() == "content-encoding" for name, _ in headers):
        # What is cut or added has to be plain; the network's own pieces are lost with that.
        body = decoded(headers, b"".join(pieces))
        pieces = [piece for piece in _EVENT_END.split(body) if piece]
        dropped = ("content-encoding", "content-length")
        headers = tuple(pair for pair in headers if pair[0].lower() not in dropped)
    asked = read_request(request.url, request.body)
    wire = wire_of(asked.provider) if asked is not None else "openai"
    served = applied(fault, Served(playback.answer.status or 200, headers, pieces), wire)
    error = served.broken
    if error is not None and served.status is None and error.error == "ReadError":
        # A client may send again what met a connection that had been idle: its error is this one.
        error = error._replace(error="RemoteProtocolError")
    answer = playback.answer._replace(
        status=served.status,
        outcome="complete" if error is None else "failed" if served.status is None else "cut",
        error_type=None if error is None else error.error,
        error_message=None if error is None else error.message,
        headers_after=0.0 if served.pause else playback.answer.headers_after,
    )
    paused = [(served.pause * place, piece) for place, piece in enumerate(served.pieces, 1)]
    return replace(
        playback,
        answer=answer,
        headers=[(k.encode("latin-1"), v.encode("latin-1")) for k, v in served.headers],
        chunks=paused,
        timing=served.pause > 0,
    )
