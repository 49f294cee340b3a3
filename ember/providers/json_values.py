"""Reading JSON that may hold anything, so that no shape of an answer is an accident; pure.

Providers send null where an object is expected, an object where a list is, a number as a string.
What these functions return always has the type that the reader needs, and is empty where the
provider sent something else.
"""

from __future__ import annotations

import json
import math
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

__all__ = [
    "NOTHING",
    "Places",
    "body_of",
    "carries_answer",
    "count",
    "counts",
    "data_file",
    "dollars",
    "dollars_of_ticks",
    "entries",
    "fields",
    "half_at_end",
    "index",
    "items",
    "loaded",
    "may_hold_halves",
    "parsed",
    "places",
    "request_id",
    "string",
    "text_of",
    "whole_characters",
    "without_none",
]

NOTHING: Mapping[str, Any] = {}
_DECODER = json.JSONDecoder()
# No answer has as many tokens: what is beyond is no count.
_MOST = 10**15
# A string is matched to its end, or to the end of a text that was cut: else each quotation mark of
# a long unfinished string would be tried as a beginning.
_COMMA_AT_END = r"""(?s)("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|,(?=\s*[}\]])"""
# Where the events of all wires hold text, reasoning or a part of a tool call: as a string, or in an
# object of which anything counts, as for usage.
_ANSWER_STRINGS = frozenset({
    "arguments", "content", "data", "delta", "name", "partial_json", "reasoning",
    "reasoning_content", "refusal", "signature", "text", "thinking", "thoughtSignature",
})  # fmt: skip
_ANSWER_OBJECTS = frozenset({"executableCode", "functionCall", "usage", "usageMetadata"})


def fields(value: object) -> Mapping[str, Any]:
    """A JSON object's fields; none where it is something else."""
    return value if isinstance(value, dict) else NOTHING  # pyright: ignore[reportUnknownVariableType] - JSON's


def items(value: object) -> Sequence[Any]:
    """A JSON array's items; none where it is something else."""
    return value if isinstance(value, list) else ()  # pyright: ignore[reportUnknownVariableType] - JSON's


def entries(value: object) -> list[Mapping[str, Any]]:
    """The objects in a JSON array; an object without its array is one."""
    if isinstance(value, list):
        several = cast("list[object]", value)
        return [cast("Mapping[str, Any]", item) for item in several if isinstance(item, dict)]
    return [cast("Mapping[str, Any]", value)] if isinstance(value, dict) else []


def string(value: object) -> str:
    """A JSON string; "" where it is something else."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int:
    """A provider's count; whatever is not a number counts nothing."""
    if type(value) is int and 0 <= value <= _MOST:
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) <= 15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
        return 0
    return int(value)


# By the key that a provider counts under: the name of the count, the key in the object that may
# stand there, and which of the name's places it is.
Places: TypeAlias = Mapping[str, Sequence[tuple[str, str, int]]]


def places(**by_name: str) -> Places:
    """A table of counts: for each its places, as in `cached="details.cached_tokens cached"`."""
    table: dict[str, list[tuple[str, str, int]]] = {}
    for name, where in by_name.items():
        for rank, place in enumerate(where.split()):
            outer, _, inner = place.partition(".")
            table.setdefault(outer, []).append((name, inner, rank))
    return table


def counts(usage: Mapping[str, Any], table: Places) -> dict[str, int]:
    """What a provider counted, each from the first of its places that counts anything."""
    found: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for key, value in usage.items():
        if key in table and value:
            for name, inner, rank in table[key]:
                number = count(fields(value).get(inner) if inner else value)
                if number and rank <= ranks.get(name, rank):
                    found[name], ranks[name] = number, rank
    return found


def without_none(**values: Any) -> dict[str, Any]:
    """A JSON object of those values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def index(value: object) -> int | None:
    """The place that an item names for itself, or None where it names none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _MOST:
        return None
    return None if math.isnan(value) else int(value)


