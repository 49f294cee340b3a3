"""A caller's arguments, checked, and what a wire reads out of the answer; pure.

Keys, headers and addresses have types of their own here, whose repr does not show what is secret:
a debugger, a logger or a failure report that prints the variables of a frame prints no key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, cast

from ember.conversation.messages import Message
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats
from ember.providers.json_values import data_file
from ember.transport.send import Timeout

if TYPE_CHECKING:
    from ember.pricing.cost import Billing

__all__ = [
    "DOCUMENTED",
    "ENCODER",
    "GUARDED",
    "KEY_HEADER",
    "NO_HEADERS",
    "PARAMETERS",
    "UNSET",
    "Address",
    "Answer",
    "Call",
    "Fold",
    "Headers",
    "Key",
    "as_address",
    "as_headers",
    "as_key",
    "as_object",
    "as_prompt",
    "as_stops",
    "as_timeout",
    "check_names",
    "cut_off",
    "ending",
    "guard",
    "hide_secrets",
    "not_json",
    "sendable",
    "unsendable",
    "with_answer",
    "with_object",
]


class Key(str):
    """A key, or a header that carries one; the repr, also that of a part, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))


class Headers(dict[str, str]):
    """HTTP headers by name; the repr shows the names only.

    What may be secret is a `Key`: reporters such as rich and Sentry print each value by itself.
    """

    __slots__ = ()

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Headers:
        """The headers that a caller gives, each of them perhaps secret."""
        return cls({n: Key(v) if isinstance(v, str) else v for n, v in values.items()})

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))


class Address(str):
    """A URL; its repr and its pickle hold neither a user's name and password nor its query.

    Of the query only Azure's `api-version` is pickled.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(f"{self.public()}?***" if "?" in self else self.public())

    def public(self) -> str:
        """The URL without what may be secret."""
        scheme, mark, rest = self.partition("?")[0].partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"

    def __getitem__(self, index: SupportsIndex | slice) -> Key:
        return Key(super().__getitem__(index))

    def __reduce__(self) -> tuple[type[Address], tuple[str]]:
        query = self.partition("?")[2].split("&")
        version = [pair for pair in query if pair.startswith("api-version=")]
        return Address, ("?".join([self.public(), *version[:1]]),)

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
_GUARDS: Mapping[str, tuple[type, Callable[[Any], Any]]] = {
    "api_key": (str, Key),
    "base_url": (str, Address),
    "extra_headers": (dict, Headers.of),
}


UNSET: Any = ...
"""What a parameter is that is not given; None takes back what a binding gives."""
PARAMETERS = (
    "system", "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice",
    "response_format", "reasoning_effort", "timeout", "base_url", "api_key", "extra_headers",
    "messages",
)  # fmt: skip
"""What every provider knows."""


_NAMES = data_file("parameters")
DOCUMENTED = frozenset(PARAMETERS).union(*_NAMES["documented"].values())
"""Names that are right beyond doubt, Ember's own or a provider's."""
_BORROWED: Mapping[str, list[str]] = _NAMES["borrowed"]


def check_names(names: Collection[str]) -> None:
    """Refuse a name that another library has for something, or that is nearly one of Ember's.

    Raises:
        ModelProviderError: There is such a name; the message says what to write.
    """
    for name in names:
        if name in DOCUMENTED:
            continue
        if name in _BORROWED:
            instead, library = _BORROWED[name]
            raise ModelProviderError(
                f"{name}= is no parameter here, as it is elsewhere ({library}): use {instead}",
                {"param": name},
            )
        import difflib  # late: few names are unknown

        if near := difflib.get_close_matches(name.lower(), PARAMETERS, 1, 0.85):
            raise ModelProviderError(
                f"{name}= is no parameter: did you mean {near[0]}=?", {"param": name}
            )


def as_prompt(prompt: object, messages: object) -> object:
    """The prompt, for which `messages=` may stand.

    Raises:
        ModelProviderError: Both are given.
    """
    if prompt is not None and messages is not None:
        raise ModelProviderError(
            "a prompt and messages= were both given: make the prompt the last message, "
            "{'role': 'user', 'content': ...}, or pass the messages alone",
            {"param": "messages"},
        )
    return messages if prompt is None else prompt


def hide_secrets(api_key: Any, base_url: Any, extra_headers: Any) -> tuple[Any, Any, Any]:
    """The three as they are, in types whose repr hides what is secret."""
    params = {"api_key": api_key, "base_url": base_url, "extra_headers": extra_headers}
    guard(params)
    return params["api_key"], params["base_url"], params["extra_headers"]


def guard(params: dict[str, Any]) -> None:
    """Put the parameters that may hold a key into types whose repr hides it."""
    for name, (kind, hidden) in _GUARDS.items():
        if type(params.get(name)) is kind:
            params[name] = hidden(params[name])


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

    def secrets(self) -> list[Key]:
        """What must not come back in an error."""
        given = [value for name, value in self.extra_headers.items() if KEY_HEADER.search(name)]
        keys = [Key(value.removeprefix("Bearer ")) for value in given]
        return [self.key or Key(), *keys, *self.base_url.secrets()]


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
    message: dict[str, Any] | None = None
    usage: UsageStats | None = None
    billing: Billing | None = None


class Fold:
    """Folds the events of one stream into the body that would have come in one piece.

    `started` says whether any event was one of this wire's, `complete` whether the wire's end
    marker has been seen (`[DONE]`, where `ends_with_done`), and `failure` is the error that an
    event reported without being an error itself. `pieces` are those of tool calls that the last
    event brought.
    """

    ends_with_done = False

    def __init__(self) -> None:
        self.started = False
        self.complete = False
        self.failure: Mapping[str, Any] | None = None
        self.pieces: list[ToolCall] = []

    def add(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """Take an event; returns what it adds, or None where that is neither text nor reasoning."""
        raise NotImplementedError

    def body(self) -> Mapping[str, Any]:
        """The body, as far as it has come."""
        raise NotImplementedError


def with_answer(error: ProviderAPIError, answer: Answer | None) -> ProviderAPIError:
    """The error, with what the provider had already answered: that is paid for."""
    error = error.with_traceback(None)  # its frames hold the answer, which may repeat the key
    error.context["partial_text"] = answer.text if answer else ""
    if answer and answer.usage is not None:
        error.context["usage"] = answer.usage.as_dict()
    if answer and answer.text:
        error.retryable = False  # what was delivered can't be asked for again unnoticed
    return error


# Reasons for which an answer may have ended in the middle of a tool call.
_CUT = (None, "length", "content_filter", "error")


def ending(
    reason: FinishReason | None, calls: Sequence[ToolCall], refusal: str | None
) -> FinishReason | None:
    """Why an answer ended: a refusal is one whatever the provider's word for its end is."""
    if refusal and reason != "error":
        return "content_filter"
    return "tool_calls" if calls and reason == "stop" else reason


