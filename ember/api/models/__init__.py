"""The one function, `models(model, prompt, **params)`, and what belongs to it."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from ember.models.function import ModelBinding, Models
from ember.models.registry import ModelRegistry, UsageSummary
from ember.models.streams import AsyncStream, Stream

__all__ = ["AsyncStream", "ModelBinding", "ModelRegistry", "Models", "Stream", "UsageSummary"]


# `from ember.api import models` gives a function, and `from ember.api.models import ModelRegistry`
# must import from a package of the same name: so the package itself is made callable.
class _CallablePackage(Models, ModuleType):
    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _CallablePackage
