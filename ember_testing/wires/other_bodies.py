"""Parse answers in formats that Ember's client does not support, by a table of paths; pure.

`data/bodies.json` lists the paths at which vendors put text, counts and vectors. All of them are
tried on every body, because several vendors serve the same model.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, cast

from ember.models.schemas import ToolCall, UsageStats
from ember_testing.wires.event_bodies import EventReader, values_of
from ember_testing.wires.vendors import data_file

__all__ = ["Content", "read_content", "text_of_pieces"]

_Path = Sequence[str]
_Json = Any


class Content(NamedTuple):
    """The contents of a body; None for what it does not report."""

    text: str  # the answer's text, or the number and length of its vectors
    reasoning: str
    tool_calls: Sequence[ToolCall]  # from a stream, only those sent whole
    model: str | None
    usage: UsageStats | None  # 0 tokens if only the other side is reported
    counted: tuple[bool, bool]  # whether input and output are known; vectors are 0 output tokens
    billed: UsageStats | None  # the token counts that are charged for
    reported_cost: float | None  # by the vendor, in US dollars


@cache
def _table() -> Mapping[str, Any]:
    return data_file("bodies")


@cache
def _paths(name: str) -> Sequence[_Path]:
    return [path.split(".") for path in _table()[name]]


def read_content(headers: Mapping[str, str], body: bytes) -> Content:
    """Parse the contents of an answer, as `values_of` reads its body."""
    values = values_of(headers, body)
    text = "".join(map(_text, values))
    vectors = "" if text else _vectors(values)
    calls = [_call(each) for value in values for each in _first("calls", value)]
    prompt, completion = _tokens(values, headers)
    if vectors and completion is None:
        completion = 0
    return Content(
        text or vectors,
        "".join(_text(value, "reasoning") for value in values),
        [call for call in calls if call is not None],
        next((text for value in reversed(values) for text in _texts("model", value)[-1:]), None),
        None if prompt is completion is None else _usage(prompt, completion, values),
        (prompt is not None, completion is not None),
        _billed(values),
        _number("reported_cost", values),
    )


def text_of_pieces(headers: Mapping[str, str], pieces: Sequence[bytes]) -> list[str]:
    """Return the text and reasoning that each piece of a streamed answer completes."""
    reader = EventReader(headers)
    return [
        "".join(_text(value, "reasoning") + _text(value) for value in reader.feed(piece))
        for piece in pieces
    ]


# --- the table's paths ---------------------------------------------------------------------------


def _at(value: _Json, path: _Path) -> Iterator[_Json]:
    """Yield the values at a path, if there are any."""
    if not path:
        if value is not None:
            yield value
    elif path[0] == "*":
        if isinstance(value, list):
            for item in cast("list[object]", value):
                yield from _at(item, path[1:])
    elif isinstance(value, Mapping):
        yield from _at(cast("Mapping[str, object]", value).get(path[0]), path[1:])


def _first(name: str, value: _Json) -> list[_Json]:
    """Return the values at the first path that has any."""
    for path in _paths(name):
        if found := [*_at(value, path)]:
            return found
    return []


def _texts(name: str, value: _Json) -> list[str]:
    """Return the texts at the first path that has any."""
    for path in _paths(name):
        if texts := [each for each in _at(value, path) if isinstance(each, str)]:
            return texts
    return []


def _text(value: _Json, name: str = "text") -> str:
    return "".join(_texts(name, value))


def _number(name: str, values: Sequence[_Json]) -> float | None:
    """Return the last count; counts in several items of a list are added up."""
    for value in reversed(values):
        for path in _paths(name):
            if found := [each for at in _at(value, path) for each in _counts(at)]:
                return sum(found)
    return None


def _counts(value: _Json) -> Sequence[float]:
    """Return a list of the count, empty if the value is not one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return [value] if is_number and math.isfinite(value) and value >= 0 else []


def _count(name: str, values: Sequence[_Json]) -> int:
    return int(_number(name, values) or 0)


def _tokens(values: Sequence[_Json], headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return input and output tokens, or None; separately counted cached ones are left out."""
    named = _table()["headers"]
    counts = [_number(name, values) for name in ("input", "output")]
    for index, name in enumerate(("input", "output")):
        text = headers.get(named[name], "")
        if counts[index] is None and text.isdigit():
            counts[index] = int(text)
    prompt, completion = counts
    if prompt is None and completion is None:
        prompt = _number("total", values)
    return None if prompt is None else int(prompt), None if completion is None else int(completion)


def _usage(prompt: int | None, completion: int | None, values: Sequence[_Json]) -> UsageStats:
    apart, written = _count("cached_apart", values), _count("written_apart", values)
    every = (prompt or 0) + apart + written
    cached = min(_count("cached", values) + apart, every - written)
    return UsageStats(every, completion or 0, cached_tokens=cached, cache_write_tokens=written)


def _billed(values: Sequence[_Json]) -> UsageStats | None:
    prompt, completion = _number("billed_input", values), _number("billed_output", values)
    if prompt is None and completion is None:
        return None
    return UsageStats(int(prompt or 0), int(completion or 0))


def _call(given: _Json) -> ToolCall | None:
    if not isinstance(given, Mapping):
        return None
    call = cast("Mapping[str, Any]", given)
    name = call.get("name")
    if not isinstance(name, str):
        return None
    names = [key for key in ("arguments", "input", "parameters") if key in call]
    arguments: Any = call[names[0]] if names else {}
    if isinstance(arguments, str):
        with suppress(ValueError):  # the model wrote invalid JSON: shown unchanged
            arguments = json.loads(arguments)
    identity = call.get("toolUseId") or call.get("id") or ""
    return ToolCall(str(identity), name, arguments)


def _vectors(values: Sequence[_Json]) -> str:
    """Describe the number and length of an answer's vectors; "" if it has none."""
    for path in _paths("vectors"):
        lengths = [length for each in values for at in _at(each, path) if (length := _length(at))]
        if lengths:
            number = "1 vector" if len(lengths) == 1 else f"{len(lengths):,} vectors"
            return f"{number} of {max(lengths):,} numbers"
    return ""


def _length(vector: _Json) -> int:
    """Return how many numbers a vector has, as a list or as 32-bit numbers in base64."""
    if isinstance(vector, list):
        items = cast("list[object]", vector)
        return len(items) if all(isinstance(item, (int, float)) for item in items) else 0
    if isinstance(vector, str):
        try:
            return len(base64.b64decode(vector, validate=True)) // 4
        except binascii.Error:
            return 0
    return 0
