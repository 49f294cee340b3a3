"""Tolerant reading of JSON of any shape; pure.

Providers send null where an object is expected, an object instead of a list, a number as a string.
These functions always return the type that the reader needs, empty if the provider sent something
else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from ember.models.schemas import UsageStats

__all__ = [
    "NOTHING",
    "Json",
    "TokenPaths",
    "body_of",
    "carries_answer",
    "count",
    "counts",
    "data_file",
    "dollars",
    "dollars_of_ticks",
    "entries",
    "fields",
    "has_surrogates",
    "index",
    "items",
    "loaded",
    "parsed",
    "replace_surrogates",
    "request_id",
    "string",
    "text_of",
    "token_paths",
    "usage_stats",
    "without_none",
]

Json: TypeAlias = dict[str, Any] | list[Any] | str | float | None

NOTHING: Mapping[str, Any] = {}
_DECODER = json.JSONDecoder()
# No answer has this many tokens: a larger number is not a count.
_MAX_COUNT = 10**15
# A string is matched to its end, or to the end of a truncated text: otherwise each quotation mark
# of a long unfinished string would be tried as its start.
_TRAILING_COMMA = r"""(?s)("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|,(?=\s*[}\]])"""
# The keys of text, reasoning, pieces of tool calls and usage in the events of all wires: strings,
# and objects in which any value counts.
_ANSWER_STRINGS = frozenset({
    "arguments", "content", "data", "delta", "name", "partial_json", "reasoning",
    "reasoning_content", "refusal", "signature", "text", "thinking", "thoughtSignature",
})  # fmt: skip
_ANSWER_OBJECTS = frozenset({"executableCode", "functionCall", "usage", "usageMetadata"})


def fields(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else NOTHING  # pyright: ignore[reportUnknownVariableType] - JSON's


def items(value: object) -> Sequence[Any]:
    """Return a JSON array, or an empty one for anything else."""
    return value if isinstance(value, list) else ()  # pyright: ignore[reportUnknownVariableType] - JSON's


def entries(value: object) -> list[Mapping[str, Any]]:
    """Return the objects in a JSON array; a lone object counts as an array of one."""
    several = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType] - JSON's
    return [item for item in several if isinstance(item, dict)]  # pyright: ignore[reportUnknownVariableType] - JSON's


def string(value: object) -> str:
    """Return a JSON string, or "" for anything else."""
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= _MAX_COUNT else None  # neither infinity nor nan


def count(value: object) -> int:
    """Return a provider's count, or 0 for anything else."""
    if type(value) is int and 0 <= value <= _MAX_COUNT:
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) <= 15:
        return int(value)
    return int(max(_number(value) or 0, 0))


# By a provider's key: the name of the count, the key inside an object there ("" if it is a number),
# and the rank of this path among those of the name.
TokenPaths: TypeAlias = Mapping[str, Sequence[tuple[str, str, int]]]


def token_paths(**by_name: str) -> TokenPaths:
    """Return a table of counts and their paths: `cached="details.cached_tokens cached"`."""
    table: dict[str, list[tuple[str, str, int]]] = {}
    for name, where in by_name.items():
        for rank, path in enumerate(where.split()):
            outer, _, inner = path.partition(".")
            table.setdefault(outer, []).append((name, inner, rank))
    return table


def counts(usage: Mapping[str, Any], table: TokenPaths) -> dict[str, int]:
    """Return a provider's counts, each from the first of its paths that is above 0."""
    found: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for key, value in usage.items():
        if key in table and value:
            for name, inner, rank in table[key]:
                number = count(fields(value).get(inner) if inner else value)
                if number and rank <= ranks.get(name, rank):
                    found[name], ranks[name] = number, rank
    return found


def usage_stats(found: Mapping[str, int]) -> UsageStats:
    """Return the usage of counts that have the names of its fields, without `_tokens`."""
    prompt, completion = found.get("prompt", 0), found.get("completion", 0)
    return UsageStats(
        prompt,
        completion,
        found.get("total") or prompt + completion,
        min(found.get("cached", 0), prompt),  # Azure's grok has reported more
        found.get("cache_write", 0),
        found.get("reasoning", 0),
    )


