r"""Keys of requests: which requests count as the same. Pure functions, no I/O.

1. The value in a credential position is not compared: authorization headers, cookies, a known
   provider's key header or key parameter, and the exact value of a variable from which Ember or a
   vendor's package reads its key.
2. All other values are compared unredacted, even if they are recorded redacted.
3. JSON is compared by exact value: numbers as written, duplicate keys kept, null is not a missing
   key. Key order and white space are ignored, as are a multipart body's random boundary and a
   loopback server's port, which changes with every run.
4. Ids of tool calls that an earlier answer issued are compared by their position.
5. Parts named by `ignore` are not compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import unquote_to_bytes, urlsplit

from ember_testing.patches.hosts import is_loopback
from ember_testing.replay.search import search_for
from ember_testing.replay.secrets import (
    REDACTED,
    is_credential_header,
    is_credential_name,
    is_provider,
)
from ember_testing.replay.settings import (
    DEFAULT_RULES,
    FORM,
    QUERY,
    Rules,
    split_path,
)
from ember_testing.wires.body import decoded
from ember_testing.wires.response import Request

_BOUNDARY = re.compile(r'boundary="?([^";,]+)')
_DISPOSITION = re.compile(
    rb'content-disposition:[^\r\n]*?\bname="([^"]*)"(?:[^\r\n]*?(;\s*filename\*?="?[^";\r\n]*"?))?',
    re.I,
)
_ISSUED = re.compile(rb'"(?:id|call_id)"\s*:\s*"([^"\\]{1,200})"')
_REFERS = (b'"tool_call_id"', b'"call_id"', b'"tool_use_id"', b'"functionResponse"')
_IGNORED = "\0ignored"
_KEY = REDACTED.encode()  # in place of each key


@dataclass(slots=True, unsafe_hash=True)
class Number:
    """A JSON number as written, such as 1.10 or 1e400, which a float would not preserve."""

    text: str


@dataclass(slots=True)
class Pairs:
    """A JSON object with duplicate keys; its members in order."""

    pairs: list[tuple[str, Json]]


Json: TypeAlias = "dict[str, Json] | list[Json] | Number | Pairs | str | int | None"


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json] | Pairs:
    # This module's own markers begin with NUL.
    found = dict(pairs)
    if len(found) < len(pairs) or any(name[:1] == "\0" for name in found):
        return Pairs(pairs)
    return found


def _encodable(value: object) -> object:
    if isinstance(value, Number):
        return {"\0number": value.text}
    if isinstance(value, Pairs):
        # The order of keys is ignored, but not the order of one key's values.
        return {"\0pairs": sorted(value.pairs, key=lambda pair: pair[0])}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _integer(text: str) -> int | Number:
    return Number(text) if text == "-0" else int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=Number, parse_constant=Number)
_WITH_MINUS_ZERO = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Number, parse_constant=Number, parse_int=_integer
)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_encodable)


class Context(NamedTuple):
    """The state that a key depends on besides the rules."""

    keys: frozenset[str] = frozenset()  # values that are credentials anywhere in the request
    salt: bytes = b""  # the cassette's
    issued: Collection[str] = ()  # ids that earlier answers issued


_NO_CONTEXT = Context()


def key(request: Request, rules: Rules = DEFAULT_RULES, context: Context = _NO_CONTEXT) -> str:
    """Return the request's key: 24 hexadecimal digits, equal for requests that count as the same.

    Args:
        request: The request as sent, or as recorded.
        rules: The rules of comparison.
        context: The secrets and ids known when it was sent.
    """
    url = request.url
    if context.keys:
        url = _without(context.keys, url.encode("utf-8", "surrogatepass")).decode()
    parts = [_url_part(url, rules)]
    for part in rules.match_on:
        if part == "method":
            parts.append(request.method.upper().encode())
        elif part == "body":
            parts.append(_body_part(request, rules, context))
        elif part.startswith("header:"):
            parts.append(_header_part(request, part[len("header:") :].lower(), context))
    # Include the rules, so that keys made by other rules do not match.
    digest = hashlib.sha256(context.salt + rules.text.encode())
    for content in parts:
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()[:24]


def _without(values: frozenset[str], content: bytes) -> bytes:
    return search_for(values).replaced(content, lambda _: _KEY)


def _header_part(request: Request, name: str, context: Context) -> bytes:
    if is_credential_header(name):
        return b""
    content = request.header(name).encode("utf-8", "surrogatepass")
    return _without(context.keys, content) if context.keys else content


@lru_cache(maxsize=512)
def _url_part(url: str, rules: Rules) -> bytes:
    split = urlsplit(url)
    whole = "url" in rules.match_on
    host = split.hostname or ""
    port = split.port or {"http": 80, "https": 443}.get(split.scheme, 0)
    # A loopback server's port changes with every run; `port` in match_on compares it anyway.
    compares_host = whole or "host" in rules.match_on
    with_port = "port" in rules.match_on or (compares_host and not is_loopback(host))
    chosen = {
        "scheme": split.scheme,
        "host": host,
        "path": split.path or "/",
        "query": parameters(url, rules),
    }
    parts = [value if whole or name in rules.match_on else "" for name, value in chosen.items()]
    return json.dumps([*parts, port if with_port else None]).encode()


def parameters(url: str, rules: Rules) -> list[tuple[str, str]]:
    """Return the compared query parameters, sorted by name; values of one name keep their order."""
    split = urlsplit(url)
    known = is_provider(split.hostname or "")
    pairs = [
        (name, "" if known and is_credential_name(name) else rules.without_patterns(value))
        for name, value in _pairs(split.query)
        if QUERY + name not in rules.ignore
    ]
    return sorted(pairs, key=lambda pair: pair[0])


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for part in query.split("&") if query else ():
        name, mark, value = part.partition("=")
        yield _unquoted(name), _unquoted(value) if mark else _IGNORED


def _unquoted(text: str) -> str:
    # Not `unquote`: it replaces all invalid UTF-8 by the same character.
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def content_of(request: Request) -> bytes:
    """Return a request's body without its content encoding."""
    if any(name.lower() == "content-encoding" for name, _ in request.headers):
        return decoded(request.headers, request.body)
    return request.body


