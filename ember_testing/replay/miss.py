"""Explain a miss: the nearest recording, its differences, and the command to run."""

from __future__ import annotations

import difflib
import heapq
import json
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ember_testing.cassettes.file import CassetteFile
from ember_testing.exceptions import CassetteError
from ember_testing.patches.hosts import is_loopback
from ember_testing.replay.lookup import stored_requests
from ember_testing.replay.request import (
    Json,
    Number,
    Pairs,
    compared,
    content_of,
    form_of,
    parameters,
    parsed,
)
from ember_testing.replay.settings import DEFAULT_RULES, Rules
from ember_testing.replay.tally import counted
from ember_testing.wires.response import Request
from ember_testing.wires.vendors import UNKNOWN, host_and_path, vendor_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_ABSENT = object()
_NEEDS_BRACKETS = re.compile(r"[.\[\]]")
_NEEDS_BRACKETS_AT_FIRST = re.compile(r"[.\[\]]|^(?:\$|re:|(?:query|form)$)")
_WEIGHTS = {"path": 4.0, "host": 2.0, "method": 4.0}  # of a difference; 1.0 for others
_SIBLINGS = 100  # cassettes that are searched for a request


def record_command(test: str, path: Path, *, anew: bool = False) -> str:
    """Return the command that records what is missing in a test or, if "", in a block."""
    if test:
        return f"pytest --ember-record{'=all' if anew else ''} {shlex.quote(test)}"
    mode = "all" if anew else "new"
    return f'with ember_testing.cassette({str(path)!r}, record="{mode}")'


def explain(
    request: Request,
    path: Path,
    file: CassetteFile | None,
    *,
    n: int,
    recorded: int,
    compare: bool,
    command: str,
    rules: Rules,
    orphans: Callable[[Request], list[str]] | None = None,
) -> str:
    """Return the message for a request without a recording.

    Args:
        request: The request, redacted.
        path: The cassette.
        file: The open cassette; None if it does not exist.
        n: The request's position among identical ones, from 1.
        recorded: How many recordings the request has.
        compare: Whether to look for the nearest recording, which reads all of them.
        command: The command that records the request.
        rules: The rules of comparison.
        orphans: Returns lines about a renamed test's cassette with the request, if the tests are
            known.
    """
    lines = [f"no recording for {request.method} {request.url}"]
    if file is None:
        lines.append(f"there is no cassette {path}")
        if compare and orphans is not None:
            lines += orphans(request)
        elif compare and (other := _sibling_with(request, path, rules)) is not None:
            lines.append(f"{other} holds this request; if it is this test's, by an earlier name:")
            lines.append(f"  git mv {shlex.quote(str(other))} {shlex.quote(str(path))}")
    elif recorded:
        lines[0] = (
            f"no further recording for {request.method} {request.url}: "
            f"recorded {recorded}, this is call {n}"
        )
        lines.append(f'(cassette {path}; repeats="last" allows the last one again)')
    else:
        lines.append(f"cassette: {path} ({counted(file.size(), 'recording')})")
        if compare:
            lines += _nearest_lines(request, file, rules)
        if compare and orphans is not None:
            lines += orphans(request)
    if _is_unknown_server(request.url):
        host = urlsplit(request.url).hostname
        lines.append(f"no known provider is there; ignore_hosts=[{host!r}] leaves its calls out")
    lines.append(f"to record it: {command}")
    return "\n".join(lines)


def _nearest_lines(request: Request, file: CassetteFile, rules: Rules) -> list[str]:
    """Return lines about the nearest recording, its differences, and settings to ignore them."""
    found = nearest(request, stored_requests(file), rules)
    if found is None:
        return []
    number, other = found
    lines = [f"nearest: recording {number}, which differs in"]
    lines += [f"  {line}" for line in differences(other, request, rules=rules)]
    if paths := random_leaves(other, request, rules):
        lines.append(f"it looks random on both sides: ignore={paths!r} leaves it out")
    if _differ_by_nulls(other, request, rules):
        lines.append("only nulls differ: null_is_absent=True takes a null for no such key")
    return lines


def _is_unknown_server(url: str) -> bool:
    """Return whether the URL is on another machine and belongs to no known provider."""
    host, path = host_and_path(url)
    return vendor_at(host, path) == UNKNOWN and not is_loopback(urlsplit(url).hostname or "")


