"""Converts httpx's errors to Ember's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from ember.exceptions import EmberError, ErrorType, ModelProviderError, ProviderAPIError
from ember.transport.environment import proxy_for, without_user

__all__ = ["BodyTooLong", "as_ember_error", "without_frames"]


class BodyTooLong(httpx.TransportError):
    """A body longer than `EMBER_MAX_BODY_BYTES` allows."""


# Every subclass of httpx.HTTPError that a request can raise, subclasses before their bases.
_ERRORS: tuple[tuple[type[httpx.HTTPError], ErrorType, str, str], ...] = (
    (httpx.ConnectTimeout, "timeout", "connect", "no connection in time"),
    (httpx.PoolTimeout, "timeout", "connect", "no connection in time"),
    (httpx.WriteTimeout, "timeout", "write", "the request was not taken in time"),
    (httpx.ReadTimeout, "timeout", "read", "no answer in time"),
    (httpx.ProxyError, "connection", "connect", "the proxy refused"),
    (httpx.ConnectError, "connection", "connect", "could not connect"),
    (httpx.WriteError, "connection", "write", "the connection broke while sending"),
    (httpx.ReadError, "connection", "read", "the connection broke"),
    (httpx.CloseError, "connection", "read", "the connection broke while closing"),
    (httpx.RemoteProtocolError, "connection", "read", "the server broke off its answer"),
    (httpx.DecodingError, "bad_response", "read", "the answer's content encoding is broken"),
    (BodyTooLong, "bad_response", "read", "the answer is too long"),
)
_SETUP_ERRORS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


def as_ember_error(
    error: BaseException, url: str, context: Mapping[str, Any], streamed: bool, limit: float | None
) -> EmberError | None:
    """Return Ember's error for one of httpx's; None for another, such as a cancellation.

    Args:
        error: The error.
        url: The URL of the request.
        context: The provider and the model.
        streamed: Whether the response was read as a stream.
        limit: `timeout.total` in seconds if that time is over, else None.
    """
    # A host name that cannot be encoded for DNS raises UnicodeError.
    if isinstance(error, (httpx.InvalidURL, *_SETUP_ERRORS, UnicodeError)):
        return _setup_error(error, without_user(url), context)
    if isinstance(error, httpx.HTTPError):
        return _api_error(error, url, context, streamed, limit)
    return None


def _setup_error(error: Exception, where: str, context: Mapping[str, Any]) -> ModelProviderError:
    why = str(error)
    if isinstance(error, httpx.LocalProtocolError):
        # Its message and those of its causes contain the header's value, perhaps the key.
        why = "a header is not valid HTTP"
        error.args, error.__cause__, error.__context__ = (why,), None, None
    if isinstance(error, httpx.HTTPError):
        error.request = httpx.Request("POST", where)
    return ModelProviderError(
        f"{context['provider']}: cannot send to {where!r}: {why}. Check base_url= (it begins with "
        "http:// or https://, or http+unix:// for a socket), the key and extra_headers= (no "
        "blanks at the ends, no line breaks)",
        context,
    )


def _api_error(
    error: httpx.HTTPError,
    url: str,
    context: Mapping[str, Any],
    streamed: bool,
    limit: float | None,
) -> ProviderAPIError:
    where = without_user(url)
    # The request that httpx attaches has the key in its headers.
    error.request = httpx.Request("POST", where)
    error_type, phase, what = _classify(error)
    if error_type == "timeout" and limit is not None:
        part = "event that says anything" if streamed else "whole answer"
        what = f"no {part} within {limit:g} s"
    if streamed:
        phase = "stream"
        if error_type == "connection":
            error_type = "incomplete_stream"
    # Under trio only a cause has a message. Cancellations (BaseException) do not belong in it.
    errors = (cause for cause in _causes(error) if isinstance(cause, Exception))
    detail = next((f" ({cause})" for cause in errors if str(cause)), "")
    by_network = phase == "connect" and not url.startswith("http+unix:")
    proxy = proxy_for(httpx.URL(url)) if by_network else None
    through = f" through the proxy {without_user(proxy)}" if proxy else ""
    remedy, retryable = _remedy(error, error_type, phase, bool(proxy))
    return ProviderAPIError(
        f"{context['provider']}: {what} at {where}{through}{detail}{remedy}",
        {"error_type": error_type, **context, "phase": phase, "in_stream": streamed},
        retryable,
    )


def _classify(error: httpx.HTTPError) -> tuple[ErrorType, str, str]:
    for kind, error_type, phase, what in _ERRORS:
        if isinstance(error, kind):
            return error_type, phase, what
    return "unknown", "read", type(error).__name__


def _remedy(
    error: httpx.HTTPError, error_type: ErrorType, phase: str, proxied: bool
) -> tuple[str, bool | None]:
    """Return a hint, and whether the call may be retried (None: depends on the error type)."""
    if error_type == "timeout":
        return "; timeout= sets how long to wait", None
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "; SSL_CERT_FILE names a file of trusted certificates", False
    if proxied:
        # The message of a proxy's own refusal begins with its status.
        refused = isinstance(error, httpx.ProxyError) and str(error).startswith("4")
        remedy = "; HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names it, NO_PROXY=host goes past it"
        return remedy, False if refused else None
    if phase == "connect":
        return "; is the server up, and base_url= right?", None
    return "", None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its chain of causes."""
    seen: set[int] = set()  # an exception that is raised again can be its own cause
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def without_frames(error: BaseException) -> BaseException:
    """Remove the traceback of an error: httpx's frames hold the request with the key."""
    for cause in _causes(error):
        cause.__traceback__ = None
    return error