def _body_part(request: Request, rules: Rules, context: Context) -> bytes:
    """Return the canonical form of the body."""
    body = content_of(request)
    if context.keys:
        body = _without(context.keys, body)
    found, value = parsed(body)
    if found:
        value = compared(value, rules)
        if context.issued and any(mark in body for mark in _REFERS):
            _place_ids(value, context.issued)
        return b"j" + _ENCODER.encode(value).encode()
    if (parts := form_of(body, request.header("content-type"), rules)) is not None:
        return b"f" + ascii(parts).encode()
    if rules.patterns:
        text = rules.without_patterns(body.decode("utf-8", "surrogateescape"))
        body = text.encode("utf-8", "surrogateescape")
    return b"b" + body


def parsed(body: bytes) -> tuple[bool, Json]:
    """Return whether a body is JSON, and its value."""
    if body.lstrip()[:1] not in (b"{", b"["):
        return False, None
    try:
        decoder = _WITH_MINUS_ZERO if b"-0" in body else _DECODER
        return True, decoder.decode(body.decode())
    except (ValueError, RecursionError):  # not JSON after all, or too deep: compare bytes
        return False, None


def compared(value: Json, rules: Rules) -> Json:
    """Return the compared part of a JSON body."""
    for path in rules.paths:
        drop(value, split_path(path))
    if rules.null_is_absent and isinstance(value, dict):
        value = {name: each for name, each in value.items() if each is not None}
    return _without_patterns(value, rules) if rules.patterns else value


def _without_patterns(value: Json, rules: Rules) -> Json:
    if isinstance(value, str):
        return rules.without_patterns(value)
    if isinstance(value, list):
        return [_without_patterns(each, rules) for each in value]
    if isinstance(value, dict):
        return {name: _without_patterns(each, rules) for name, each in value.items()}
    if isinstance(value, Pairs):
        return Pairs([(name, _without_patterns(each, rules)) for name, each in value.pairs])
    return value


