"""From a model's name to the provider that serves it and its id on the wire; pure.

1. An explicit `provider/model`, split at the first slash, if the left part is a known provider.
2. A name that the user registered.
3. The families whose provider is beyond doubt: OpenAI's, Anthropic's and Google's.

Whatever is left needs a prefix. Prices play no part: a new model works before its price is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ember.exceptions import ModelProviderError
from ember.providers import base
from ember.providers.compatible import WIRES

__all__ = ["Route", "resolve"]


class Route(NamedTuple):
    """Who serves a model, and what it is called there."""

    provider: str
    model: str


# Short names that people write and no provider knows; never another model.
_WIRE_IDS: Mapping[tuple[str, str], str] = {
    ("anthropic", "claude-3-opus"): "claude-3-opus-20240229",
    ("anthropic", "claude-3-sonnet"): "claude-3-sonnet-20240229",
    ("anthropic", "claude-3-haiku"): "claude-3-haiku-20240307",
    ("google", "gemini-pro"): "gemini-pro-latest",
    ("openai", "gpt-4-vision"): "gpt-4-vision-preview",
}
# By the beginning of a name, or the whole of it.
_FAMILIES = (
    ("openai", ("gpt-", "chatgpt-", "ft:gpt-", "codex-", "computer-use-")),
    ("openai", ("o1-", "o3-", "o4-", "ft:o1", "ft:o3", "ft:o4")),
    ("anthropic", ("claude",)),
    ("google", ("gemini", "models/gemini", "tunedmodels/")),
)
_WHOLE = {"o1": "openai", "o3": "openai", "o4": "openai"}
# With a date behind them or not. Source: the `openai` 3.54.0 package,
# `types/shared/responses_model.py`.
_RESPONSES_ONLY = frozenset(
    {
        "o1-pro", "o3-pro", "o3-deep-research", "o4-mini-deep-research", "computer-use-preview",
        "gpt-5-pro", "gpt-5.5-pro", "gpt-5-codex", "gpt-5.1-codex-max", "gpt-daybreak-blue-latest",
        "gpt-daybreak-red-latest", "gpt-5.6-cyber", "gpt-6-cyber", "gpt-rosalind-research",
        "gpt-6-rosalind", "gpt-6.2-astra-law",
    }
)  # fmt: skip
_DATE_AT_END = r"-\d{4}-\d\d-\d\d$"
# Families that several providers serve: which prefixes would do.
_SERVED_BY = (
    (r"(openai/)?gpt-oss", "groq together fireworks cerebras openrouter ollama"),
    (r"grok", "xai openrouter azure"),
    (r"deepseek", "deepseek together fireworks openrouter ollama azure"),
    (
        r"(open-)?mi[sx]tral|codestral|ministral|magistral|devstral|pixtral|voxtral",
        "mistral openrouter ollama azure",
    ),
    (r"sonar", "perplexity openrouter"),
    (r"gemma", "google ollama openrouter"),
    (
        r"(meta-llama/)?(meta-)?llama|qwen|kimi|glm|phi|command",
        "groq together fireworks cerebras openrouter ollama",
    ),
    (r"smollm", "local ollama"),
)
_KNOWN_NAMES = [
    "gpt-4",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5.6-sol",
    "gpt-6-luna",
    "gpt-6-astra",
    "o3",
    "claude-3-opus",
    "claude-opus-4-8",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "gemini-pro",
    "gemini-flash-latest",
    "gemini-3.8-flash",
    "gemini-4-argon",
    "local/smollm2",
]


def resolve(model: str) -> Route:
    """The route of a model's name.

    Raises:
        ModelProviderError: Nothing serves it; the message says which prefixes or names would.
    """
    if not isinstance(model, str) or not model.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        raise ModelProviderError(f"a model's name is a string such as 'gpt-4', not {model!r}")
    left, slash, right = model.partition("/")
    if slash and _is_provider(left):
        if not right:
            raise ModelProviderError(f"{model!r} names a provider and no model: add its name")
        return _on_wire(left.lower(), right)
    if base.is_known(model):
        return Route(model.lower(), model)
    lowered = model.lower()
    if (provider := _owner(lowered)) is None:
        raise ModelProviderError(_unknown(model, lowered), {"model": model})
    return _on_wire(provider, model)


def _owner(lowered: str) -> str | None:
    """The provider whose model this is beyond doubt."""
    if lowered.startswith("gpt-oss"):
        return None  # open weights, which many serve and OpenAI does not
    owners = (owner for owner, beginnings in _FAMILIES if lowered.startswith(beginnings))
    return _WHOLE.get(lowered) or next(owners, None)


def _is_provider(name: str) -> bool:
    return name.lower() in WIRES or base.is_known(name)


def _on_wire(provider: str, model: str) -> Route:
    if base.is_known(provider):
        return Route(provider, model)  # the user's own provider knows its own names
    model = _WIRE_IDS.get((provider, model.lower()), model)
    if provider == "openai" and re.sub(_DATE_AT_END, "", model.lower()) in _RESPONSES_ONLY:
        return Route("openai-responses", model)
    return Route(provider, model)


def _unknown(model: str, lowered: str) -> str:
    for family, prefixes in _SERVED_BY:
        if re.match(family, lowered):
            forms = ", ".join(f"{prefix}/{model}" for prefix in prefixes.split())
            return f"{model!r} is served by several providers: say which, as in {forms}"
    import difflib  # late: few programs misspell a name

    left, slash, right = model.partition("/")
    providers = sorted({*WIRES, *base.known()})
    if slash and (near := difflib.get_close_matches(left.lower(), providers, 2, 0.7)):
        return (
            f"there is no provider {left!r}: did you mean {_either(f'{n}/{right}' for n in near)}?"
        )
    near = difflib.get_close_matches(lowered, [*_KNOWN_NAMES, *providers], 3, 0.6)
    meant = f"; did you mean {_either(near)}?" if near else "."
    return (
        f"no provider is known for the model {model!r}{meant} Any model works with a prefix: "
        f"provider/{model}, where provider is one of {', '.join(providers)}"
    )


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
