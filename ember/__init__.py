"""Ember: call a language model as one Python function.

from ember import models

response = models("gpt-5.6-sol", "What is the capital of France?")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.models.function import Models

    models: Models

__all__ = ["__version__", "models"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported late, so that importing `ember.exceptions` alone does not load the client.
    if name == "models":
        return importlib.import_module("ember.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
