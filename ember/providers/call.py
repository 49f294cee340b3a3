"""A caller's arguments, checked, and what a wire reads out of the answer; pure.

Keys, headers and addresses have types of their own here, whose repr does not show what is secret:
a debugger, a logger or a test's failure report that prints the variables of a frame prints no key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, cast

from ember.conversation.messages import Message
from ember.exceptions import ModelProviderError
from ember.models.schemas import FinishReason, ToolCall, UsageStats
from ember.transport.send import Timeout

if TYPE_CHECKING:
    from ember.pricing.cost import Billing

__all__ = [
    "GUARDED",
    "KEY_HEADER",
    "NO_HEADERS",
    "Address",
    "Answer",
    "Call",
    "Headers",
    "Key",
    "as_address",
    "as_headers",
    "as_key",
    "as_object",
    "as_stops",
    "as_timeout",
    "guard",
]


class Key(str):
    """A key, or a header that carries one; the repr, also that of a part, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))


class Headers(dict[str, str]):
    """HTTP headers by name; the repr shows the names only, that of a value nothing.

    Reporters such as rich and Sentry print each value by itself.
    """

    __slots__ = ()

    def __init__(self, values: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__(
            {name: Key(value) if type(value) is str else value for name, value in values.items()}
        )

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name, Key(value))

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))


class Address(str):
    """A URL; its repr shows neither a user's name and password in it nor its query."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme, _, rest = self.partition("://")
        host, slash, path = rest.partition("?")[0].partition("/")
        shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
        return repr(f"{shown}?***" if "?" in rest else shown)

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))

    def secrets(self) -> list[Key]:
        """The password and the query's values, which may be keys."""
        rest, _, query = self.partition("?")
        password = rest.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
        values = [pair.partition("=")[2] for pair in query.split("&")]
        return [Key(value) for value in (password, *values) if value]


NO_HEADERS = Headers()
KEY_HEADER = re.compile("auth|key|token|secret|cookie|credential", re.IGNORECASE)
"""In the names of headers that carry a key."""
GUARDED = frozenset({"api_key", "base_url", "extra_headers"})
"""Parameters that may hold a key."""
_GUARDS: Mapping[str, tuple[type, type]] = {
    "api_key": (str, Key),
    "base_url": (str, Address),
    "extra_headers": (dict, Headers),
}


def guard(params: dict[str, Any]) -> None:
    """Put the parameters that may hold a key into types whose repr hides it."""
    for name, (kind, guarded) in _GUARDS.items():
        if type(params.get(name)) is kind:
            params[name] = guarded(params[name])


class Call(NamedTuple):
    """One call as the caller meant it, before it is put into a provider's words.

    Args:
        model: The model's id on the wire.
        messages: The conversation, `system=` as its first message.
        params: The other parameters that were given, in Ember's words.
        stream: Whether the answer is to come in pieces.
        base_url: Where to send it, without a slash at its end.
        key: The key, or None.
        timeout: How long to wait.
        extra_headers: Headers to send beside the wire's own.
    """

    model: str
    messages: Sequence[Message]
    params: Mapping[str, Any]
    stream: bool
    base_url: Address
    key: Key | None
    timeout: Timeout = Timeout()
    extra_headers: Mapping[str, str] = NO_HEADERS


class Answer(NamedTuple):
    """What a wire reads out of a provider's answer; the fields are those of `ChatResponse`.

    `usage` and `billing` are None where the provider did not count.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    refusal: str | None = None
    model: str = ""
    request_id: str | None = None
    message: Mapping[str, Any] | None = None
    usage: UsageStats | None = None
    billing: Billing | None = None


# --- arguments that cannot be sent as they are ---------------------------------------------------


def as_stops(value: object) -> list[str]:
    """The texts that `stop=` gives, one or several.

    Raises:
        ModelProviderError: There is something that is no text.
    """
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, Sequence) and all(isinstance(s, str) for s in cast("Any", stops)):
        return list(cast("Sequence[str]", stops))
    raise ModelProviderError(f"stop= is a string or a list of strings, not {value!r}")


def as_object(name: str, value: object) -> Mapping[str, Any]:
    """A parameter that Ember adds something to, which only a dict allows.

    Raises:
        ModelProviderError: It is none.
    """
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise ModelProviderError(f"{name}= is a dict, not {value!r}", {"param": name})


def as_address(value: object) -> Address | None:
    """What `base_url=` gives; None where it gives nothing.

    Raises:
        ModelProviderError: It is no string.
    """
    if value is None or isinstance(value, str):
        return Address(value) if value else None
    raise ModelProviderError(f"base_url= is a string such as 'https://host/v1', not {value!r}")


def as_key(value: object) -> Key | None:
    """What `api_key=` gives; None where it gives nothing.

    Raises:
        ModelProviderError: It is no string; the message does not show it.
    """
    if value is None or isinstance(value, str):
        return Key(value) if value else None
    raise ModelProviderError(f"api_key= is a string, not {type(value).__name__}")


def as_headers(value: object) -> Headers:
    """What `extra_headers=` gives.

    Raises:
        ModelProviderError: It is no dict of strings; the message shows no value.
    """
    if not isinstance(value, Mapping):
        what = type(value).__name__
        raise ModelProviderError(f"extra_headers= is a dict of names and values, not {what}")
    given = cast("Mapping[object, object]", value)
    for name in given:
        if not isinstance(name, str) or not isinstance(given[name], str):
            what = f"{name!r}: a value of type {type(given[name]).__name__}"
            raise ModelProviderError(f"extra_headers= holds strings only, not {what}")
    return Headers(cast("Mapping[str, str]", value))


def as_timeout(value: object) -> Timeout:
    """What `timeout=` gives: seconds, a dict by phase, an httpx.Timeout, or None for no bound.

    Raises:
        ModelProviderError: It is none of these.
    """
    if value is None:
        return Timeout(None, None, None)
    if isinstance(value, Timeout):
        return value
    if isinstance(value, Mapping):
        by_phase = dict(cast("Mapping[str, object]", value))
        if unknown := by_phase.keys() - {"connect", "read", "total"}:
            raise ModelProviderError(
                f"timeout= has no {sorted(unknown)}; there are 'connect', 'read' and 'total'"
            )
        seconds = {name: _seconds(wait) for name, wait in by_phase.items()}
        return Timeout(**{"total": None, **seconds})
    if hasattr(value, "connect") and hasattr(value, "read"):  # an httpx.Timeout
        phases = cast("Any", value)
        return Timeout(_seconds(phases.connect), _seconds(phases.read), None)
    wait = _seconds(value)
    return Timeout(wait, wait, wait)


# Seconds; a socket cannot count to much more, and nobody waits to see the difference.
_LONGEST_WAIT = 10**9


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelProviderError(f"timeout= is a number of seconds above 0, not {value!r}")
    return float(value) if value <= _LONGEST_WAIT else None
