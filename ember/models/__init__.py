"""models(model, prompt, **params): call a language model as one Python function.

The same as `ember.api.models`: `from ember import models`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.models.function import ModelBinding, Models
    from ember.models.registry import ModelRegistry, UsageSummary
    from ember.models.streams import AsyncStream, Stream

__all__ = ["AsyncStream", "ModelBinding", "ModelRegistry", "Models", "Stream", "UsageSummary"]
_FORMS = ("acall", "stream", "astream", "instance")


# Modules elsewhere in Ember import this package before it can be complete, so it becomes the
# function at its first use as one.
class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in (*__all__, *_FORMS, "__signature__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self._become_function()
        return getattr(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._become_function()
        return self(*args, **kwargs)

    def _become_function(self) -> None:
        from ember.models.function import CallablePackage, ModelBinding, Models
        from ember.models.registry import ModelRegistry, UsageSummary
        from ember.models.streams import AsyncStream, Stream

        for each in (AsyncStream, ModelBinding, ModelRegistry, Models, Stream, UsageSummary):
            setattr(self, each.__name__, each)
        self.__class__ = CallablePackage  # type: ignore[assignment]  # a wider one is meant

    def __dir__(self) -> list[str]:
        self._become_function()
        return dir(self)

    def __reduce__(self) -> tuple[Any, ...]:
        self._become_function()
        return self.__reduce__()


sys.modules[__name__].__class__ = _Package
