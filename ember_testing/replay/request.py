"""Which requests are the same. Pure functions, no I/O.

A request is compared in canonical form: JSON by value (key order, white space and number spelling
do not count), a query by its sorted pairs, a multipart body without its random boundary, a loopback
server without its port, which is another one in every run. Credentials were replaced before.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from ember_testing.replay.settings import DEFAULT_RULES, Rules, split_path
from ember_testing.wires.body import decoded
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from ember_testing.replay.redaction import Redaction

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BOUNDARY = re.compile(r'boundary="?([^";,]+)')


def _number(text: str) -> int | float:
    """1.0 and 1 are one number, however a client's version spells it."""
    value = float(text)
    return int(value) if value.is_integer() else value


_DECODER = json.JSONDecoder(parse_float=_number)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"


def key(request: Request, rules: Rules = DEFAULT_RULES) -> str:
    """32 hexadecimal digits, equal for requests that the rules call the same."""
    parts = [_url_part(request.url, rules.match_on)]
    for part in rules.match_on:
        if part == "method":
            parts.append(request.method.upper())
        elif part == "body":
            parts.append(canonical_body(request, rules.ignore))
        elif part.startswith("header:"):
            parts.append(request.header(part[len("header:") :].lower()))
    text = "\n".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]


def keyed(request: Request, rules: Rules, redaction: Redaction) -> tuple[Request, str]:
    """A request as it is compared and written down, and the key that its recordings go by.

    Args:
        request: As it was sent.
        rules: What is compared.
        redaction: Knows the credentials that this request carries.
    """
    content_type, body = "", request.body
    for name, value in request.headers:
        lower = name.lower()
        if lower == "content-type":
            content_type = value
        elif lower == "content-encoding":
            body = decoded(request.headers, body)
    # The other headers are looked at only where a rule compares them, or when they are written.
    shown = redaction.headers(request.headers) if rules.compares_headers else ()
    redacted = Request(
        request.method,
        redaction.url(request.url),
        shown or (("content-type", content_type),),
        redaction.request_body(body, content_type),
    )
    return redacted, key(redacted, rules)


@lru_cache(maxsize=512)
def _url_part(url: str, match_on: tuple[str, ...]) -> str:
    split = urlsplit(url)
    whole = "url" in match_on
    host = split.hostname or ""
    port = split.port or {"http": 80, "https": 443}.get(split.scheme, 0)
    # The port of a loopback server is another one in every run; `port` in match_on brings it back.
    with_port = "port" in match_on or ((whole or "host" in match_on) and host not in LOOPBACK)
    query = sorted(parse_qsl(split.query, keep_blank_values=True))
    chosen = {
        "scheme": split.scheme,
        "host": host,
        "path": split.path or "/",
        "query": urlencode(query),
    }
    parts = [text if whole or name in match_on else "" for name, text in chosen.items()]
    return json.dumps([*parts, port if with_port else None])


def canonical_body(request: Request, ignore: tuple[str, ...] = ()) -> str:
    """The body as text that is equal for bodies meaning the same."""
    body = request.body
    found, value = parsed(body)
    if found:
        for path in ignore:
            drop(value, split_path(path))
        return _ENCODER.encode(value)
    if boundary := _BOUNDARY.search(request.header("content-type")):
        body = body.replace(boundary.group(1).encode(), b"boundary")
    return body.decode("utf-8", "backslashreplace")


def parsed(body: bytes) -> tuple[bool, Json]:
    """Whether a body is JSON, and what it says."""
    if body.lstrip()[:1] not in (b"{", b"["):
        return False, None
    try:
        return True, _DECODER.decode(body.decode())
    except (ValueError, RecursionError):  # not JSON after all, or too deep to walk: compare bytes
        return False, None


def drop(value: Json, path: tuple[str, ...]) -> None:
    """Take what stands at a path out of a JSON value."""
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        # From the end, so that dropping one does not move the next.
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
