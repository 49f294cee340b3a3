"""No traceback, repr or report shows a key, whatever fails, and however the frames are printed."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import ember_testing
from ember.api import models
from ember.exceptions import EmberError
from tests.loopback import Received, Reply, reset, scripted, serving
from tests.testing.chat import ask, chat

KEY = "sk-live-J4mQz7RkX2vBn9TcW5yHd8LpFg3S"
MODELS = {
    "openai": "openai/gpt-4",
    "openai-responses": "openai-responses/o3-pro",
    "anthropic": "anthropic/claude-3-opus",
    "google": "google/gemini-pro",
}
VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY")


# --- failures ------------------------------------------------------------------------------------

EVENTS = {
    "openai": '{"choices": [{"index": 0, "delta": {"content": "so far"}}]}',
    "openai-responses": '{"type": "response.output_text.delta", "delta": "so far"}',
    "anthropic": '{"type": "content_block_delta", "index": 0, "delta": '
    '{"type": "text_delta", "text": "so far"}}',
    "google": '{"candidates": [{"content": {"parts": [{"text": "so far"}]}}]}',
}
STREAM = {"content-type": "text/event-stream"}


def answer(request: Received) -> Reply:
    """Fail as given in the path, `/FAILURE/WIRE/...`; some errors repeat the key."""
    _, failure, wire, *_ = request.path.split("/")
    failure, _, echo = failure.partition("-")
    message = f"Incorrect API key provided: {KEY}" if echo else "No."
    refusal = json.dumps({"type": "error", "error": {"message": message, "type": "x"}}).encode()
    begun = f"data: {EVENTS[wire]}\n\n".encode()
    if failure.isdecimal():
        return Reply(refusal, status=int(failure))
    return {
        "shape": Reply(b'{"answer": 42}'),
        "page": Reply(b"<html>Sign in</html>", headers={"content-type": "text/html"}),
        "empty": Reply(),
        "late": Reply(b"{}", delay=0.3),
        "stall": Reply(pieces=[begun, begun], pause=0.3, headers=STREAM),
        "cut": Reply(pieces=[begun], cut=True, headers=STREAM),
        "ends": Reply(pieces=[begun], headers=STREAM),
        "inside": Reply(pieces=[begun, b"event: error\ndata: %b\n\n" % refusal], headers=STREAM),
    }[failure]


ANSWERED = ("401", "429", "500", "401-echo", "500-echo", "inside-echo", "shape", "page", "empty",
            "late", "stall", "cut", "ends", "inside")  # fmt: skip


# --- kinds of calls ------------------------------------------------------------------------------


def whole(model: str, **params: Any) -> None:
    """Make a plain call."""
    models(model, "hi", **params)


def streamed(model: str, **params: Any) -> None:
    """Make a streamed call."""
    list(models.stream(model, "hi", **params))


async def awaited(model: str, **params: Any) -> None:
    """Make an async call."""
    await models.acall(model, "hi", **params)


async def awaited_stream(model: str, **params: Any) -> None:
    """Make an async streamed call."""
    [chunk async for chunk in models.astream(model, "hi", **params)]


def bound(model: str, **params: Any) -> None:
    """Make a call of a binding."""
    models.instance(model, **params)("hi")


WAYS: dict[str, Callable[..., Any]] = {
    "whole": whole,
    "streamed": streamed,
    "awaited": lambda model, **params: asyncio.run(awaited(model, **params)),
    "awaited_stream": lambda model, **params: asyncio.run(awaited_stream(model, **params)),
    "bound": bound,
}
STREAMING = ("streamed", "awaited_stream")


# --- the search ----------------------------------------------------------------------------------


def pieces(secret: str) -> set[str]:
    """Return all forms of a key that reveal it, whole or in parts of eight characters."""
    encoded = base64.b64encode(secret.encode()).decode()
    forms = {secret, quote(secret, safe=""), encoded}
    return {form[at : at + 8] for form in forms for at in range(8, len(form) - 7)}


PIECES = pieces(KEY)


@lru_cache(4096)  # frames share their locals
def holds_key(text: str) -> bool:
    """Return whether a text contains a part of the key."""
    return any(piece in text for piece in PIECES)


def printed(value: object, depth: int = 4) -> Iterator[str]:
    """Iterate over what a reporter prints of a local: its repr and those of its parts."""
    try:
        yield repr(value)
    except Exception:  # of a partly initialized object
        return
    if isinstance(value, str | bytes):
        yield repr(value[:80])  # rich shortens a long text so
    if not depth:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from printed(name, 0)
            yield from printed(item, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from printed(item, depth - 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.repr and hasattr(value, field.name):
                yield from printed(getattr(value, field.name), depth - 1)


def frames(error: BaseException) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the frames of an error and its causes, without those of this file."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, *getattr(each, "exceptions", ())]
        if not each.__suppress_context__:
            waiting.append(each.__context__)
        at: TracebackType | None = each.__traceback__
        while at is not None:
            code = at.tb_frame.f_code
            if code.co_filename != __file__:
                yield f"{code.co_filename}:{at.tb_lineno} {code.co_name}", at.tb_frame.f_locals
            at = at.tb_next


def leaks(error: BaseException) -> list[str]:
    """Return the places of the key in an error, its traceback and its frames' locals."""
    texts = {"message": str(error), "repr": repr(error), "context": repr(vars(error))}
    texts["traceback"] = "".join(traceback.format_exception(error))
    found = [where for where, text in texts.items() if holds_key(text)]
    for where, names in frames(error):
        for name, value in names.items():
            if any(map(holds_key, printed(value))):
                found.append(f"{where}: {name}")
    return found


