"""Which recording answers a request, and why none does. Pure functions, no I/O.

A request is compared in canonical form: JSON by value (key order, white space and number spelling
do not count), a query by its sorted pairs, a multipart body without its random boundary, a loopback
server without its port, which is another one in every run. Credentials were replaced before.
"""

from __future__ import annotations

import difflib
import hashlib
import heapq
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ember_testing.wires.body import Headers

DEFAULT_MATCH_ON = ("method", "scheme", "host", "path", "query", "body")
_PARTS = (*DEFAULT_MATCH_ON, "port", "url")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BOUNDARY = re.compile(r'boundary="?([^";,]+)')
_ABSENT = object()
_STEP = re.compile(r"""\.?(?:\[(?:(\d+|\*)|'([^']+)'|"([^"]+)")\]|([^.\[\]]+))""")


def _number(text: str) -> int | float:
    """1.0 and 1 are one number, however a client's version spells it."""
    value = float(text)
    return int(value) if value.is_integer() else value


_DECODER = json.JSONDecoder(parse_float=_number)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | bool | None"
Path = tuple[str, ...]


class Request(NamedTuple):
    """A request as it is compared and written down: redacted, its body whole and decoded."""

    method: str
    url: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, "" when it is absent."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Rules:
    """What takes part in the comparison.

    Attributes:
        match_on: Any of method, scheme, host, port, path, query, url, body and `header:NAME`.
        ignore: JSON paths of the body that vary from run to run: `metadata.run_id`,
            `messages.*.id`, `$.input[0].created`, `metadata['a.b']`.
        compares_headers: Whether a header takes part.

    Raises:
        ValueError: An entry of `match_on` is none of these, nothing is compared, or one of `ignore`
            is no such path.
    """

    match_on: tuple[str, ...] = DEFAULT_MATCH_ON
    ignore: tuple[str, ...] = ()
    compares_headers: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for part in self.match_on:
            if part not in _PARTS and not (part.startswith("header:") and part != "header:"):
                raise ValueError(
                    f"match_on={part!r}: expected any of {', '.join(_PARTS)} or 'header:NAME'"
                )
        if not self.match_on:
            raise ValueError("match_on=(): compare at least one part of the request")
        for path in self.ignore:
            _split(path)
        headers = any(part.startswith("header:") for part in self.match_on)
        object.__setattr__(self, "compares_headers", headers)

    @property
    def text(self) -> str:
        """The rules as they are stored beside a key; "" for the default ones."""
        if self == _DEFAULT_RULES:
            return ""
        return json.dumps({"match_on": self.match_on, "ignore": self.ignore})


_DEFAULT_RULES = Rules()


def key(request: Request, rules: Rules = _DEFAULT_RULES) -> str:
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
    found, value = _parse(body)
    if found:
        for path in ignore:
            _drop(value, _split(path))
        return _ENCODER.encode(value)
    if boundary := _BOUNDARY.search(request.header("content-type")):
        body = body.replace(boundary.group(1).encode(), b"boundary")
    return body.decode("utf-8", "backslashreplace")


def _parse(body: bytes) -> tuple[bool, Json]:
    if body.lstrip()[:1] not in (b"{", b"["):
        return False, None
    try:
        return True, _DECODER.decode(body.decode())
    except (ValueError, RecursionError):  # not JSON after all, or too deep to walk: compare bytes
        return False, None


@lru_cache(maxsize=128)
def _split(path: str) -> Path:
    rest = path.removeprefix("$")
    steps: list[str] = []
    while step := _STEP.match(rest):
        steps.append(step[step.lastindex or 0])
        rest = rest[step.end() :]
    if rest or not steps:
        raise ValueError(
            f"ignore={path!r}: expected a path into the body, such as 'metadata.run_id', "
            "'messages[0].id', 'messages.*.id' or \"metadata['a.b']\""
        )
    return tuple(steps)


def _drop(value: Json, path: Path) -> None:
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        # From the end, so that dropping one does not move the next.
        for index in reversed(range(len(value))):
            if name not in ("*", str(index)):
                continue
            if rest:
                _drop(value[index], rest)
            else:
                del value[index]
    elif isinstance(value, dict):
        for each in [each for each in value if name in ("*", each)]:
            if rest:
                _drop(value[each], rest)
            else:
                del value[each]


