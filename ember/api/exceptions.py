"""The errors that Ember raises.

Attributes:
    ERROR_TYPES: Every `ErrorType`, for programs that handle each of them.
    ErrorType: The vocabulary of `ProviderAPIError.error_type`, the same for every provider.
"""

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
