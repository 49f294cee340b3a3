"""Routing a model's name to its provider and its id there."""

from __future__ import annotations

import pytest

from ember.exceptions import ModelProviderError
from ember.models.routing import resolve
from tests.corpus import sent

ROUTES = [
    ("gpt-4", "openai", "gpt-4"),
    ("gpt-6.2-sol", "openai", "gpt-6.2-sol"),
    ("GPT-4o", "openai", "GPT-4o"),
    ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
    ("ft:gpt-4o-mini:acme::1", "openai", "ft:gpt-4o-mini:acme::1"),
    ("o3", "openai", "o3"),
    ("o4-mini", "openai", "o4-mini"),
    ("gpt-4-vision", "openai", "gpt-4-vision-preview"),
    ("o3-pro", "openai-responses", "o3-pro"),
    ("o1-pro-2025-03-19", "openai-responses", "o1-pro-2025-03-19"),
    ("openai/gpt-5-pro", "openai-responses", "gpt-5-pro"),
    ("openai-responses/gpt-4o", "openai-responses", "gpt-4o"),
    ("claude-3-opus", "anthropic", "claude-3-opus-20240229"),
    ("claude-opus-5-5", "anthropic", "claude-opus-5-5"),
    ("anthropic/claude-3-haiku", "anthropic", "claude-3-haiku-20240307"),
    ("gemini-pro", "google", "gemini-pro-latest"),
    ("gemini-4-argon", "google", "gemini-4-argon"),
    ("models/gemini-4-argon", "google", "models/gemini-4-argon"),
    ("tunedModels/mine", "google", "tunedModels/mine"),
    ("google/gemma-4-31b-it", "google", "gemma-4-31b-it"),
    ("groq/openai/gpt-oss-120b", "groq", "openai/gpt-oss-120b"),
    ("together/meta-llama/Llama-3", "together", "meta-llama/Llama-3"),
    ("Ollama/llama3:8b", "ollama", "llama3:8b"),
    ("openrouter/openai/gpt-4o:free", "openrouter", "openai/gpt-4o:free"),
    ("fireworks/accounts/fireworks/models/x", "fireworks", "accounts/fireworks/models/x"),
    ("azure/gpt-4", "azure", "gpt-4"),
    ("local/smollm2", "local", "smollm2"),
]


@pytest.mark.parametrize(("name", "provider", "model"), ROUTES)
def test_name_selects_its_provider_and_id(name: str, provider: str, model: str) -> None:
    """A name selects its provider, and is sent as the provider's id."""
    assert resolve(name)[:2] == (provider, model)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt-oss-120b", "groq/gpt-oss-120b"),
        ("openai/gpt-oss", None),
        ("grok-4", "xai/grok-4"),
        ("deepseek-chat", "deepseek/deepseek-chat"),
        ("mistral-large", "mistral/mistral-large"),
        ("llama3", "ollama/llama3"),
        ("meta-llama/Llama-3-8b", "together/meta-llama/Llama-3-8b"),
        ("sonar-pro", "perplexity/sonar-pro"),
        ("gemma-3", "google/gemma-3"),
        ("opneai/gpt-4", "'openai/gpt-4'"),
        ("clade-opus-5-5", "'claude-opus-5-5'"),
        ("o5", "provider/o5"),
        ("foo/bar", "the model 'foo/bar'. Any model works with a prefix"),
        ("", "''"),
        ("openai/", "names a provider and no model"),
    ],
)
def test_ambiguous_or_unknown_name_is_refused(name: str, says: str | None) -> None:
    """A name of several providers or none is an error that suggests prefixes or names."""
    if says is None:
        assert resolve(name).provider == "openai"  # the user said so
        return
    with pytest.raises(ModelProviderError) as caught:
        resolve(name)
    assert says in str(caught.value)


def test_id_is_sent_instead_of_the_short_name() -> None:
    """The id is sent, not the short name."""
    assert sent("claude-3-opus").body["model"] == "claude-3-opus-20240229"
    assert "gemini-pro-latest" in sent("gemini-pro").url
