"""Third-party mocks of httpx answer Ember's calls, with and without a cassette in use."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import pytest
import respx
from pytest_httpx import HTTPXMock

from ember_testing import cassette
from tests.ways import ALL, KEY, completion, events

every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)
respx_mockers = pytest.mark.parametrize("using", ["httpx", "httpcore"])

HOST = "https://api.openai.com"
URL = f"{HOST}/v1/chat/completions"

Way = Callable[..., str]


def answer(request: httpx.Request) -> httpx.Response:
    """The answer to a call, whole or streamed."""
    assert request.headers["authorization"] == f"Bearer {KEY}"
    body = json.loads(request.content)
    assert body["messages"] == [{"role": "user", "content": "Hello"}]
    if body.get("stream"):
        return httpx.Response(200, content=b"".join(events("Hello!")))
    return httpx.Response(200, json=completion())


@pytest.fixture
def replaying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A cassette without recordings that answers every call of the test."""
    with cassette(tmp_path / "cassette.db"):
        yield
        monkeypatch.undo()  # undo patches in reverse order: pytest-httpx uses this fixture


@respx_mockers
@every_way
def test_respx_answers_calls(way: Way, using: str) -> None:
    """Both of respx's ways to mock httpx answer a call, and see the whole request."""
    with respx.mock(using=using) as mock:
        route = mock.post(URL).mock(side_effect=answer)
        assert way(HOST) == way(HOST) == "Hello!"
        assert route.call_count == 2


@respx_mockers
@every_way
def test_respx_answers_calls_despite_a_proxy(
    way: Way, using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is not used for calls that respx answers."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with respx.mock(using=using) as mock:
        mock.post("https://proxied.invalid/v1/chat/completions").mock(side_effect=answer)
        assert way("https://proxied.invalid") == "Hello!"


@every_way
def test_pytest_httpx_answers_calls(way: Way, httpx_mock: HTTPXMock) -> None:
    """pytest-httpx answers a call, and sees the whole request."""
    httpx_mock.add_callback(answer, url=URL, method="POST")
    assert way(HOST) == "Hello!"


@pytest.mark.usefixtures("replaying")
@every_way
def test_respx_for_a_client_answers_before_the_cassette(way: Way) -> None:
    """A call that respx answers for a client does not reach the cassette."""
    with respx.mock(using="httpx") as mock:
        mock.post(URL).mock(side_effect=answer)
        assert way(HOST) == "Hello!"


@pytest.mark.usefixtures("replaying")
@every_way
def test_pytest_httpx_answers_before_the_cassette(way: Way, httpx_mock: HTTPXMock) -> None:
    """A mock that is set up inside a replay answers before the cassette."""
    httpx_mock.add_callback(answer, url=URL, method="POST")
    assert way(HOST) == "Hello!"


@every_way
def test_respx_for_httpcore_is_recorded_as_the_network(way: Way, tmp_path: Path) -> None:
    """A mock of httpcore counts as the network: its answers are recorded, then replayed."""
    path = tmp_path / "cassette.db"
    with respx.mock(using="httpcore") as mock:
        route = mock.post(URL).mock(side_effect=answer)
        with cassette(path, record="new"):
            assert way(HOST) == "Hello!"
        with cassette(path):
            assert way(HOST) == "Hello!"
        assert route.call_count == 1
