"""Patches are restored as they were found, even if others patched in between."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import certifi
import httpx
import pytest

import ember_testing
from ember.api import models
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember_testing.patches.patch import Patch
from ember_testing.replay import active
from ember_testing.replay.session import Session
from tests.loopback import serving

httpx2 = pytest.importorskip("httpx2", reason="in the extra dev")
SEAMS = [
    (httpx.HTTPTransport, "handle_request"),
    (httpx.AsyncHTTPTransport, "handle_async_request"),
    (httpx2.HTTPTransport, "handle_request"),
    (httpx2.AsyncHTTPTransport, "handle_async_request"),
]


class Custom(BaseProvider):
    """A provider that does not go over HTTP."""

    def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
        """Return the prompt in capitals."""
        return ChatResponse(prompt.upper(), UsageStats(1, 1, cost=0.0))


class Inheriting(Custom):
    """A provider that inherits `complete`."""


@pytest.fixture
def _providers() -> Generator[None]:
    before = base.providers
    register_provider("custom", Custom)
    register_provider("inheriting", Inheriting)
    yield
    base.providers = before  # there is no public way to unregister


@contextmanager
def faked_providers() -> Generator[None]:
    """Fake custom providers of both kinds."""
    with ember_testing.fake_model() as fake:
        fake("custom/x", lambda call: "faked")
        fake("inheriting/x", lambda call: "faked")
        yield


def cassette(path: Path) -> Any:
    """Replay an empty cassette."""
    return ember_testing.cassette(path / "c.sqlite")


BLOCKS: dict[str, tuple[Callable[[Path], Any], list[tuple[Any, str]]]] = {
    "replay": (cassette, [*SEAMS, (ssl, "create_default_context")]),
    "fake": (lambda path: ember_testing.fake_model(), SEAMS),
    "no_sleep": (
        lambda path: ember_testing.no_sleep(),
        [(time, "sleep"), (asyncio, "sleep"), (anyio, "sleep")],
    ),
    "custom provider": (lambda path: faked_providers(), [(Custom, "complete")]),
    "inherited": (lambda path: faked_providers(), [(Inheriting, "complete")]),
}
PLACES = [(block, place) for block, (_, places) in BLOCKS.items() for place in places]


@pytest.mark.usefixtures("_providers")
@pytest.mark.parametrize(
    ("block", "place"), PLACES, ids=lambda value: getattr(value, "__getitem__", None) and str(value)
)
@pytest.mark.parametrize("outlives", [False, True], ids=["within", "outlives"])
def test_patch_made_inside_a_block_stays(
    block: str, place: tuple[Any, str], outlives: bool, tmp_path: Path
) -> None:
    """A patch that outlives the block stays; once it is removed, the original is back."""
    owner, name = place
    original = vars(owner).get(name)

    def wrapping(inner: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: inner(*arguments, **named)

    for _ in range(3):  # the next block finds what the previous one left
        other = Patch(owner, name, wrapping)
        with BLOCKS[block][0](tmp_path):
            replaced = vars(owner)[name]
            assert replaced is not original
            other.install()
            theirs = vars(owner)[name]
            if not outlives:
                other.uninstall()
                assert vars(owner)[name] is replaced
        if outlives:
            assert vars(owner)[name] is theirs
            other.uninstall()  # restores the block's replacement
            assert vars(owner)[name] is replaced
    with BLOCKS[block][0](tmp_path):
        pass
    assert vars(owner).get(name) is original
    assert (name in vars(owner)) == (original is not None)


@pytest.mark.usefixtures("_providers")
def test_replacements_do_nothing_after_their_block(tmp_path: Path) -> None:
    """Replacements that are restored after their block answer nothing, and sleep as usual."""
    places = [place for _, (_, places) in BLOCKS.items() for place in places]
    originals: list[tuple[Any, str, Any]] = []
    with ExitStack() as stack:
        for make, _ in BLOCKS.values():
            stack.enter_context(make(tmp_path))
        originals += [(owner, name, vars(owner)[name]) for owner, name in places]
    before = [(owner, name, vars(owner).get(name)) for owner, name in places]
    for owner, name, replaced in originals:
        setattr(owner, name, replaced)
    try:
        with serving() as server:
            assert httpx.post(server.url, json=1).json() == {"echo": 1}
        assert type(ssl.create_default_context(cafile=certifi.where())) is ssl.SSLContext
        started = time.monotonic()
        time.sleep(0.02)
        asyncio.run(asyncio.sleep(0.02))
        assert time.monotonic() - started >= 0.04
        assert models("custom/x", "hi").text == models("inheriting/x", "hi").text == "HI"
    finally:
        for owner, name, original in reversed(before):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def test_an_instrumentation_that_outlives_a_recording(tmp_path: Path) -> None:
    """A wrapper from an earlier block does not make calls of the next block count twice."""
    seen: list[str] = []

    def wrapping(inner: Callable[[Any, httpx.Request], httpx.Response]) -> Any:
        def handle_request(transport: Any, request: httpx.Request) -> httpx.Response:
            seen.append(str(request.url))
            return inner(transport, request)

        return handle_request

    instrumentation = Patch(httpx.HTTPTransport, "handle_request", wrapping)
    with serving() as server:
        try:
            with ember_testing.cassette(tmp_path / "one.sqlite", record="new"):
                instrumentation.install()
            with ember_testing.cassette(tmp_path / "two.sqlite", record="new") as second:
                httpx.post(server.url, json={"q": 1})
                httpx.post(server.url, json={"q": 1})
            assert [call.n for call in second.recorded] == [1, 2]
            assert len(server.received) == len(seen) == 2
            with ember_testing.cassette(tmp_path / "two.sqlite") as second:
                httpx.post(server.url, json={"q": 1})
            assert len(second.played) == 1
        finally:
            instrumentation.uninstall()
        with ember_testing.cassette(tmp_path / "three.sqlite"):
            pass
    assert "ember_testing" not in httpx.HTTPTransport.handle_request.__module__


def test_variables_that_a_test_sets_inside_of_a_fake_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only variables that the fake set are restored, and not those set again meanwhile."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-machine")
    for name in ("APP_MODE", "MISTRAL_API_KEY"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    with ember_testing.fake_model():
        assert os.environ["OPENAI_API_KEY"] == "fake-key"
        os.environ["APP_MODE"] = "on"
        os.environ["MISTRAL_API_KEY"] = "sk-of-the-test"
    assert os.environ["OPENAI_API_KEY"] == "sk-of-the-machine"
    assert (os.environ["APP_MODE"], os.environ["MISTRAL_API_KEY"]) == ("on", "sk-of-the-test")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first ends first", "last ends first"])
def test_overlapping_fakes_and_replays_keep_their_keys(
    order: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever ends first, the other keeps its keys, and no key is left at the end."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-machine")
    for make in (
        lambda: [ember_testing.fake_model(), ember_testing.fake_model()],
        lambda: [ember_testing.fake_model(), ember_testing.cassette(tmp_path / "c.sqlite")],
        lambda: [ember_testing.cassette(tmp_path / "c.sqlite"), ember_testing.fake_model()],
    ):
        before = dict(os.environ)
        blocks = make()
        for block in blocks:
            block.__enter__()
        assert os.environ["OPENAI_API_KEY"] == "fake-key"
        blocks[order[0]].__exit__(None, None, None)
        assert os.environ["MISTRAL_API_KEY"]
        blocks[order[1]].__exit__(None, None, None)
        assert dict(os.environ) == before


@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
@pytest.mark.usefixtures("_providers")
def test_fault_server_restores_a_custom_provider() -> None:
    """The original `complete` is restored when the server ends."""
    complete = Custom.complete
    with ember_testing.fault_server() as server:
        server("custom/x", "served")
        assert models("custom/x", "hi").text == "served"
    assert Custom.complete is complete
    assert models("custom/x", "hi").text == "HI"


def test_network_guard_ends_with_the_last_fake() -> None:
    """The guard ends with the last fake, in whatever order they end."""
    blocks = [ember_testing.fake_model(), ember_testing.fake_model()]
    for block in blocks:
        block.__enter__()
    for block in blocks:
        block.__exit__(None, None, None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 1).close()


def test_between_two_replays_patches_stay_and_do_nothing(tmp_path: Path) -> None:
    """Paused between two replays, replacements send and answer nothing, and are put back."""
    place = (httpx.HTTPTransport, "handle_request")
    original = vars(place[0])[place[1]]
    context = ssl.create_default_context

    def end(*, replay_follows: bool) -> Any:
        session = Session(tmp_path / "none.sqlite", None)
        active.activate(session)
        replaced = vars(place[0])[place[1]]
        assert replaced is not original
        active.deactivate(session, replay_follows=replay_follows)
        session.close(True)
        return replaced

    with serving() as server:
        first = end(replay_follows=True)
        assert vars(place[0])[place[1]] is first  # paused
        assert httpx.post(server.url, json=1).json() == {"echo": 1}
        assert type(ssl.create_default_context(cafile=certifi.where())) is ssl.SSLContext
        assert end(replay_follows=True) is first
        setattr(*place, original)  # by a library that had saved it
        assert end(replay_follows=True) is not first
        other = Patch(*place, lambda inner: lambda *given: inner(*given))
        other.install()
        assert end(replay_follows=True) is not first  # lies over the other's
        active.restore()
        assert httpx.post(server.url, json=1).json() == {"echo": 1}
        other.uninstall()
        end(replay_follows=False)
    assert vars(place[0])[place[1]] is original
    assert ssl.create_default_context is context
