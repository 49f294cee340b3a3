"""The nine tests of a client, run in its own environment; `client` is the module under test."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import client
import pytest

PHASE = os.environ["MATRIX_PHASE"]
CHANGE = " today" if PHASE == "changed" else ""
SIMPLEST = "embeddings" if "plain" in client.WITHOUT else "plain"
CITIES = ["Paris", "Rome", "Oslo", "Bern", "Lima", "Cairo"]
# One loop for all tests: packages reuse clients, and connections belong to the loop that made them.
LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)
Same = Callable[[Any], None]

pytestmark = [
    pytest.mark.ember_replay(record_errors=True, **getattr(client, "MARKER", {})),
    pytest.mark.filterwarnings("ignore"),  # those of the client
]


if hasattr(client, "PROVIDER"):

    @pytest.fixture(autouse=True)
    def _server(cassette_server: Any) -> None:
        """Point a client that no seam reaches at a server that records and replays."""
        client.base_url = cassette_server.url(client.PROVIDER)


def _call(name: str, *arguments: Any) -> Any:
    if name in client.WITHOUT:
        pytest.skip(client.WITHOUT[name])
    result = getattr(client, name)(*arguments)
    return LOOP.run_until_complete(result) if inspect.iscoroutine(result) else result


def _prompt(words: str) -> str:
    return f"echo({words}{CHANGE})"


def _answer(words: str) -> str:
    return f"You said {words}{CHANGE}."


def test_plain(same: Same) -> None:
    """One call."""
    text = _call("plain", _prompt("the Louvre"))
    assert text == _answer("the Louvre")
    same(text)


def test_gathered() -> None:
    """Six calls at once, replayed in another order."""
    cities = CITIES[::-1] if PHASE == "replay" else CITIES
    texts = _call("gathered", [_prompt(city) for city in cities])
    assert texts == [_answer(city) for city in cities]


def test_stream(same: Same) -> None:
    """The pieces of a stream."""
    pieces = [piece for piece in _call("stream", _prompt("a long story")) if piece]
    assert "".join(pieces) == _answer("a long story")
    assert len(pieces) > 1
    same(pieces)


def test_async_stream(same: Same) -> None:
    """The pieces of an async stream."""
    pieces = [piece for piece in _call("async_stream", _prompt("a long poem")) if piece]
    assert "".join(pieces) == _answer("a long poem")
    assert len(pieces) > 1
    same(pieces)


def test_tools(same: Same) -> None:
    """A tool is called, and its result is sent to the model."""
    text = _call("tools", _prompt("the weather"))
    assert _answer("the weather") in text
    same(text)


@pytest.mark.parametrize("status", [429, 401])
def test_refused(status: int, same: Same) -> None:
    """The client raises its own error, and the same one in a replay."""
    with pytest.raises(Exception) as refused:  # each client has its own
        _call(SIMPLEST, f"status({status}) {_prompt('a refusal')}")
    same([type(refused.value).__name__, str(refused.value)])


def test_embeddings(same: Same) -> None:
    """The vector of a text."""
    vector = [float(number) for number in _call("embeddings", _prompt("a text"))]
    assert vector == [0.25, -0.5, 1.0]
    same(vector)


def test_swallowed() -> None:
    """The test fails even if the application swallows every exception."""
    with contextlib.suppress(BaseException):
        _call(SIMPLEST, _prompt("nothing"))