def without_none(**values: Any) -> dict[str, Any]:
    """Return a JSON object of the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def index(value: object) -> int | None:
    """Return the index that an item gives itself, or None."""
    number = _number(value)
    return None if number is None else int(number)


def dollars(value: object) -> float | None:
    """Return a cost that a provider reports, or None if it is not an amount."""
    number = _number(value)
    return None if number is None else float(number)


def dollars_of_ticks(usage: Mapping[str, Any]) -> float | None:
    """Return xAI's cost, in ticks of 1e-10 US dollars, searches included; None for 0."""
    ticks = count(usage.get("cost_in_usd_ticks"))
    return ticks / 10**10 if ticks else None


def carries_answer(event: object) -> bool:
    """Return whether a stream's event has text, reasoning, a piece of a tool call or usage.

    Events that only keep the connection alive have none: pings, empty deltas, empty responses.
    """
    if response := fields(fields(event).get("response")):  # it repeats the request
        event = {key: response.get(key) for key in ("output", "usage")}
    stack: list[tuple[object, bool]] = [(event, False)]
    while stack:
        value, any_value = stack.pop()
        if isinstance(value, dict):
            for key, inner in cast("Mapping[str, object]", value).items():
                if key in _ANSWER_STRINGS and isinstance(inner, str) and inner:
                    return True
                stack.append((inner, any_value or key in _ANSWER_OBJECTS))
        elif isinstance(value, list):
            stack += [(inner, any_value) for inner in cast("list[object]", value)]
        elif any_value and value:
            return True
    return False


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the request, from any of its possible headers."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-generation-id"):
        if value := headers.get(name):
            return value
    return None


def text_of(content: bytes) -> str:
    """Return a body as text, replacing bytes that are not UTF-8."""
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def parsed(text: str) -> Json:
    """Parse a JSON text, or return the text itself if it is not JSON."""
    try:
        return loaded(text)
    except ValueError:
        return text


def body_of(content: bytes) -> tuple[Json, bool]:
    """Return a body's JSON, or its text, and whether it may contain unpaired surrogates.

    The returned value contains none, except escaped in JSON inside one of its strings.
    """
    text = text_of(content)
    body, surrogates = parsed(text), has_surrogates(text)
    return replace_surrogates(body) if surrogates else body, surrogates


def loaded(text: str) -> Json:
    """Parse a JSON text.

    Some text that `json` rejects is accepted: control characters inside strings, numbers too long
    for Python, and a comma after the last item (Google's errors were recorded with one).

    Raises:
        ValueError: The text is not JSON.
    """
    text = text.strip()
    value: Json
    try:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    text = re.sub(_TRAILING_COMMA, lambda found: found[1] or "", text)
    try:
        value = json.loads(text, strict=False, parse_int=_parse_int)
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _parse_int(digits: str) -> int | float:
    # Python refuses to read numbers of more than 4300 digits.
    return int(digits) if len(digits) < 4300 else float(digits)


def has_surrogates(text: str) -> bool:
    """Return whether a JSON text has escaped surrogates, which may be unpaired."""
    return "\\u" in text and ("\\ud" in text or "\\uD" in text)


def replace_surrogates(value: Any) -> Any:
    """Return the value with surrogate pairs joined and unpaired ones replaced by U+FFFD.

    A character beyond U+FFFF is escaped as two surrogates, and some servers cut between them.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        pairs: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType] - any JSON
        return {replace_surrogates(key): replace_surrogates(item) for key, item in pairs.items()}
    if isinstance(value, (list, tuple)):
        several: list[Any] | tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType] - any JSON
        changed = [replace_surrogates(item) for item in several]
        named = getattr(several, "_make", None)
        return named(changed) if named else changed
    return value


def data_file(name: str) -> dict[str, Any]:
    """Return a table of `data/`, where each has its source and date."""
    # Read by the package's loader: the program may have replaced the file system by now.
    path = Path(__file__).with_name("data") / f"{name}.json"
    loader: Any = __spec__.loader
    table: dict[str, Any] = json.loads(loader.get_data(str(path)))
    return table
