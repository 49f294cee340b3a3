"""The vendors' SDKs in a custom provider are recorded and replayed like Ember's own calls."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import ember_testing
from ember.api import models
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, UsageStats
from tests.loopback import Loopback, Received, Reply, serving

KEY = "sk-sdk-0123456789abcdefghij"


def answer(request: Received) -> Reply:
    """Answer in the vendor's format, by path."""
    if request.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": "Paris"}
        body: dict[str, Any] = {
            "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4-0613",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }  # fmt: skip
    elif request.path.endswith("/messages"):
        body = {
            "id": "m1", "type": "message", "role": "assistant", "model": "claude-3-opus-20240229",
            "content": [{"type": "text", "text": "Paris"}], "stop_reason": "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1},
        }  # fmt: skip
    else:
        content = {"role": "model", "parts": [{"text": "Paris"}]}
        body = {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "modelVersion": "gemini-2.5-flash",
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1,
                              "totalTokenCount": 10},
        }  # fmt: skip
    return Reply(json.dumps(body).encode(), headers={"content-type": "application/json"})


def by_openai(url: str, prompt: str) -> tuple[str, int, int]:
    """Call OpenAI's own client."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client:
        found = client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": prompt}]
        )
    return found.choices[0].message.content, found.usage.prompt_tokens, 1


def by_anthropic(url: str, prompt: str) -> tuple[str, int, int]:
    """Call Anthropic's own client."""
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0) as client:
        found = client.messages.create(
            model="claude-3-opus-20240229",
            max_tokens=9,
            messages=[{"role": "user", "content": prompt}],
        )
    return found.content[0].text, found.usage.input_tokens, found.usage.output_tokens


def by_google(url: str, prompt: str) -> tuple[str, int, int]:
    """Call Google's own client."""
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key=KEY, http_options={"base_url": url})
    found = client.models.generate_content(model="gemini-2.5-flash", contents=prompt)
    usage = found.usage_metadata
    return found.text, usage.prompt_token_count, usage.candidates_token_count


SDKS: dict[str, Callable[[str, str], tuple[str, int, int]]] = {
    "openai": by_openai,
    "anthropic": by_anthropic,
    "google": by_google,
}


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> str:
    """Register the SDK as a provider of Ember; return the provider's name."""
    sdk = SDKS[request.param]
    name = f"sdk{request.param}"

    class Wrapped(BaseProvider):
        """A custom provider that wraps a vendor's package."""

        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            """Make one call."""
            text, used, completion = sdk(kwargs["base_url"], prompt)
            usage = UsageStats(prompt_tokens=used, completion_tokens=completion)
            return ChatResponse(data=text, usage=usage, model=model)

        def _get_api_key_from_env(self) -> str:
            return KEY

    register_provider(name, Wrapped)
    return name


@pytest.fixture
def server() -> Generator[Loopback]:
    """A server for all three wires."""
    with serving(answer) as server:
        yield server


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDKs' own
@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
@pytest.mark.parametrize("provider", SDKS, indirect=True)
def test_an_sdk_in_a_custom_provider_is_recorded_and_replayed(
    provider: str, server: Loopback, tmp_path: Path
) -> None:
    """One request is sent; the cassette has model and tokens, and no key.

    The provider of a local server is unknown, whatever its wire.
    """
    path = tmp_path / "c.sqlite"

    def call(url: str) -> ChatResponse:
        return models(f"{provider}/m", "Where is the Louvre?", base_url=url)

    with ember_testing.cassette(path, record="new") as cassette:
        live = call(server.url)
    recorded = cassette.recorded[0]
    assert recorded.provider == "unknown"
    assert (recorded.prompt_tokens, recorded.completion_tokens) == (9, 1)
    assert recorded.text == live.text == "Paris"
    with ember_testing.cassette(path) as cassette:
        replayed = call(server.url)
    assert (replayed.text, replayed.usage.prompt_tokens) == ("Paris", 9)
    assert len(server.received) == len(cassette.played) == 1
    assert KEY.encode() not in path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select answer from transcript").fetchall() == [("Paris",)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDKs' own
@pytest.mark.parametrize("provider", ["openai", "anthropic"], indirect=True)
def test_retries_of_an_sdk_do_not_swallow_a_miss(provider: str, tmp_path: Path) -> None:
    """A miss passes through the SDK's error handling and retries."""
    with (
        pytest.raises(ember_testing.CassetteMiss, match="there is no cassette"),
        ember_testing.cassette(tmp_path / "none.sqlite"),
    ):
        models(f"{provider}/m", "anything", base_url="http://127.0.0.1:1")
    assert not list(tmp_path.iterdir())
