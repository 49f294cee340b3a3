"""Recorded answers of models, and damage to them; pure except for reading the cassette."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from ember_testing.cassettes.file import CassetteFile
from ember_testing.wires.body import as_bytes, headers_from_json
from ember_testing.wires.parsing import read_request
from ember_testing.wires.response import ProviderResponse, Response

__all__ = ["Damages", "damaged", "recordings"]

# The kind of each damage, the event, and the place in the event.
Damages: TypeAlias = tuple[tuple[str, int, int], ...]

_EVENT = re.compile(rb".*?(?:\r?\n\r?\n|\Z)", re.DOTALL)
_OTHER_NUMBERS: tuple[object, ...] = (0, -1, 10**18, 1.5, None, "7", True)
_OF_THE_BODY = ("content-length", "content-encoding", "transfer-encoding")


def recordings(path: str | os.PathLike[str]) -> list[ProviderResponse]:
    """Return the answers of models in a cassette.

    Raises:
        CassetteError: The cassette cannot be read.
    """
    file = CassetteFile(Path(path))
    try:
        return [sent for row in file.requests() if (sent := _sent(row)) is not None]
    finally:
        file.close()


def _sent(row: dict[str, Any]) -> ProviderResponse | None:
    request = read_request(row["url"], as_bytes(row["request_body"] or b""))
    if request is None or request.wire is None or row["status"] is None:
        return None
    headers = tuple(
        (name, value)
        for name, value in headers_from_json(row["response_headers"])
        if name.lower() not in _OF_THE_BODY
    )
    wire = request.wire
    served = Response(row["status"], headers, (as_bytes(row["response_body"] or b""),))
    return ProviderResponse(wire, f"{wire}/{request.model}", request.stream, served)


def damaged(sent: ProviderResponse, damages: Damages) -> ProviderResponse:
    """Return a damaged copy of a recorded answer.

    Args:
        sent: The answer.
        damages: The damages, in order.
    """
    units = [unit for unit in _EVENT.findall(sent.body) if unit] if sent.stream else [sent.body]
    for kind, which, where in damages:
        if not units:
            break
        at = which % len(units)
        if kind == "double":
            units.insert(at, units[at])
        elif kind == "leave out":
            del units[at]
        elif kind == "swap":
            other = where % len(units)
            units[at], units[other] = units[other], units[at]
        elif kind == "truncate":
            units = [*units[:at], units[at][: where % (len(units[at]) + 1)]]
        else:
            units[at] = _edited(units[at], kind, where)
    return replace(sent, served=sent.served._replace(pieces=(b"".join(units),)))


def _edited(unit: bytes, kind: str, where: int) -> bytes:
    """Return an event or a whole body with a key removed or a number changed."""
    start = unit.find(b"{")
    end = unit.rfind(b"}") + 1
    try:
        value = json.loads(unit[start:end])
    except ValueError:  # the end marker of a stream, or already damaged
        return unit
    places = [*_places(value, keys=kind == "drop")]
    if not places:
        return unit
    holder, key = places[where % len(places)]
    if kind == "drop":
        del holder[key]
    else:
        holder[key] = _OTHER_NUMBERS[where % len(_OTHER_NUMBERS)]
    return unit[:start] + json.dumps(value).encode() + unit[end:]


def _places(value: object, *, keys: bool) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of each object key in a JSON value, or of each number."""
    if isinstance(value, dict):
        inside = [*cast("dict[Any, object]", value).items()]
    elif isinstance(value, list):
        inside = [*enumerate(cast("list[object]", value))]
    else:
        return
    for key, inner in inside:
        if isinstance(value, dict) if keys else isinstance(inner, (int, float)):
            yield cast("Any", value), key
        yield from _places(inner, keys=keys)