def search(call: Callable[..., Any], model: str, **params: Any) -> list[str]:
    """Make a failing call and search its exception."""
    try:
        call(model, **params)
    except EmberError as error:
        return leaks(error)
    raise AssertionError("the call did not fail")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run a server on which every call fails."""
    with serving(answer) as server:
        yield server.url


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the key in the environment."""
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    return KEY


def test_the_search_finds_what_reporters_print() -> None:
    """The search finds a key in a message, a cause, or a local of a frame below the caller's."""
    error = EmberError(f"no {KEY[-8:]}")
    assert leaks(error) == ["message", "repr", "traceback"]
    try:
        json.loads("[" + KEY)
    except ValueError as cause:
        error = EmberError("no")
        error.__cause__ = cause
    assert {where.rpartition(": ")[2] for where in leaks(error)} >= {"s"}
    assert holds_key(base64.b64encode(KEY.encode()).decode())


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", MODELS)
def test_no_frame_shows_a_key(way: str, wire: str, url: str) -> None:
    """Whatever the provider answers, no local of any frame below the caller's holds the key."""
    found = {
        name: where
        for name in ANSWERED
        if way in STREAMING or name not in ("stall", "ends")
        if (where := search(WAYS[way], MODELS[wire], base_url=f"{url}/{name}/{wire}", timeout=0.1))
    }
    assert not found, json.dumps(found, indent=1)


def sources(base_url: str) -> dict[str, dict[str, Any]]:
    """Return the arguments in which a caller may pass a key."""
    scheme, _, rest = base_url.partition("://")
    return {
        "api_key": {"base_url": base_url, "api_key": KEY},
        "authorization": {
            "base_url": base_url,
            "extra_headers": {"Authorization": f"Bearer {KEY}"},
        },
        "a header": {"base_url": base_url, "extra_headers": {"x-api-key": KEY}},
        "an address": {"base_url": f"{scheme}://user:{KEY}@{rest}"},
        "a query": {"base_url": f"{base_url}?api-key={KEY}"},
    }


@pytest.mark.parametrize("source", sources(""))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", MODELS)
def test_no_frame_shows_a_key_passed_by_the_caller(
    wire: str, way: str, source: str, url: str
) -> None:
    """No frame shows a key that was passed as an argument of a call."""
    found = {}
    for name in ("401", "401-echo", "shape", "late"):
        params = sources(f"{url}/{name}/{wire}")[source]
        if where := search(WAYS[way], MODELS[wire], timeout=0.1, **params):
            found[name] = where
    assert not found, json.dumps(found, indent=1)