def _sibling_with(request: Request, path: Path, rules: Rules) -> Path | None:
    """Return a cassette in the same folder with the request, as after a test was renamed."""
    siblings = sorted(each for each in path.parent.glob("*.sqlite") if each != path)
    for sibling in siblings[:_SIBLINGS]:
        try:
            with CassetteFile(sibling) as file:
                if any(_is_same(each, request, rules) for _, each in stored_requests(file)):
                    return sibling
        except CassetteError:
            continue  # `ember-cassettes check` reports it
    return None


def leaves(request: Request, rules: Rules = DEFAULT_RULES) -> dict[str, Any]:
    """Return the compared values by path: `messages[0].content`, `temperature`, `?alt`."""
    split = urlsplit(request.url)
    counted = {*rules.match_on}
    if "url" in counted:
        counted |= {"scheme", "host", "path", "query"}
    with_port = "port" in counted or not is_loopback(split.hostname or "")  # as in the key
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
        table |= {f"?{name}": text for name, text in parameters(request.url, rules)}
    for part in rules.match_on:
        if part.startswith("header:"):
            table[part] = request.header(part[len("header:") :].lower())
    if "body" not in counted:
        return table
    body = content_of(request)
    found, value = parsed(body)
    if found:
        table.update(_walk(compared(value, rules), ""))
    elif (fields := form_of(body, request.header("content-type"), rules)) is not None:
        for name, head, content in fields:
            table[f"form.{name}"] = (head + content.decode("utf-8", "backslashreplace")).strip()
    elif body:
        table["body"] = body.decode("utf-8", "backslashreplace")
    return table


