"""Compare two cassettes: requests in only one of them, answers that changed."""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember_testing.cli.progress import progress_of_calls
from ember_testing.replay import request as matching
from ember_testing.replay.miss import differences, nearest
from ember_testing.wires.body import as_bytes
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_testing.cassettes.calls import Call

_CANDIDATES = 64  # most calls that one is compared with, so that time grows linearly
_FACTS = ("status", "outcome", "provider", "model", "prompt_tokens", "completion_tokens", "cost")


class Difference(NamedTuple):
    """One call that differs."""

    kind: str  # `removed` (only in the old cassette), `added`, or `changed`
    call: str  # the request in one line
    old: int | None  # its number in the old cassette
    new: int | None  # its number in the new cassette
    lines: list[str]  # the differences


def request_of(call: Call) -> Request:
    """Return the request in the form that is compared."""
    return Request(call.method, call.url, call.request_headers, as_bytes(call.body))


def compare(old: Sequence[Call], new: Sequence[Call]) -> list[Difference]:
    """Return the differences in the order of the old cassette, then the added calls.

    The n-th of identical requests is compared with the n-th on the other side. A request on one
    side only is shown with the most similar request of the other side, searched among at most 64
    recorded at about the same position.
    """
    places = _places_by_key(new)
    keys = _places_by_key(old)
    unmatched = [place for key, place in places.items() if key not in keys]
    found: list[Difference] = []
    for call, key in zip(progress_of_calls(old, "comparing"), keys, strict=True):
        if key in places:
            other = new[places[key]]
            if lines := _answers(call, other):
                found.append(Difference("changed", _title(call), call.id, other.id, lines))
            continue
        middle = bisect_left(unmatched, keys[key])
        start = max(0, min(middle - _CANDIDATES // 2, len(unmatched) - _CANDIDATES))
        window = unmatched[start : start + _CANDIDATES]
        neighbour = nearest(request_of(call), [(place, request_of(new[place])) for place in window])
        if neighbour is None:
            found.append(Difference("removed", _title(call), call.id, None, []))
            continue
        unmatched.remove(neighbour[0])
        other = new[neighbour[0]]
        lines = differences(request_of(call), request_of(other), words=("old", "new"))
        lines += _answers(call, other)
        found.append(Difference("changed", _title(call), call.id, other.id, lines))
    found += [
        Difference("added", _title(call), None, call.id, []) for call in (new[p] for p in unmatched)
    ]
    return found


def _places_by_key(calls: Sequence[Call]) -> dict[tuple[str, int], int]:
    """Return each call's index, by its request's key and position among identical requests."""
    found: dict[tuple[str, int], int] = {}
    counts: dict[str, int] = {}
    for place, call in enumerate(progress_of_calls(calls, "reading")):
        key = matching.key(request_of(call))
        counts[key] = counts.get(key, 0) + 1
        found[key, counts[key]] = place
    return found


def _title(call: Call) -> str:
    return f"{call.method} {call.url}"


def _answers(old: Call, new: Call) -> list[str]:
    lines = [
        f"{name}: old {getattr(old, name)}, new {getattr(new, name)}"
        for name in _FACTS
        if getattr(old, name) != getattr(new, name)
    ]
    if old.text != new.text:
        lines.append(f"text: old {_short(old.text)}, new {_short(new.text)}")
    elif not old.text and old.response_body != new.response_body:
        lines.append(f"answer: old {_short(old.response_body)}, new {_short(new.response_body)}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value if not isinstance(value, bytes) else f"{len(value)} bytes")
    return text if len(text) <= 100 else f"{text[:97]}..."


def shape(value: Any, path: str = "$") -> set[str]:
    """Return the paths and types of a JSON value, such as `$.choices[].index number`."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        inside = (shape(each, f"{path}.{name}") for name, each in members.items())
        return {f"{path} object"}.union(*inside)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return {f"{path} array"}.union(*(shape(each, f"{path}[]") for each in items))
    if isinstance(value, str):
        return {f"{path} string"}
    if isinstance(value, bool):
        return {f"{path} boolean"}
    return {f"{path} null" if value is None else f"{path} number"}


def shape_of_body(body: str | bytes) -> set[str]:
    """Return the shape of an answer's JSON, or of all JSON events of a stream together."""
    text = as_bytes(body).decode("utf-8", "replace")
    try:
        return shape(json.loads(text))
    except (ValueError, RecursionError):
        pass
    found: set[str] = set()
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if name == "data" and colon:
            try:
                found |= shape(json.loads(value))
            except (ValueError, RecursionError):
                found.add(f"$ {value.strip()[:40]}")
    return found or {f"$ text ({'empty' if not text else 'not JSON'})"}