WRONG: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": -1},
    "tools": {"tools": 7},
    "JSON": {"metadata": object()},
    "a key that is no header": {"api_key": f"{KEY}\n"},
    "a header that is none": {"extra_headers": {"x-api-key": f"{KEY}\n"}},
    "a prompt": {"system": 7},
    "nobody there": {"base_url": "http://127.0.0.1:1"},
    "no such host": {"base_url": "http://nowhere.invalid"},
    "no such scheme": {"base_url": "ftp://127.0.0.1"},
    "no address": {"base_url": "http://[::1"},
}


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("way", WAYS)
def test_no_frame_shows_a_key_of_a_call_that_is_not_sent(way: str) -> None:
    """No frame shows a key if an argument is wrong or the provider is unreachable."""
    found = {}
    for name, params in WRONG.items():
        given = {"api_key": KEY, "extra_headers": {"x-secret": KEY}, **params}
        if where := search(WAYS[way], "openai/gpt-4", **given):
            found[name] = where
    assert not found, json.dumps(found, indent=1)


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("way", WAYS)
def test_no_frame_shows_a_key_when_the_connection_breaks(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No frame shows a key if the request is sent incompletely or a proxy refuses it."""
    prompt = "word " * 200_000
    with scripted(reset) as broken:
        found = {"reset": search(WAYS[way], "openai/gpt-4", base_url=broken, system=prompt)}
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://user:{KEY}@{broken.removeprefix('http://')}")
        found["proxy"] = search(WAYS[way], "openai/gpt-4", base_url="http://model.invalid")
    assert not any(found.values()), json.dumps(found, indent=1)


# --- as pytest prints it -------------------------------------------------------------------------

SUITE = """
import asyncio, pytest
from ember.api import models

async def read(stream):
    return [chunk async for chunk in stream]

WAYS = {{
    "whole": models,
    "streamed": lambda *about, **params: list(models.stream(*about, **params)),
    "awaited": lambda *about, **params: asyncio.run(models.acall(*about, **params)),
    "awaited_stream": lambda *about, **params: asyncio.run(read(models.astream(*about, **params))),
}}

@pytest.mark.parametrize("failure", ["401-echo", "inside-echo", "late"])
@pytest.mark.parametrize("wire, model", {models})
@pytest.mark.parametrize("way", WAYS)
def test_it(way, wire, model, failure):
    WAYS[way](model, "hi", base_url=f"{url}/{{failure}}/{{wire}}", timeout=0.1)
"""


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("options", "failures"),
    [
        (("-l",), 48),  # which prints all that is printed without the option
        (("-l", "--tb=long", "-vvv", "--full-trace", "-k", "late and awaited"), 8),
    ],
    ids=["locals", "everything"],
)
def test_pytest_prints_no_key(
    options: tuple[str, ...], failures: int, run: Callable[..., pytest.RunResult], url: str
) -> None:
    """An unexpected failure printed by pytest, with all locals on request, shows no key."""
    result = run(SUITE.format(models=[*MODELS.items()], url=url), *options)
    assert result.parseoutcomes()["failed"] == failures
    result.stdout.fnmatch_lines(["*ProviderAPIError: openai*"])
    assert not holds_key(str(result.stdout) + str(result.stderr))


# --- the toolkit's own frames --------------------------------------------------------------------


def by_httpx(base_url: str) -> None:
    """Send a request with httpx, with the key in headers."""
    with httpx.Client(verify=False) as client:
        client.post(
            f"{base_url}/v1/chat/completions",
            headers={"authorization": f"Bearer {KEY}", "x-api-key": KEY},
            json={"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]},
        )


TOOLKIT_WAYS: dict[str, Callable[[str], Any]] = {
    name: lambda base_url, way=way: way("openai/gpt-4", base_url=base_url)
    for name, way in WAYS.items()
} | {"httpx": by_httpx}


def miss(call: Callable[[str], Any], path: Path) -> None:
    """Make a request that was not recorded, with a cassette of another one."""
    with serving(chat) as server, ember_testing.cassette(path, record="new"):
        ask(server.url, "Paris")
    with ember_testing.cassette(path):
        call("http://127.0.0.1:1")


def no_cassette(call: Callable[[str], Any], path: Path) -> None:
    """Replay without a recording."""
    with ember_testing.cassette(path):
        call("http://127.0.0.1:1")


def not_written(call: Callable[[str], Any], path: Path) -> None:
    """Record to a file that cannot be written."""
    path.mkdir()
    with serving(chat) as server, ember_testing.cassette(path, record="new"):
        call(server.url)


def too_expensive(call: Callable[[str], Any], path: Path) -> None:
    """Record with a spent budget."""
    with serving(chat) as server, ember_testing.cassette(path, record="new", budget=0.0):
        call(server.url)


def error_recorded(call: Callable[[str], Any], path: Path) -> None:
    """Record an unexpected error of a provider."""
    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        call(f"{server.url}/401/openai")


def spelled_out(call: Callable[[str], Any], path: Path) -> None:
    """Record a key that comes back in chunks and cannot be redacted: nothing is written."""
    deltas = [{"choices": [{"index": 0, "delta": {"content": KEY[at : at + 6]}}]}
              for at in range(0, len(KEY), 6)]  # fmt: skip
    ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [f"data: {json.dumps(each)}\n\n".encode() for each in (*deltas, ended)]
    spelling = Reply(pieces=[*events, b"data: [DONE]\n\n"], headers=STREAM)
    with serving(lambda _: spelling) as server, ember_testing.cassette(path, record="new"):
        call(server.url)


def not_faked(call: Callable[[str], Any], path: Path) -> None:
    """Make a call for which no fake was set up."""
    with ember_testing.fake_model() as fake:
        fake("claude-3-opus", "Paris")
        call("https://api.openai.com/v1")


def fake_raises(call: Callable[[str], Any], path: Path) -> None:
    """Call a fake whose function fails."""
    with ember_testing.fake_model() as fake:
        fake("*", lambda call: 1 / 0)
        call("https://api.openai.com/v1")


FAILURES = (
    spelled_out,
    miss,
    no_cassette,
    not_written,
    too_expensive,
    error_recorded,
    not_faked,
    fake_raises,
)


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("way", TOOLKIT_WAYS)
@pytest.mark.parametrize("fails", FAILURES, ids=lambda fails: fails.__name__)
def test_no_frame_of_the_toolkit_shows_a_key(
    fails: Callable[..., None], way: str, path: Path
) -> None:
    """No frame of the seam, session, redaction or fakes shows the key in a request."""
    with pytest.raises(BaseException) as caught:
        fails(TOOLKIT_WAYS[way], path)
    assert not isinstance(caught.value, AssertionError)
    found = [where for where in leaks(caught.value) if "/ember" in where or way != "httpx"]
    assert not found, json.dumps(found, indent=1)


UNANSWERED = """
import asyncio, pytest
from ember.api import models

CALLS = [
    lambda: models("gpt-4", "hi"),
    lambda: list(models.stream("claude-3-opus", "hi")),
    lambda: asyncio.run(models.acall("gemini-pro", "hi")),
]

@pytest.mark.ember_replay
@pytest.mark.parametrize("n", range(3))
def test_replayed(n):
    CALLS[n]()

@pytest.mark.parametrize("n", range(3))
def test_faked(n, fake_model):
    fake_model("o3-pro", "Paris")
    CALLS[n]()
"""


@pytest.mark.usefixtures("key")
def test_pytest_prints_no_key_of_an_unanswered_call(
    run: Callable[..., pytest.RunResult],
) -> None:
    """A miss and a call that no fake answers show no key, even with all locals."""
    result = run(UNANSWERED, "-l", "--tb=long", "-vvv", "--full-trace")
    assert result.parseoutcomes()["failed"] == 6
    assert not holds_key(str(result.stdout) + str(result.stderr))