def leaves(request: Request, rules: Rules = _DEFAULT_RULES) -> dict[str, Any]:
    """What the rules compare, as a flat table: `messages[0].content`, `temperature`, `?alt`."""
    split = urlsplit(request.url)
    counted = {*rules.match_on}
    if "url" in counted:
        counted |= {"scheme", "host", "path", "query"}
    with_port = "port" in counted or split.hostname not in LOOPBACK  # as in the key
    if "port" in counted:
        counted.add("host")
    whole = {
        "method": request.method,
        "scheme": split.scheme,
        "host": split.netloc if with_port else split.hostname,
        "path": split.path,
    }
    table: dict[str, Any] = {name: value for name, value in whole.items() if name in counted}
    if "query" in counted:
        for name, text in parse_qsl(split.query, keep_blank_values=True):
            table[f"?{name}"] = text
    for part in rules.match_on:
        if part.startswith("header:"):
            table[part] = request.header(part[len("header:") :].lower())
    if "body" not in counted:
        return table
    found, value = _parse(request.body)
    if found:
        for path in rules.ignore:
            _drop(value, _split(path))
        table.update(_walk(value, ""))
    elif request.body:
        table["body"] = canonical_body(request)
    return table


def _walk(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _walk(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")
    else:
        yield path or "body", value


def distance(left: dict[str, Any], right: dict[str, Any]) -> float:
    """How far two tables of leaves are apart, 0.0 when they are equal.

    A leaf on one side only counts 1, a differing text by the share of words not in common, another
    differing value 0.5; another path or host weighs more than any leaf.
    """
    total = 0.0
    for name in left.keys() | right.keys():
        old, new = left.get(name, _ABSENT), right.get(name, _ABSENT)
        if old is _ABSENT or new is _ABSENT:
            total += 1.0
        elif old != new:
            weight = {"path": 4.0, "host": 2.0, "method": 4.0}.get(name, 1.0)
            total += weight * _apart(old, new)
    return total


def _apart(old: Any, new: Any) -> float:
    if not (isinstance(old, str) and isinstance(new, str)):
        return 0.5
    words_old, words_new = set(old.split()), set(new.split())
    every = len(words_old | words_new)
    # Never 0: texts that differ in their white space or their order only are still different.
    return max(0.05, 1 - len(words_old & words_new) / every) if every else 0.05


def nearest(
    request: Request, stored: Iterable[tuple[int, Request]], rules: Rules = _DEFAULT_RULES
) -> tuple[int, Request] | None:
    """The recording that differs least, the earliest of equals; None when there is none.

    Args:
        request: The one that found no recording.
        stored: Number and request of each recording.
        rules: What is compared.
    """
    wanted = leaves(request, rules)
    rough = heapq.nsmallest(
        8,
        ((distance(wanted, leaves(other, rules)), number, other) for number, other in stored),
        key=lambda entry: entry[:2],
    )
    if not rough:
        return None
    # Words decide roughly, characters finely: among the first eight the texts are compared fully.
    best = min(rough, key=lambda entry: (_fine_distance(wanted, leaves(entry[2], rules)), entry[1]))
    return best[1], best[2]


def _fine_distance(left: dict[str, Any], right: dict[str, Any]) -> float:
    total = 0.0
    for name in left.keys() | right.keys():
        old, new = left.get(name, _ABSENT), right.get(name, _ABSENT)
        if isinstance(old, str) and isinstance(new, str) and old != new:
            matcher = difflib.SequenceMatcher(None, old[:2000], new[:2000])
            weight = {"path": 4.0, "host": 2.0, "method": 4.0}.get(name, 1.0)
            total += weight * max(0.01, 1 - matcher.ratio())
        elif old != new:
            total += 1.0 if old is _ABSENT or new is _ABSENT else 0.5
    return total


def differences(
    recorded: Request,
    request: Request,
    limit: int = 8,
    words: tuple[str, str] = ("recorded", "now"),
    rules: Rules = _DEFAULT_RULES,
) -> list[str]:
    """One line a leaf that differs, as `name: recorded ..., now ...`, at most `limit` lines.

    Args:
        recorded: One request.
        request: The other one.
        limit: Lines.
        words: What the two are called.
        rules: What is compared.
    """
    first, second = words
    source = "in the recording" if first == "recorded" else f"in the {first} one"
    old, new = leaves(recorded, rules), leaves(request, rules)
    lines: list[str] = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before == now:
            continue
        if before is _ABSENT:
            lines.append(f"+ {name}: {_short(now)}  (not {source})")
        elif now is _ABSENT:
            lines.append(f"- {name}: {_short(before)}  (only {source})")
        else:
            recorded_text, now_text = _around(before, now)
            lines.append(f"! {name}: {first} {recorded_text}, {second} {now_text}")
    if len(lines) > limit:
        lines[limit:] = [f"  and {len(lines) - limit} more"]
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _around(old: Any, new: Any, width: int = 60) -> tuple[str, str]:
    """Both values, long texts cut to where they begin to differ."""
    if not (isinstance(old, str) and isinstance(new, str)) or max(len(old), len(new)) <= width:
        return _short(old), _short(new)
    pairs = enumerate(zip(old, new, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    start = max(0, first - 20)

    def window(text: str) -> str:
        shown = text[start : start + width - 6]
        head = "..." if start else ""
        tail = "..." if start + len(shown) < len(text) else ""
        return json.dumps(head + shown + tail, ensure_ascii=False)

    return window(old), window(new)
