"""The servers that Ember knows, as a table of data; pure.

Sources: each vendor's own Python package and pydantic-ai-slim 2.68.0 (`providers/`), read on
2026-11-22. Variables are those that the vendors' packages read; where such a variable names the
host only, `url_suffix` adds the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

__all__ = ["SELLERS", "SERVERS", "Server", "seller"]


class Server(NamedTuple):
    """Where a wire is spoken, and what is different there.

    Args:
        name: The provider's name in Ember.
        base_url: What the wire's path is appended to; "" where only a variable can say.
        key_vars: The environment variables that may hold the key; the first one set wins.
        url_vars: Those that may hold the base URL.
        url_suffix: What to append to a base URL of `url_vars` that names the host only.
        key_required: Whether a call without a key is refused before it is sent.
        auth_header: The header that carries the key.
        token_var: Of `key_vars`, the one that holds a token for `authorization` instead.
        max_tokens: The field that bounds the output.
        stream_usage: Whether a stream must be asked for its usage, with `stream_options`.
        seed: The field for the seed.
        required_tool: The word for "call some tool".
        strict_tools: Whether a tool may say `strict`, and its schema what it is.
        nested_effort: Whether the reasoning effort stands in `reasoning.effort`.
        thinking_switch: Whether reasoning is switched off by `thinking`, and not by an effort.
        thoughts_back: Whether reasoning is taken back with the conversation.
        header_vars: Headers that the environment may set: name, variable.
    """

    name: str
    base_url: str
    key_vars: tuple[str, ...] = ()
    url_vars: tuple[str, ...] = ()
    url_suffix: str = ""
    key_required: bool = True
    auth_header: str = "authorization"
    token_var: str = ""
    max_tokens: str = "max_tokens"
    stream_usage: bool = True
    seed: str = "seed"
    required_tool: str = "required"
    strict_tools: bool = True
    nested_effort: bool = False
    thinking_switch: bool = False
    thoughts_back: bool = True
    header_vars: tuple[tuple[str, str], ...] = ()


_OPENAI_KEYS = ("OPENAI_API_KEY",)
_OPENAI_HEADERS = (
    ("openai-organization", "OPENAI_ORG_ID"),
    ("openai-project", "OPENAI_PROJECT_ID"),
)
_ROWS = (
    Server(
        "openai",
        "https://api.openai.com/v1",
        _OPENAI_KEYS,
        ("OPENAI_BASE_URL",),
        max_tokens="max_completion_tokens",
        thoughts_back=False,
        header_vars=_OPENAI_HEADERS,
    ),
    Server(
        "openai-responses",
        "https://api.openai.com/v1",
        _OPENAI_KEYS,
        ("OPENAI_BASE_URL",),
        header_vars=_OPENAI_HEADERS,
    ),
    Server(
        "anthropic",
        "https://api.anthropic.com",
        ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        ("ANTHROPIC_BASE_URL",),
        auth_header="x-api-key",
        token_var="ANTHROPIC_AUTH_TOKEN",
    ),
    Server(
        "google",
        "https://generativelanguage.googleapis.com",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        ("GOOGLE_GEMINI_BASE_URL",),
        auth_header="x-goog-api-key",
    ),
    Server(
        "azure",
        "",
        ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY"),
        ("AZURE_OPENAI_ENDPOINT",),
        auth_header="api-key",
        token_var="AZURE_OPENAI_AD_TOKEN",
        max_tokens="max_completion_tokens",
        thoughts_back=False,
        header_vars=_OPENAI_HEADERS,
    ),
    Server(
        "groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        ("GROQ_BASE_URL",),
        "/openai/v1",
        max_tokens="max_completion_tokens",
    ),
    # Strict: a field that it does not know is a 422, stream_options among them.
    Server(
        "mistral",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        stream_usage=False,
        seed="random_seed",
        required_tool="any",
        strict_tools=False,
        thoughts_back=False,
    ),
    Server(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        nested_effort=True,
    ),
    Server(
        "together",
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY",),
        ("TOGETHER_BASE_URL",),
        "/v1",
    ),
    Server(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        ("FIREWORKS_BASE_URL",),
        "/v1",
    ),
    Server("deepseek", "https://api.deepseek.com", ("DEEPSEEK_API_KEY",), thinking_switch=True),
    Server("xai", "https://api.x.ai/v1", ("XAI_API_KEY",), strict_tools=False),
    Server(
        "cerebras",
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        ("CEREBRAS_BASE_URL",),
        "/v1",
        max_tokens="max_completion_tokens",
    ),
    Server(
        "perplexity",
        "https://api.perplexity.ai",
        ("PERPLEXITY_API_KEY",),
        ("PERPLEXITY_BASE_URL",),
    ),
    Server(
        "ollama",
        "http://localhost:11434/v1",
        ("OLLAMA_API_KEY",),
        ("OLLAMA_BASE_URL",),
        key_required=False,
    ),
    Server("lmstudio", "http://localhost:1234/v1", ("LM_API_TOKEN",), key_required=False),
    Server(
        "vllm",
        "http://localhost:8000/v1",
        ("VLLM_API_KEY",),
        ("VLLM_BASE_URL",),
        key_required=False,
    ),
    Server("llamacpp", "http://127.0.0.1:8080/v1", key_required=False),
    Server("local", "http://local/v1", key_required=False),
)
SERVERS: Mapping[str, Server] = {server.name: server for server in _ROWS}


def _host(url: str) -> str:
    return url.partition("//")[2].partition("/")[0].partition("?")[0]


_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com")
# Who is at a host; the first of the table, as `openai-responses` is OpenAI.
SELLERS: Mapping[str, str] = {
    host: server.name for server in reversed(_ROWS) if (host := _host(server.base_url))
}


@lru_cache(maxsize=256)
def seller(provider: str, base_url: str) -> str:
    """Whose prices hold: the provider at this address, whichever way it was called.

    Args:
        provider: The provider's name as it was called, for an address that nobody knows.
        base_url: Where the call went.
    """
    host = _host(base_url)
    if host.endswith(_AZURE_HOSTS):
        return "azure"
    known = SELLERS.get(host)
    if known is None or SERVERS[provider].base_url == SERVERS[known].base_url:
        return provider
    return known
