"""The errors that Ember raises."""

from ember.exceptions import (
    ERROR_TYPES,
    EmberError,
    ErrorType,
    ModelProviderError,
    ProviderAPIError,
    UnknownPriceWarning,
)

__all__ = [
    "ERROR_TYPES",
    "EmberError",
    "ErrorType",
    "ModelProviderError",
    "ProviderAPIError",
    "UnknownPriceWarning",
]
