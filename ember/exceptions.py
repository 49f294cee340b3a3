"""Every error that Ember raises.

::

    EmberError
    ├── ModelProviderError    set-up: a missing key, an unknown model or provider, a bad argument
    └── ProviderAPIError      run time: the provider or the connection to it failed

    UnknownPriceWarning       a call was answered, but its price is unknown

All providers share one runtime class and one vocabulary (`ErrorType`), so that a handler written
for one provider works for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

__all__ = [
    "ERROR_TYPES",
    "EmberError",
    "ErrorType",
    "ModelProviderError",
    "ProviderAPIError",
    "UnknownPriceWarning",
]

ErrorType = Literal[
    "authentication",
    "permission",
    "not_found",
    "invalid_request",
    "context_length",
    "request_too_large",
    "content_filter",
    "rate_limit",
    "quota",
    "overloaded",
    "server",
    "timeout",
    "connection",
    "incomplete_stream",
    "bad_response",
    "unknown",
]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)

# `quota` is not here: waiting does not refill an account that is out of money.
_RETRYABLE: frozenset[str] = frozenset(
    {"rate_limit", "overloaded", "server", "timeout", "connection", "incomplete_stream"}
)


class EmberError(Exception):
    """Base class of Ember's errors.

    Args:
        message: What happened, with the offending value and the remedy.
        context: Machine-readable details; never contains a key.
    """

    def __init__(self, message: str, context: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.context: dict[str, Any] = dict(context or {})

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        cause = self.__cause__
        if cause is not None and _pickles(cause):
            # Python drops the cause when an exception crosses to another process.
            state["__cause__"] = cause
        return type(self), self.args, state


class ModelProviderError(EmberError):
    """The call could not be made as configured; retrying does not help.

    Raised for a missing key (the message names the variable), an unknown model or provider (the
    message says which would work), a bad argument, or a malformed configuration.
    """


class ProviderAPIError(EmberError):
    """The provider answered with an error, or could not be reached or understood.

    Args:
        message: What happened, with the provider's own message if it sent one.
        context: `error_type` (one of `ERROR_TYPES`) and, if known, `status_code`, `provider`,
            `model`, `request_id`, `provider_code`, `provider_type`, `param`, `body`,
            `phase` (`connect`, `write`, `read`, `stream`), `in_stream`, `partial_text`.
        retryable: Whether the same call may succeed later; derived from `error_type` by default.
        retry_after: Seconds that the provider asks to wait, or None if it does not say.
    """

    def __init__(
        self,
        message: str,
        context: Mapping[str, Any] | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, context)
        self.context.setdefault("error_type", "unknown")
        self.retry_after = retry_after
        # Part of the answer was already delivered: a retry would deliver it again.
        delivered = bool(self.context.get("partial_text"))
        self.retryable: bool = (
            retryable if retryable is not None else self.error_type in _RETRYABLE and not delivered
        )

    @property
    def error_type(self) -> ErrorType:
        """The kind of failure; the same as `context["error_type"]`."""
        value: ErrorType = self.context["error_type"]
        return value


class UnknownPriceWarning(UserWarning):
    """No price is known for a model: its cost is `nan`, and the message names what to set."""


def _pickles(value: object) -> bool:
    import pickle  # imported late: a program that pickles errors has loaded it already

    try:
        pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True
