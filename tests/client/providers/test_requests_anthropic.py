"""Ember sends to Anthropic what Anthropic's own SDK sends for the same call."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ember.exceptions import ModelProviderError
from ember.models.schemas import ToolCall
from tests.corpus import Sent, sent

PNG = b"\x89PNG\r\n\x1a\n0000"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}  # as Anthropic requires for strict schemas
TOOL = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}
THEIR_TOOL = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}
MODEL = "claude-opus-4-6"
USER = [{"role": "user", "content": "hi"}]


def by_sdk(**arguments: Any) -> Sent:
    """What the SDK sends for `messages.create`."""
    # Loaded here, since it takes long, and not when this file is collected.
    sdk = pytest.importorskip("anthropic", reason="Anthropic's SDK is a development dependency")
    httpx2 = pytest.importorskip("httpx2", reason="the SDK's HTTP library is not installed")
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        return httpx2.Response(200, json={})

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = sdk.Anthropic(api_key="sk-of-a-test", http_client=http_client, max_retries=0)
    client.messages.create(**{"model": MODEL, "messages": USER, "max_tokens": 16_000, **arguments})
    request = requests[0]
    return Sent(str(request.url), dict(request.headers), json.loads(request.content))


def same(ours: Sent, theirs: Sent) -> None:
    """Check that both send the same JSON to the same URL."""
    assert ours.body == theirs.body
    assert ours.url == theirs.url


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"system": "Be brief.", "max_tokens": 20}, {"system": "Be brief.", "max_tokens": 20}),
    ({"stop": "END"}, {"stop_sequences": ["END"]}),
    ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
    ({"tools": [TOOL]}, {"tools": [THEIR_TOOL]}),
    (
        {"tools": [{"type": "function", "function": {**TOOL, "strict": True}}],
         "tool_choice": "required"},
        {"tools": [{**THEIR_TOOL, "input_schema": CLOSED, "strict": True}],
         "tool_choice": {"type": "any"}},
    ),
    (
        {"tools": [THEIR_TOOL], "tool_choice": "weather", "parallel_tool_calls": False},
        {"tools": [THEIR_TOOL], "tool_choice": {"type": "tool", "name": "weather",
                                                "disable_parallel_tool_use": True}},
    ),
    ({"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "auto"},
     {"tools": [THEIR_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    ({"response_format": SCHEMA, "reasoning_effort": "high"},
     {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}, "effort": "high"}}),
    ({"thinking": {"type": "adaptive"}, "metadata": {"user_id": "u"}},
     {"thinking": {"type": "adaptive"}, "metadata": {"user_id": "u"}}),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
     {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), PARAMETERS)
def test_parameters_are_sent_as_by_the_sdk(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Each parameter is sent as the SDK sends it."""
    same(sent(f"anthropic/{MODEL}", **ours), by_sdk(**theirs))


def test_streamed_call_sets_stream() -> None:
    """A streamed call sets `stream`; usage needs no option."""
    same(sent(MODEL, stream=True), by_sdk(stream=True))


@pytest.mark.parametrize(
    ("model", "limit"),
    [("claude-3-opus", 4096), ("claude-opus-4-1", 4096), ("claude-sonnet-4-20250514", 4096),
     ("claude-opus-4-6", 16_000), ("claude-sonnet-4-5", 16_000), ("claude-haiku-5-5", 16_000),
     ("claude-fable-5-2", 16_000)],
)  # fmt: skip
def test_default_of_max_tokens(model: str, limit: int) -> None:
    """max_tokens, required by the API, defaults to the model's limit without streaming."""
    assert sent(model).body["max_tokens"] == limit


def test_thinking_has_room_beside_the_answer() -> None:
    """A thinking budget, which must be less than max_tokens, is added to its default."""
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    assert sent("claude-sonnet-4-5", thinking=thinking).body["max_tokens"] == 36_000
    given = sent("claude-sonnet-4-5", thinking=thinking, max_tokens=30_000)
    assert given.body["max_tokens"] == 30_000


