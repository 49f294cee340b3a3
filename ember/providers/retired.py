"""Models that their providers have shut down, and the successors that the providers name.

Sources: the docstrings of the `openai` 3.54.0 and `anthropic` 2.12.0 packages (OpenAI's are copied
from developers.openai.com/api/docs/deprecations), Anthropic's and Google's deprecation pages, read
on 2026-11-22. A date in the future is announced. Nothing is ever sent to another model than the
one asked for: this only explains a 404.
"""

from __future__ import annotations

import re

__all__ = ["retirement"]

_SHUTDOWNS = """
2024-09-13 gpt-3.5-turbo-16k gpt-3.5-turbo-0301 gpt-3.5-turbo-0613 gpt-3.5-turbo-16k-0613
2024-11-06 claude-1.0 claude-1.1 claude-1.2 claude-1.3 claude-instant-1.1 claude-instant-1.2
2024-12-06 gpt-4-vision-preview
2025-06-06 gpt-4-32k gpt-4-32k-0314 gpt-4-32k-0613
2025-07-21 claude-2.0 claude-2.1 claude-3-sonnet-20240229
2025-07-28 o1-preview
2025-10-27 o1-mini
2025-10-28 claude-3-5-sonnet-20240620 claude-3-5-sonnet-20241022 claude-3-5-sonnet-latest
2026-01-05 claude-3-opus-20240229 claude-3-opus-latest
2026-02-12 codex-mini-latest
2026-02-17 chatgpt-4o-latest
2026-02-19 claude-3-7-sonnet-20250219 claude-3-7-sonnet-latest claude-3-5-haiku-20241022
2026-02-19 claude-3-5-haiku-latest
2026-03-09 gemini-3-pro-preview
2026-03-26 gpt-4-0125-preview gpt-4-turbo-preview gpt-4-0314
2026-04-19 claude-3-haiku-20240307
2026-06-15 claude-opus-4-0 claude-sonnet-4-0 claude-opus-4-20250514 claude-sonnet-4-20250514
2026-06-30 claude-mythos-preview
2026-07-23 gpt-5.1-codex gpt-5.1-chat-latest gpt-5-chat-latest gpt-4o-search-preview
2026-07-23 gpt-4o-mini-search-preview gpt-5-codex gpt-5.1-codex-max gpt-5.1-codex-mini
2026-07-23 gpt-5.2-codex o3-deep-research o4-mini-deep-research
2026-08-05 claude-opus-4-1 claude-opus-4-1-20250805
2026-08-10 gpt-5.3-chat-latest gpt-5.2-chat-latest
2026-09-28 gpt-3.5-turbo-1106
2026-10-23 gpt-4 gpt-4-0613 gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-4-1106-preview gpt-3.5-turbo
2026-10-23 gpt-3.5-turbo-0125 gpt-4o-2024-05-13 gpt-4.1-nano o1 o1-pro o3-mini o4-mini
2026-11-30 claude-sonnet-4-5 claude-sonnet-4-5-20250929
2026-12-01 gemini-2.5-pro gemini-2.5-flash
2026-12-11 gpt-5 gpt-5-mini gpt-5-nano gpt-5-pro o3 o3-pro
2027-01-14 gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini
2027-01-20 gpt-audio-mini
2027-04-01 gpt-5.1 gpt-5.4-nano
"""
_SUCCESSORS = """
gpt-5.6-sol gpt-4 gpt-4-turbo o1 o3-mini
gpt-5.6-terra gpt-3.5-turbo o4-mini
gpt-6-luna gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini
gpt-6.1-sol gpt-5
gpt-6.1-terra gpt-5-mini
gemini-3.8-flash gemini-2.5-pro
gemini-3.5-flash-lite gemini-2.5-flash
"""


def _by_model(table: str) -> dict[str, str]:
    rows = (line.split() for line in table.strip().splitlines())
    return {model: first for first, *models in rows for model in models}


_SHUTDOWN = _by_model(_SHUTDOWNS)
_SUCCESSOR = _by_model(_SUCCESSORS)
_OWNERS = frozenset({"openai", "openai-responses", "anthropic", "google"})
# A dated id (gpt-4-0613, gpt-4-turbo-2024-04-09) follows its model.
_DATED = re.compile(r"-(\d{4}|\d{8}|\d{4}-\d\d-\d\d)$")


def retirement(provider: str, model: str) -> str | None:
    """When a model was or will be shut down and what its provider names instead, in a sentence.

    Args:
        provider: The provider's name in Ember; elsewhere (an Azure deployment, another vendor's
            server) a name says nothing about the model behind it.
        model: The model's id as it goes on the wire.
    """
    model = model.rpartition("/")[2]
    date = _SHUTDOWN.get(model) if provider in _OWNERS else None
    if date is None:
        return None
    successor = _SUCCESSOR.get(model) or _SUCCESSOR.get(_DATED.sub("", model))
    named = f"; its provider names {successor} as successor" if successor else ""
    return f"{model} has the shutdown date {date}{named}"
