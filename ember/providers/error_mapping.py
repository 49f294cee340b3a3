"""Conversion of providers' errors, in any of their formats, to `ProviderAPIError`; pure.

The type of an error is decided by the provider's structured fields, then, for a 400, a 422 or a
success only, by the error's own `message`, then by the status; never by searching the body, which
often repeats the caller's text. At a few more statuses the message may say that money is out.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ember.exceptions import ErrorType, ProviderAPIError
from ember.providers.error_bodies import ErrorBody, read_error
from ember.providers.json_values import data_file, entries, fields, items, request_id, string
from ember.providers.retired import retirement
from ember.transport.environment import without_user

__all__ = ["FailedResponse"]

_TABLES = data_file("errors")
_TYPES_BY_WORD: Mapping[str, ErrorType] = {
    word: kind for kind, words in _TABLES["words"].items() for word in words
}
_TYPES_BY_STATUS: Mapping[int, ErrorType] = {
    int(s): kind for s, kind in _TABLES["statuses"].items()
}
_PATTERNS: Mapping[ErrorType, re.Pattern[str]] = {
    kind: re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)
    for kind, patterns in _TABLES["messages"].items()
}
_OUT_OF_MONEY = re.compile("|".join(_TABLES["out_of_money"]), re.IGNORECASE)
# Statuses at which only the message says so: Fireworks suspends an account with a 412.
_MONEY_STATUSES = frozenset({400, 403, 412, 422, 429})
_BAD_REQUEST = frozenset(
    {"invalid_request_error", "invalid_request", "invalid_argument", "badrequesterror"}
)
_TRANSIENT = frozenset({"overloaded", "server", "timeout", "rate_limit"})
_FINAL_STATUSES = frozenset({400, 401, 402, 403, 404, 413, 422})

_WAIT = re.compile(
    r"(?:(?:try again|retry) (?:in|after)|wait(?: for)?) "
    r"((?:[\d.]+\s*(?:ms|milliseconds?|s|seconds?|m|minutes?|h|hours?)\s*)+)",
    re.IGNORECASE,
)
_LARGER_THAN_LIMIT = re.compile(
    r"limit:? (\d[\d,]*)\b.{,60}?requested:? (\d[\d,]*)", re.IGNORECASE | re.DOTALL
)
_DURATION = re.compile(r"([\d.]+)\s*(ms|milli|s|m|h)", re.IGNORECASE)
# Characters of a message: some bodies repeat the whole request.
_MAX_MESSAGE = 1000
_UNIT_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_REMEDIES: Mapping[str, str] = {
    "authentication": "check the key ({key})",
    "permission": "this key may not use it: check the account's access",
    "context_length": "shorten the prompt, or lower max_tokens=",
    "request_too_large": "send less: smaller or fewer images",
    "quota": "the account's money or quota is used up: no retry will help",
}


class FailedResponse(NamedTuple):
    """A response of which an error is made."""

    provider: str  # its name in Ember
    model: str  # the one that was requested
    status: int  # 200 for an error inside a stream or a success's body
    headers: Mapping[str, str]  # names in lower case
    in_stream: bool = False  # whether the error was found while reading a stream
    # The owner of the server, if the URL belongs to another provider (`openai/` with `base_url=`).
    vendor: str = ""
    base_url: str = ""
    keys: Collection[str] = ()  # that were sent; they are removed from the error
    key_names: str = "api_key="  # where the key comes from, for the remedy

    def reported_error(self, body: object) -> ProviderAPIError:
        """Return the error that the body (JSON, or text if it is not JSON) reports."""
        body = _redact_keys(body, self.keys)
        error, status = read_error(body), self.status
        effective = status if status >= 400 else error.status or _implied_status(error) or status
        error_type = _classify(self.vendor or self.provider, effective, error)
        # A success may have a retry-after header too (Anthropic's do): it means nothing there.
        delays = _retry_delays(self.headers if status >= 400 else {}, error, error_type)
        sentence = error.message or (json.dumps(body, ensure_ascii=False) if body else "")
        sentence = sentence or f"HTTP status {status} without a word"
        if len(sentence) > _MAX_MESSAGE:
            sentence = f"{sentence[:_MAX_MESSAGE]}..."
        remedy = self._remedy(error_type)
        message = f"{sentence} [{_label(status, error_type, error)}]"
        context = self._context(error_type) | {
            "request_id": request_id(self.headers) or error.request_id,
            "provider_code": error.code,
            "provider_type": error.type,
            "param": error.param,
            "body": body,
        }
        return self._error(
            f"{message}; {remedy}" if remedy else message,
            context,
            _retryable(self.headers, effective, error_type, error.message),
            next(filter(None, delays), None),
        )

    def wrong_format(self, body: object) -> ProviderAPIError:
        """Return the error for a body that this provider does not send."""
        body = _redact_keys(body, self.keys)
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        return self._error(
            f"the answer with status {self.status} is not what this provider sends: "
            f"{text[:200]!r}; is base_url= right ({without_user(self.base_url)})?",
            {**self._context("bad_response"), "body": body},
        )

    def incomplete_stream(self) -> ProviderAPIError:
        """Return the error for a stream without end marker."""
        return self._error(
            "the stream ended before the answer did; what arrived is in context['partial_text']",
            self._context("incomplete_stream"),
        )

    def _error(self, message: str, *details: Any) -> ProviderAPIError:
        return ProviderAPIError(f"{self.provider} ({self.model}): {message}", *details)

    def _remedy(self, error_type: ErrorType) -> str:
        """Return what the caller can do."""
        vendor = self.vendor or self.provider
        if error_type == "not_found" and (note := retirement(vendor, self.model)):
            return note
        if 300 <= self.status < 400:
            target = without_user(self.headers.get("location", "nowhere").partition("?")[0])
            return f"it redirects to {target!r}: is base_url= right?"
        return _REMEDIES.get(error_type, "").replace("{key}", self.key_names)

    def _context(self, error_type: ErrorType) -> dict[str, Any]:
        """Return the context that all these errors have."""
        return {
            "error_type": error_type,
            "status_code": self.status,
            "provider": self.provider,
            "model": self.model,
            "request_id": request_id(self.headers),
            "phase": "stream" if self.in_stream else "read",
            **({"in_stream": True} if self.in_stream else {}),
        }


def _label(status: int, error_type: str, error: ErrorBody) -> str:
    where = f"in a {status} answer" if status < 300 else f"status {status}"
    code = f", code {error.code}" if error.code and error.code != str(status) else ""
    return f"{error_type}, {where}{code}"


def _classify(vendor: str, status: int, error: ErrorBody) -> ErrorType:
    if status == 429 and _daily_quota(error):
        return "quota"
    if vendor == "xai" and error.message.startswith("Incorrect API key"):
        return "authentication"  # xAI answers a wrong key with 400; only the message says so
    if (status < 300 or status in _MONEY_STATUSES) and _OUT_OF_MONEY.search(error.message):
        return "quota"
    if status >= 500 and error.message.rstrip(".") == "Context size has been exceeded":
        return "context_length"  # llama.cpp, whose type for it is `server_error`
    by_message: ErrorType | None = None
    if status < 300 or status in (400, 422) or (status == 403 and vendor == "together"):
        # Together answers a prompt that is too long with 403 (its docs, "Error codes").
        by_message = next((k for k, p in _PATTERNS.items() if p.search(error.message)), None)
    for word in error.words:
        if kind := _TYPES_BY_WORD.get(word):
            # A general code does not blame the server if the status blames the call (Ollama's 404
            # of the type `api_error`), or if the message is about the prompt (inside a stream
            # that has begun).
            if kind == "server" and (400 <= status < 500 or by_message):
                continue
            if kind == "rate_limit" and status == 413:
                continue  # Groq: larger than the tokens per minute; waiting does not help
            return kind
    if by_status := by_message or _TYPES_BY_STATUS.get(status):
        return by_status
    return "server" if status >= 500 else "invalid_request" if status >= 400 else "unknown"


def _implied_status(error: ErrorBody) -> int | None:
    """Return the status that an error inside a success would have had on its own."""
    return 400 if _BAD_REQUEST.intersection(error.words) else None


def _daily_quota(error: ErrorBody) -> bool:
    """Return whether Google's 429 does not end within minutes."""
    violations = [v for detail in error.details for v in entries(detail.get("violations"))]
    if any("PerDay" in str(violation.get("quotaId", "")) for violation in violations):
        return True
    is_googles = error.details or "resource_exhausted" in error.words
    return bool(is_googles) and re.search(r"limit: 0(?!\d|\.)", error.message) is not None