def test_key_and_version_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is sent as x-api-key, a token as a bearer; the version is the SDK's."""
    ours, theirs = sent(MODEL), by_sdk()
    # The SDK sends a key as a bearer; the documentation's curl and older servers use x-api-key.
    assert ours.headers["x-api-key"] == "sk-of-a-test"
    assert ours.headers["anthropic-version"] == theirs.headers["anthropic-version"]
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "oauth-token")
    ours = sent(MODEL, api_key=None)
    assert ours.headers["authorization"] == "Bearer oauth-token"
    assert "x-api-key" not in ours.headers


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_parameter_selects_the_api_version_that_accepts_it(name: str) -> None:
    """A call with a sampling parameter requests the last API version that accepts it."""
    ours = sent(MODEL, **{name: 1})
    assert ours.headers["anthropic-version"] == "2023-06-01"
    assert ours.body[name] == 1


def test_images_and_pdf() -> None:
    """Images and PDFs are sent as plain base64 or by URL."""
    pdf = b"%PDF-1.7"
    link = "https://example.com/a.jpg"
    blocks = [
        {"type": "text", "text": "What?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                     "data": base64.b64encode(PNG).decode()}},
        {"type": "image", "source": {"type": "url", "url": link}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf",
                                        "data": base64.b64encode(pdf).decode()}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ]  # fmt: skip
    prompt = ["What?", PNG, link, pdf, "https://example.com/a.pdf"]
    same(sent(MODEL, prompt), by_sdk(messages=[{"role": "user", "content": blocks}]))
    with pytest.raises(ModelProviderError, match="no audio"):
        sent(MODEL, [b"ID3 sound"])


def test_conversation_with_tools() -> None:
    """Thinking is sent back unchanged, and the results of one turn's calls are one message."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    redacted = {"type": "redacted_thinking", "data": "d"}
    uses = [{"type": "tool_use", "id": f"toolu_{n}", "name": "weather", "input": {"city": n}}
            for n in "ab"]  # fmt: skip
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [thinking, redacted, *uses]},
        {"role": "tool", "tool_call_id": "toolu_a", "content": "grey"},
        {"role": "tool", "tool_call_id": "toolu_b", "content": "no such city", "is_error": True},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And?"},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_a", "content": "grey"},
        {"type": "tool_result", "tool_use_id": "toolu_b", "content": "no such city",
         "is_error": True},
    ]  # fmt: skip
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [thinking, redacted, *uses]},
        {"role": "user", "content": results},
        {"role": "user", "content": "And?"},
    ]
    same(sent(MODEL, prompt), by_sdk(system="Be brief.", messages=messages))


def test_truncated_tool_arguments_are_sent_as_an_object() -> None:
    """Arguments that were cut off are not JSON, but are sent as an object, as the API requires."""
    call = ToolCall("toolu_1", "weather", '{"city": "K')
    prompt = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]
    assert sent(MODEL, prompt).body["messages"][1]["content"][0]["input"] == {}


def test_parameters_that_anthropic_lacks_are_refused() -> None:
    """`seed`, and JSON without a schema, are refused with the remedy."""
    with pytest.raises(ModelProviderError, match="no seed"):
        sent(MODEL, seed=1)
    with pytest.raises(ModelProviderError, match="pass the JSON schema"):
        sent(MODEL, response_format={"type": "json_object"})


@pytest.mark.parametrize("model", [MODEL, "anthropic/claude-3-haiku-20240307"])
def test_text_response_format_is_omitted(model: str) -> None:
    """OpenAI's plain text format, which the API lacks, is omitted."""
    assert sent(model, response_format={"type": "text"}).body == sent(model).body


@pytest.mark.parametrize("base", ["https://x.test", "https://x.test/v1", "https://x.test/v1/"])
def test_base_url_with_or_without_the_version(base: str) -> None:
    """The path is /v1/messages for a base URL with or without the version."""
    assert sent(MODEL, base_url=base).url == "https://x.test/v1/messages"