def dollars(value: object) -> float | None:
    """A provider's own figure of a cost, or None where it is not an amount."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= _MOST and math.isfinite(value) else None


def dollars_of_ticks(usage: Mapping[str, Any]) -> float | None:
    """A cost in the ticks of xAI, searches included: 1e-10 US dollars each; 0 is no figure."""
    ticks = count(usage.get("cost_in_usd_ticks"))
    return ticks / 10**10 if ticks else None


def carries_answer(event: object) -> bool:
    """Whether an event of a stream brings text, reasoning, a part of a tool call or usage.

    What only keeps the connection alive does not: pings, empty deltas, a response without output.
    """
    if response := fields(fields(event).get("response")):  # it repeats what the request said
        event = {key: response.get(key) for key in ("output", "usage")}
    waiting: list[tuple[object, bool]] = [(event, False)]
    while waiting:
        value, counts_all = waiting.pop()
        if isinstance(value, dict):
            for key, inner in cast("Mapping[str, object]", value).items():
                if key in _ANSWER_STRINGS and isinstance(inner, str) and inner:
                    return True
                waiting.append((inner, counts_all or key in _ANSWER_OBJECTS))
        elif isinstance(value, list):
            waiting += [(inner, counts_all) for inner in cast("list[object]", value)]
        elif counts_all and value:
            return True
    return False


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id that the provider gave the request, in whichever header it does."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-generation-id"):
        if value := headers.get(name):
            return value
    return None


def text_of(content: bytes) -> str:
    """A body as text; bytes that are not UTF-8 do not cost the rest of it."""
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def parsed(text: str) -> object:
    """The value of a JSON text, or the text itself where it is not JSON."""
    try:
        return loaded(text)
    except ValueError:
        return text


def body_of(content: bytes) -> tuple[object, bool]:
    """A body's JSON, or its text where it is none; and whether it may hold halves of characters.

    Of those there are none in what is returned, but in JSON that stands inside a string of it.
    """
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    body: object = None
    try:
        body, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        end = -1
    if end != len(text):
        body = parsed(text)  # with blanks around it, or wrong in form, or not JSON
    halves = may_hold_halves(text)
    return whole_characters(body) if halves else body, halves


def loaded(text: str) -> object:
    """The value of a JSON text.

    What is wrong only in form is read all the same: control characters inside strings, numbers
    too long for Python, and a comma after the last item (Google's errors were recorded with one).

    Raises:
        ValueError: It is not JSON.
    """
    try:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
        return json.loads(text)  # blanks around it, or something that is not JSON
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(
            re.sub(_COMMA_AT_END, lambda found: found[1] or "", text),
            strict=False,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole(digits: str) -> int | float:
    # Python refuses to read numbers of more than 4300 digits.
    return int(digits) if len(digits) < 4300 else float(digits)


def may_hold_halves(text: str) -> bool:
    """Whether a JSON text has escapes of surrogates, which may be halves of a character."""
    return "\\ud" in text or "\\uD" in text


def whole_characters(value: Any) -> Any:
    """The value with each two halves of a character joined, and U+FFFD in place of a lone one.

    A character beyond U+FFFF is escaped as two surrogates, and some servers cut between them.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        pairs: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType] - any JSON
        return {whole_characters(key): whole_characters(item) for key, item in pairs.items()}
    if isinstance(value, (list, tuple)):
        several: list[Any] | tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType] - any JSON
        changed = [whole_characters(item) for item in several]
        named = getattr(several, "_make", None)
        return named(changed) if named else changed
    return value


def data_file(name: str) -> dict[str, Any]:
    """A table of `data/`, where each stands with its source and date."""
    # By the package's own loader: a program may have replaced the file system when it first asks.
    table: dict[str, Any] = json.loads(pkgutil.get_data(__name__, f"data/{name}.json") or b"")
    return table


def half_at_end(text: str) -> str:
    """The first half of a character that a text ends with; "" where it ends with a whole one."""
    return text[-1:] if "\ud800" <= text[-1:] < "\udc00" else ""
