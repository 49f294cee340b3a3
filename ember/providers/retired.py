"""Models that their providers have shut down, and the successors that the providers name.

The tables are in `data/retired.json`, with their sources. Nothing is ever sent to another model
than the one asked for: this only explains a 404.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ember.providers.json_values import data_file

__all__ = ["retirement"]

_TABLES = data_file("retired")


def _by_model(table: Mapping[str, list[str]]) -> dict[str, str]:
    return {model: first for first, models in table.items() for model in models}


_SHUTDOWN = _by_model(_TABLES["shutdowns"])
_SUCCESSOR = _by_model(_TABLES["successors"])
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