def _retryable(
    headers: Mapping[str, str], status: int, error_type: str, message: str
) -> bool | None:
    if error_type in ("quota", "context_length"):
        return False
    if error_type == "rate_limit" and (found := _LARGER_THAN_LIMIT.search(message)):
        limit, requested = (int(number.replace(",", "")) for number in found.groups())
        if requested > limit:
            return False  # waiting does not help
    advice = headers.get("x-should-retry")
    if advice in ("true", "false"):
        return advice == "true"
    if status in _FINAL_STATUSES and error_type not in _TRANSIENT:
        return False
    return None


def _retry_delays(
    headers: Mapping[str, str], error: ErrorBody, error_type: str
) -> Iterator[float | None]:
    milliseconds = _number(headers.get("retry-after-ms"))
    yield None if milliseconds is None else milliseconds / 1000
    yield _seconds_or_date(headers.get("retry-after"))
    yield _seconds_or_date(error.wait)
    for detail in error.details:
        yield _duration(string(detail.get("retryDelay")))  # Google's RetryInfo
    if error_type in ("rate_limit", "quota", "overloaded") and (
        wait := _WAIT.search(error.message)
    ):
        yield _duration(wait[1])


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _seconds_or_date(text: str | None) -> float | None:
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text or "").timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    try:
        parts = [(float(n), unit.lower()) for n, unit in _DURATION.findall(text)]
    except ValueError:  # such as "1.2.3"
        return None
    return round(sum(n * _UNIT_SECONDS[unit] for n, unit in parts), 6)


def _redact_keys(body: object, keys: Collection[str]) -> object:
    """Return the body without the keys, which some servers repeat in their errors."""
    keys = [key for key in keys if len(key) >= _MIN_KEY]
    return _redact(body, keys) if keys else body


def _redact(value: object, keys: Collection[str]) -> object:
    if isinstance(value, str):
        for key in keys:
            value = value.replace(key, "***")
        return value
    if found := fields(value):
        return {_redact(name, keys): _redact(item, keys) for name, item in found.items()}
    if several := items(value):
        return [_redact(item, keys) for item in several]
    return value


# Shorter ones are not keys, and replacing them would garble any message.
_MIN_KEY = 6
