"""Requests to servers with OpenAI's chat completions, each in its dialect."""

from __future__ import annotations

from typing import Any

import pytest

from ember.exceptions import ModelProviderError
from tests.corpus import sent

SCHEMA = {"type": "object", "properties": {}}
# Prefix, base URL, variable of the key, and name of max_tokens: from the vendors' own packages
# (facts/openai-compatible.md).
SERVERS = [
    ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "max_completion_tokens"),
    ("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", "max_tokens"),
    ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "max_tokens"),
    ("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY", "max_tokens"),
    ("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "max_tokens"),
    ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", "max_tokens"),
    ("xai", "https://api.x.ai/v1", "XAI_API_KEY", "max_tokens"),
    ("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "max_completion_tokens"),
    ("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "max_tokens"),
    ("ollama", "http://localhost:11434/v1", "OLLAMA_API_KEY", "max_tokens"),
    ("lmstudio", "http://localhost:1234/v1", "LM_API_TOKEN", "max_tokens"),
    ("vllm", "http://localhost:8000/v1", "VLLM_API_KEY", "max_tokens"),
    ("llamacpp", "http://127.0.0.1:8080/v1", None, "max_tokens"),
]


@pytest.mark.parametrize(("prefix", "base", "variable", "field"), SERVERS)
def test_prefix_selects_server_key_and_limit_name(
    prefix: str, base: str, variable: str | None, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prefix uses its server, its key's variable and its name for max_tokens."""
    if variable:
        monkeypatch.setenv(variable, "sk-of-the-environment")
    ours = sent(f"{prefix}/vendor/model:tag", api_key=None, max_tokens=7, temperature=0.5)
    assert ours.url == f"{base}/chat/completions"
    assert ours.headers.get("authorization") == (variable and "Bearer sk-of-the-environment")
    assert ours.body == {
        "model": "vendor/model:tag",
        "messages": [{"role": "user", "content": "hi"}],
        field: 7,
        "temperature": 0.5,
    }


@pytest.mark.parametrize(
    ("prefix", "variable"), [(s[0], s[2]) for s in SERVERS if s[1].startswith("https")]
)
def test_missing_key_names_its_variable(prefix: str, variable: str) -> None:
    """Without a key nothing is sent, and the message names the variable."""
    with pytest.raises(ModelProviderError, match=variable):
        sent(f"{prefix}/m", api_key=None)


@pytest.mark.parametrize(
    ("variable", "value", "model", "url"),
    [
        ("OPENAI_BASE_URL", "https://x.test/v1/", "gpt-4", "https://x.test/v1"),
        ("GROQ_BASE_URL", "https://x.test", "groq/m", "https://x.test/openai/v1"),
        ("TOGETHER_BASE_URL", "https://x.test", "together/m", "https://x.test/v1"),
        ("TOGETHER_BASE_URL", "https://x.test/v1", "together/m", "https://x.test/v1"),
        ("CEREBRAS_BASE_URL", "https://x.test/", "cerebras/m", "https://x.test/v1"),
        ("FIREWORKS_BASE_URL", "https://x.test/inf", "fireworks/m", "https://x.test/inf/v1"),
        ("FIREWORKS_BASE_URL", "https://x.test/inf/v1", "fireworks/m", "https://x.test/inf/v1"),
        ("PERPLEXITY_BASE_URL", "https://x.test", "perplexity/m", "https://x.test"),
        ("VLLM_BASE_URL", "http://gpu:8000/v1", "vllm/m", "http://gpu:8000/v1"),
        ("OLLAMA_BASE_URL", "http://gpu:1/v1", "ollama/m", "http://gpu:1/v1"),
        ("OLLAMA_HOST", "gpu:11434", "ollama/m", "http://gpu:11434/v1"),
        ("OLLAMA_HOST", "https://gpu:11434/", "ollama/m", "https://gpu:11434/v1"),
        ("OLLAMA_HOST", "https://gpu", "ollama/m", "https://gpu/v1"),
        ("OLLAMA_HOST", "gpu", "ollama/m", "http://gpu:11434/v1"),
        ("OLLAMA_HOST", ":8080", "ollama/m", "http://127.0.0.1:8080/v1"),
    ],
)
def test_address_from_the_environment(
    variable: str, value: str, model: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each vendor's variable is the host or the whole URL, as in the vendor's own package."""
    monkeypatch.setenv(variable, value)
    assert sent(model).url == f"{url}/chat/completions"


def test_streams_request_usage_except_from_mistral() -> None:
    """Streams request usage, except from Mistral, which rejects the field but sends usage."""
    assert sent("groq/m", stream=True).body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent("mistral/m", stream=True).body
    asked = {"include_usage": False}
    assert sent("vllm/m", stream=True, stream_options=asked).body["stream_options"] == asked


def test_mistral_gets_its_own_parameter_names() -> None:
    """Mistral gets its own names, without fields that it would reject with a 422."""
    tool = {"name": "f", "parameters": {"$schema": "https://x.test", **SCHEMA}, "strict": True}
    body = sent("mistral/m", seed=3, tools=[tool], tool_choice="required", max_tokens=2).body
    assert body["random_seed"] == 3
    assert "seed" not in body
    assert body["tool_choice"] == "any"
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]


def test_openrouter_effort_is_merged_into_reasoning() -> None:
    """OpenRouter's reasoning effort is merged into the caller's `reasoning` object."""
    for arguments in (
        {"reasoning": {"exclude": True}, "reasoning_effort": "high"},
        {"reasoning_effort": "high", "reasoning": {"exclude": True}},
    ):
        body = sent("openrouter/m", **arguments).body
        assert body["reasoning"] == {"exclude": True, "effort": "high"}


def test_deepseek_reasoning_is_switched_off() -> None:
    """DeepSeek gets its own switch for no reasoning; other efforts are sent unchanged."""
    assert sent("deepseek/m", reasoning_effort="none").body["thinking"] == {"type": "disabled"}
    assert sent("deepseek/m", reasoning_effort="low").body["reasoning_effort"] == "low"


def test_unknown_server_gets_the_common_parameter_names() -> None:
    """Servers given by base_url get the common names; OpenAI's own models keep theirs."""
    base = "https://llm.example.com/v1?team=a"
    ours = sent("openai/qwen3", base_url=base, max_tokens=3, system="s", stream=True)
    assert ours.url == "https://llm.example.com/v1/chat/completions?team=a"
    assert ours.body["max_tokens"] == 3
    assert ours.body["messages"][0] == {"role": "system", "content": "s"}
    assert sent("gpt-5.5", base_url=base, max_tokens=3).body["max_completion_tokens"] == 3
    regional = sent("gpt-4", base_url="https://eu.api.openai.com/v1", max_tokens=3)
    assert regional.body["max_completion_tokens"] == 3


def test_unknown_server_without_a_key() -> None:
    """A server given by base_url can be called without a key."""
    assert (
        "authorization" not in sent("openai/m", base_url="http://x.test/v1", api_key=None).headers
    )


def thought() -> list[dict[str, Any]]:
    """A conversation whose answer has reasoning, as DeepSeek sends and requires it."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]


@pytest.mark.parametrize("model", ["deepseek/m", "openrouter/m", "vllm/m", "openai/m"])
def test_reasoning_is_sent_back_where_it_is_required(model: str) -> None:
    """DeepSeek requires the reasoning before a tool's result; others accept it."""
    base = {"base_url": "https://x.test"} if model.startswith("openai") else {}
    assert sent(model, thought(), **base).body["messages"][1]["reasoning_content"] == "hm"


@pytest.mark.parametrize("model", ["gpt-4o", "mistral/m"])
def test_reasoning_is_not_sent_where_it_would_be_refused(model: str) -> None:
    """Reasoning is not sent to OpenAI and Mistral, which reject unknown message fields."""
    assert "reasoning_content" not in sent(model, thought()).body["messages"][1]


AZURE = "https://r.openai.azure.com"


@pytest.mark.parametrize(
    ("model", "base", "url"),
    [
        ("gpt-5.4", "https://gw.example/v1?t=7", "https://gw.example/v1/chat/completions?t=7"),
        ("mistral/m", "https://gw.example/v1/?t=7", "https://gw.example/v1/chat/completions?t=7"),
        ("openai-responses/m", "https://gw.example/v1?t=7", "https://gw.example/v1/responses?t=7"),
        ("claude-opus-4-8", "https://gw.example/?t=7", "https://gw.example/v1/messages?t=7"),
        ("claude-opus-4-8", "https://gw.example/v1?t=7", "https://gw.example/v1/messages?t=7"),
        ("google/m", "https://gw.example?t=7",
         "https://gw.example/v1beta/models/m:generateContent?t=7"),
        ("azure/d", "https://d.eastus.models.ai.azure.com?t=7",
         "https://d.eastus.models.ai.azure.com/v1/chat/completions?t=7"),
        ("azure/d", "https://d.eastus.models.ai.azure.com/v1/",
         "https://d.eastus.models.ai.azure.com/v1/chat/completions"),
        ("azure/d", f"{AZURE}?t=7", f"{AZURE}/openai/v1/chat/completions?t=7"),
        ("azure/d", f"{AZURE}/openai/v1?t=7", f"{AZURE}/openai/v1/chat/completions?t=7"),
        ("azure/d", f"{AZURE}?api-version=1&t=7",
         f"{AZURE}/openai/deployments/d/chat/completions?api-version=1&t=7"),
        ("azure/../a?b#c", f"{AZURE}?api-version=1",
         f"{AZURE}/openai/deployments/..%2Fa%3Fb%23c/chat/completions?api-version=1"),
    ],
)  # fmt: skip
def test_query_of_the_base_url_follows_the_path(model: str, base: str, url: str) -> None:
    """On every wire the path is inserted before the query that a gateway needs."""
    assert sent(model, base_url=base).url == url


def test_azure_version_is_added_to_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's version is added to other query parameters but replaces no version."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2")
    path = f"{AZURE}/openai/deployments/d/chat/completions"
    assert sent("azure/d", base_url=f"{AZURE}?t=7").url == f"{path}?t=7&api-version=2"
    assert sent("azure/d", base_url=f"{AZURE}?api-version=1").url == f"{path}?api-version=1"