def form_of(body: bytes, content_type: str, rules: Rules) -> list[tuple[str, str, bytes]] | None:
    """Return name, headers and content of each compared form field; None if it is not a form."""
    if boundary := _BOUNDARY.search(content_type):
        return list(_multipart(body, boundary.group(1).encode(), rules))
    if "form-urlencoded" not in content_type or not (rules.forms or rules.patterns):
        return None
    text = body.decode("latin-1")
    return [
        (name, "", rules.without_patterns(value).encode("utf-8", "surrogateescape"))
        for name, value in _pairs(text)
        if FORM + name not in rules.ignore
    ]


def _multipart(body: bytes, boundary: bytes, rules: Rules) -> Iterator[tuple[str, str, bytes]]:
    # With a line break before the first boundary, all look alike.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        match = _DISPOSITION.search(head)
        name = match.group(1).decode("utf-8", "replace") if match else ""
        if match and FORM + name in rules.ignore:
            continue
        if match and match.group(2) and f"{FORM}{name}.filename" in rules.ignore:
            head = head.replace(match.group(2), b"")
        if rules.patterns:
            text = rules.without_patterns(content.decode("utf-8", "surrogateescape"))
            content = text.encode("utf-8", "surrogateescape")
        yield name, head.decode("latin-1"), content


def drop(value: Json, path: tuple[str, ...]) -> None:
    """Delete the values at a path of a JSON value."""
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        # From the end, so that a deletion does not shift the next index.
        for index in reversed(range(len(value))):
            if name not in ("*", str(index)):
                continue
            if rest:
                drop(value[index], rest)
            else:
                del value[index]
    elif isinstance(value, dict):
        for each in [each for each in value if name in ("*", each)]:
            if rest:
                drop(value[each], rest)
            else:
                del value[each]
    elif isinstance(value, Pairs):
        if rest:
            for each, item in value.pairs:
                if name in ("*", each):
                    drop(item, rest)
        else:
            value.pairs[:] = [pair for pair in value.pairs if name not in ("*", pair[0])]


# Ids of tool calls -------------------------------------------------------------------------------


def issued_ids(body: bytes) -> list[str]:
    """Return the ids that an answer may have given to tool calls."""
    if b"tool" not in body and b"unction" not in body:  # function_call, functionCall
        return []
    return [found.decode("utf-8", "replace") for found in _ISSUED.findall(body)]


def _place_ids(value: Json, issued: Collection[str]) -> None:
    """Replace each issued id by its position among the issued ids of this request."""
    places: dict[str, int] = {}
    for holder, name in _id_positions(value):
        found = holder.get(name)
        if isinstance(found, str) and found in issued:
            holder[name] = f"\0id {places.setdefault(found, len(places))}"


def _id_positions(value: Json) -> Iterator[tuple[dict[str, Json], str]]:
    """Yield the objects and keys that hold tool call ids on the four wires, in order."""
    if not isinstance(value, dict):
        return
    for message in _objects(value.get("messages")):
        for call in _objects(message.get("tool_calls")):  # OpenAI, chat
            yield call, "id"
        yield message, "tool_call_id"
        for part in _objects(message.get("content")):  # Anthropic
            if str(part.get("type")).endswith("tool_use"):
                yield part, "id"
            yield part, "tool_use_id"
    for item in _objects(value.get("input")):  # OpenAI, responses
        if item.get("type") == "function_call":
            yield item, "id"
        yield item, "call_id"
    for content in _objects(value.get("contents")):  # Google
        for part in _objects(content.get("parts")):
            for name in ("functionCall", "functionResponse"):
                for call in _objects([part.get(name)]):
                    yield call, "id"


def _objects(value: Any) -> Iterator[dict[str, Json]]:
    if isinstance(value, list):
        for each in cast("list[object]", value):
            if isinstance(each, dict):
                yield cast("dict[str, Json]", each)
