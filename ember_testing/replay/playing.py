"""Turn a recorded answer into a response. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ember_testing.wires.response import End, NetworkFailure, Response

if TYPE_CHECKING:
    from ember_testing.cassettes.rows import Answer

_PATIENCE = 1.0  # seconds beyond twice the recorded time before a caller should have given up


def response_of(
    answer: Answer,
    pieces: Sequence[bytes],
    *,
    timing: bool,
    unplayable: Callable[[str], BaseException],
) -> Response:
    """Return the response for a recorded answer, with the recorded delays if `timing`.

    `unplayable` makes the error, from its reason, for a caller that reads past the recording.
    """
    response = Response(
        answer.status,
        answer.headers,
        pieces,
        end=_end(answer, unplayable),
        http_version=answer.http_version or "HTTP/1.1",
        reason=answer.reason,
    )
    if answer.outcome == "cancelled":
        # The caller is expected to give up in the replay too; after this delay it has not.
        return response._replace(delay=2 * (answer.elapsed or 0.0) + _PATIENCE)
    if not timing:
        return response
    times = [answer.headers_after or 0.0, *(at for at, _ in answer.pieces)]
    pauses = [max(0.0, at - before) for before, at in pairwise(times)]
    return response._replace(delay=times[0], pauses=pauses)


def _end(answer: Answer, unplayable: Callable[[str], BaseException]) -> End:
    """Return how a recorded response ends: as recorded, or with an error if it is incomplete."""
    if answer.outcome in ("cut", "failed"):
        return NetworkFailure(answer.error_type or "ReadError", answer.error_message or "")
    if answer.outcome == "complete":
        return None
    what = (
        "has no answer, because its caller gave up before one came; this one waits on"
        if answer.outcome == "cancelled"
        else f"ends after {len(answer.pieces)} pieces, because its reader closed it there; "
        "this one reads on"
    )
    return lambda: unplayable(what)
