"""Models that their providers have shut down, and the successors that the providers name.

The tables are in `data/retired.json`, with their sources. They only explain a 404: a request is
never sent to another model than the requested one.
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
# A dated id (gpt-4-0613, gpt-4-turbo-2024-04-09) has the same successor as its model.
_DATED = re.compile(r"-(\d{4}|\d{8}|\d{4}-\d\d-\d\d)$")


def retirement(provider: str, model: str) -> str | None:
    """Return a sentence with a model's shutdown date and successor, or None if none is known.

    Args:
        provider: The provider's name in Ember; only those that own the model count, since at
            others (an Azure deployment, another vendor's server) a name may mean any model.
        model: The model's id on the wire.
    """
    model = model.rpartition("/")[2]
    date = _SHUTDOWN.get(model) if provider in _OWNERS else None
    if date is None:
        return None
    successor = _SUCCESSOR.get(model) or _SUCCESSOR.get(_DATED.sub("", model))
    named = f"; its provider names {successor} as successor" if successor else ""
    return f"{model} has the shutdown date {date}{named}"