def cut_off(
    calls: list[ToolCall], reason: FinishReason | None, last_arguments: object
) -> list[ToolCall]:
    """The calls; a last one that was cut before its arguments began does not look whole.

    Args:
        calls: As they were read: no arguments are none that a tool needs.
        reason: Why the answer ended.
        last_arguments: Those of the last call as the provider sent them.
    """
    if calls and reason in _CUT and not last_arguments:
        calls[-1] = calls[-1]._replace(arguments="")
    return calls


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
    return Headers.of(given)


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


# --- requests that cannot be sent -----------------------------------------------------------------

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
sendable = re.compile(r"[ -~]*").fullmatch
"""Whether headers hold printable ASCII only."""


def unsendable(headers: Headers, provider: str) -> ModelProviderError:
    """The error of a header that is not `sendable`; it may be a key, and is not shown."""
    name = next(name for name in headers if not sendable(name) or not sendable(headers[name]))
    return ModelProviderError(
        f"{provider}: the header {name!r} cannot be sent: it holds a line break or a character "
        "beyond ASCII; look at the key, or at extra_headers=",
        {"provider": provider},
    )


def not_json(body: Mapping[str, Any], provider: str, error: Exception) -> ModelProviderError:
    """The error of a body of which a part, which it names, cannot be sent."""
    param = None
    for name, value in body.items():
        try:
            ENCODER.encode(value).encode()
        except (TypeError, ValueError):
            param = name
            break
    return ModelProviderError(
        f"{provider}: {param!r} cannot be sent as JSON: {error}",
        {"provider": provider, "param": param},
    )


def with_object(params: Mapping[str, Any], response: ChatResponse) -> ChatResponse:
    """The response with the object that `response_format=` among the parameters asks for.

    Raises:
        ProviderAPIError: The answer does not fit it.
    """
    kind = params.get("response_format")
    if kind is None or isinstance(kind, Mapping):
        return response
    from ember.conversation import python_types  # imported late: seldom asked for

    return python_types.with_object(kind, response)