def _walk(value: Json, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _walk(item, _step(path, name))
    elif isinstance(value, Pairs):
        for place, (name, item) in enumerate(value.pairs, 1):
            yield from _walk(item, f"{path}.{name}#{place}" if path else f"{name}#{place}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")
    else:
        yield path or "body", value


def _step(path: str, name: str) -> str:
    """Return the path to a key, in the syntax of `ignore`."""
    needs_brackets = _NEEDS_BRACKETS if path else _NEEDS_BRACKETS_AT_FIRST
    if name and not needs_brackets.search(name):
        return f"{path}.{name}" if path else name
    quote = '"' if "'" in name else "'"
    return f"{path}[{quote}{name}{quote}]"


def _distance(
    left: dict[str, Any], right: dict[str, Any], apart: Callable[[str, str], float]
) -> float:
    """Return the distance between two tables of leaves, 0.0 if they are equal.

    A leaf on one side only counts 1, changed texts what `apart` says, any other changed value 0.5;
    a different path or host weighs more than any leaf.
    """
    total = 0.0
    for name, old, new in _changes(left, right):
        if old is _ABSENT or new is _ABSENT:
            total += 1.0
        else:
            are_texts = isinstance(old, str) and isinstance(new, str)
            total += _WEIGHTS.get(name, 1.0) * (apart(old, new) if are_texts else 0.5)
    return total


def _apart_by_words(old: str, new: str) -> float:
    words_old, words_new = set(old.split()), set(new.split())
    every = len(words_old | words_new)
    # Never 0: texts that differ only in white space or word order are still different.
    return max(0.05, 1 - len(words_old & words_new) / every) if every else 0.05


def _apart_by_characters(old: str, new: str) -> float:
    return max(0.01, 1 - difflib.SequenceMatcher(None, old[:2000], new[:2000]).ratio())


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each name whose value differs, with both values."""
    for name in {**old, **new}:
        before, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before != now:
            yield name, before, now


def _is_same(first: Request, second: Request, rules: Rules) -> bool:
    return leaves(first, rules) == leaves(second, rules)


def nearest(
    request: Request, stored: Iterable[tuple[int, Request]], rules: Rules = DEFAULT_RULES
) -> tuple[int, Request] | None:
    """Return the recording that differs least, the earliest of equals; None if there is none."""
    requested = leaves(request, rules)

    def by_distance(
        each: Iterable[tuple[int, Request]], apart: Callable[[str, str], float], most: int
    ) -> list[tuple[int, Request]]:
        measured = (
            (_distance(requested, leaves(other, rules), apart), number, other)
            for number, other in each
        )
        found = heapq.nsmallest(most, measured, key=lambda entry: entry[:2])
        return [(number, other) for _, number, other in found]

    # Word sets preselect eight candidates; the slower comparison by characters decides.
    rough = by_distance(stored, _apart_by_words, 8)
    return next(iter(by_distance(rough, _apart_by_characters, 1)), None)


def differences(
    recorded: Request,
    request: Request,
    limit: int = 8,
    words: tuple[str, str] = ("recorded", "now"),
    rules: Rules = DEFAULT_RULES,
) -> list[str]:
    """Return one line per differing leaf, `name: recorded ..., now ...`, at most `limit`.

    `words` name the two requests.
    """
    first, second = words
    source = "in the recording" if first == "recorded" else f"in the {first} one"
    lines: list[str] = []
    for name, before, now in _changes(leaves(recorded, rules), leaves(request, rules)):
        if before is _ABSENT:
            lines.append(f"+ {name}: {_short(now)}  (not {source})")
        elif now is _ABSENT:
            lines.append(f"- {name}: {_short(before)}  (only {source})")
        else:
            recorded_text, now_text = _where_texts_differ(before, now)
            lines.append(f"! {name}: {first} {recorded_text}, {second} {now_text}")
    if len(lines) > limit:
        lines[limit:] = [f"  and {len(lines) - limit} more"]
    return lines


_RANDOM = re.compile(
    r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"  # a time
    r"|(?<![a-z0-9.])1[5-9]\d{8}(?:\d{3}|\d{6}|\d{9}|\.\d+)?(?![a-z0-9.])"  # seconds since 1970
    r"|(?<![a-z0-9])(?=[a-z_-]*[0-9])(?=[0-9_-]*[a-z])[a-z0-9_-]{16,}(?![a-z0-9])"
)
# Parts of a request that `ignore` cannot name.
_CANNOT_BE_IGNORED = ("method", "scheme", "host", "path", "body")


def random_leaves(recorded: Request, request: Request, rules: Rules = DEFAULT_RULES) -> list[str]:
    """Return `ignore` paths for the differing leaves, if all of them look random on both sides.

    Return none if a differing leaf is a text of several words that merely contains an id.
    """
    found: list[str] = []
    for name, before, now in _changes(leaves(recorded, rules), leaves(request, rules)):
        if name in _CANNOT_BE_IGNORED or name.startswith("header:"):
            return []
        if (rest := _without_random_part(before)) is None or rest != _without_random_part(now):
            return []
        found.append(f"query.{name[1:]}" if name[0] == "?" else name)
    return found if found and _is_enough(found, recorded, request, rules) else []


def _is_enough(paths: list[str], recorded: Request, request: Request, rules: Rules) -> bool:
    """Return whether two requests are the same if these paths are ignored."""
    try:
        rules = replace(rules, ignore=(*rules.ignore, *paths))
    except ValueError:  # no path can express this name
        return False
    return _is_same(recorded, request, rules)


def _without_random_part(value: Any) -> str | None:
    """Return an id without its random part; None if it is not such an id."""
    text = value.text if isinstance(value, Number) else value
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    if not isinstance(text, str) or not _RANDOM.search(text):
        return None
    rest = _RANDOM.sub("*", text)
    return rest if len(rest.split()) == 1 else None


def _differ_by_nulls(recorded: Request, request: Request, rules: Rules) -> bool:
    """Return whether requests differ only by nulls at the top of the body that one side omits."""
    if rules.null_is_absent or _is_same(recorded, request, rules):
        return False
    return _is_same(recorded, request, replace(rules, null_is_absent=True))


def _short(value: Any) -> str:
    text = value.text if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _where_texts_differ(old: Any, new: Any, width: int = 60) -> tuple[str, str]:
    """Return both values, with long texts cut to where they begin to differ."""
    if not (isinstance(old, str) and isinstance(new, str)) or max(len(old), len(new)) <= width:
        return _short(old), _short(new)
    pairs = enumerate(zip(old, new, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    start = max(0, first - 20)

    def window(text: str) -> str:
        excerpt = text[start : start + width - 6]
        head = "..." if start else ""
        tail = "..." if start + len(excerpt) < len(text) else ""
        return json.dumps(head + excerpt + tail, ensure_ascii=False)

    return window(old), window(new)
