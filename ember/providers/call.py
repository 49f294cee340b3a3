"""A caller's arguments, checked, and the fields that a wire reads from an answer; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember.conversation.messages import Message
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.providers.arguments import KEY_HEADER, NO_HEADERS, PARAMETERS, Address, Headers, Key
from ember.providers.json_values import data_file
from ember.transport.send import Timeout

if TYPE_CHECKING:
    from ember.pricing.cost import Billing

__all__ = [
    "DOCUMENTED",
    "ENCODER",
    "Call",
    "Fold",
    "ParsedAnswer",
    "as_headers",
    "as_object",
    "as_prompt",
    "as_stops",
    "as_timeout",
    "body_error",
    "check_names",
    "chunks_of",
    "final_reason",
    "header_error",
    "is_valid_header",
    "mark_cut_off",
    "with_answer",
]


_NAMES = data_file("parameters")
DOCUMENTED = frozenset(PARAMETERS).union(*_NAMES["documented"].values())
"""Names that Ember or a provider documents."""
_OTHER_LIBRARIES: Mapping[str, list[str]] = _NAMES["borrowed"]


def check_names(names: Collection[str]) -> None:
    """Raise an error for another library's parameter name, or a misspelling of one of Ember's."""
    for name in names:
        if name in DOCUMENTED:
            continue
        if name in _OTHER_LIBRARIES:
            instead, library = _OTHER_LIBRARIES[name]
            raise ModelProviderError(
                f"{name}= is no parameter here, as it is elsewhere ({library}): use {instead}",
                {"param": name},
            )
        import difflib  # imported late: rarely needed

        if near := difflib.get_close_matches(name.lower(), PARAMETERS, 1, 0.85):
            raise ModelProviderError(
                f"{name}= is no parameter: did you mean {near[0]}=?", {"param": name}
            )


def as_prompt(prompt: object, messages: object) -> object:
    """Return the prompt, which may be passed as `messages=`; refuse both."""
    if prompt is not None and messages is not None:
        raise ModelProviderError(
            "a prompt and messages= were both given: make the prompt the last message, "
            "{'role': 'user', 'content': ...}, or pass the messages alone",
            {"param": "messages"},
        )
    return messages if prompt is None else prompt


class Call(NamedTuple):
    """One call in Ember's form, before it is converted to a provider's format."""

    model: str  # its id on the wire
    messages: Sequence[Message]  # the conversation, `system=` as its first message
    params: Mapping[str, Any]  # the other parameters that were given, by Ember's names
    stream: bool
    base_url: Address  # without a slash at its end
    key: Key | None
    timeout: Timeout = Timeout()
    extra_headers: Mapping[str, str] = NO_HEADERS  # to send in addition to the wire's own

    def secrets(self) -> list[Key]:
        """Return the values that an error must not show."""
        given = [value for name, value in self.extra_headers.items() if KEY_HEADER.search(name)]
        keys = [Key(value.removeprefix("Bearer ")) for value in given]
        return [self.key or Key(), *keys, *self.base_url.secrets()]


class ParsedAnswer(NamedTuple):
    """A provider's answer as read by a wire; the fields are those of `ChatResponse`.

    `usage` and `billing` are None if the provider reports no usage.
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
    """Folds the events of one stream into the body of the same answer without streaming."""

    ends_with_done = False  # whether `[DONE]` is the wire's end marker

    def __init__(self) -> None:
        self.started = False  # whether any event was in this wire's format
        self.complete = False  # whether the end marker was seen
        # The error that an event reported without being an error itself.
        self.failure: Mapping[str, Any] | None = None

    def add(self, name: str, event: Mapping[str, Any]) -> Sequence[Chunk]:
        """Add an event and return its chunks, `chunks_of` its content."""
        raise NotImplementedError

    def body(self) -> Mapping[str, Any]:
        """Return the body as received so far."""
        raise NotImplementedError


def chunks_of(
    event: object, text: str, reasoning: str = "", calls: Iterable[ToolCall] = ()
) -> Sequence[Chunk]:
    """Return the chunks of an event: its text and reasoning, then its pieces of tool calls."""
    chunks = [Chunk(text, reasoning, event)] if text or reasoning else []
    for call in calls:
        chunks.append(Chunk("", "", event, call))
    return chunks


def with_answer(error: ProviderAPIError, answer: ParsedAnswer | None) -> ProviderAPIError:
    """Return the error with the partial answer, which is paid for, in its context."""
    error = error.with_traceback(None)  # its frames hold the answer, which may contain the key
    error.context["partial_text"] = answer.text if answer else ""
    if answer and answer.usage is not None:
        error.context["usage"] = answer.usage.as_dict()
    if answer and answer.text:
        error.retryable = False  # a retry would deliver the text again
    return error


# Finish reasons of answers that may have ended in the middle of a tool call.
_MAY_BE_CUT_OFF = (None, "length", "content_filter", "error")


def final_reason(
    reason: FinishReason | None, calls: Sequence[ToolCall], refusal: str | None
) -> FinishReason | None:
    """Return the finish reason, corrected for refusals and tool calls."""
    if refusal and reason != "error":
        return "content_filter"
    return "tool_calls" if calls and reason == "stop" else reason


def mark_cut_off(
    calls: list[ToolCall], reason: FinishReason | None, last_arguments: object
) -> list[ToolCall]:
    """Return the calls; if the last was cut off before its arguments began, they become "".

    The wires read missing arguments as {}; `last_arguments` are the last call's as they were sent.
    """
    if calls and reason in _MAY_BE_CUT_OFF and not last_arguments:
        calls[-1] = calls[-1]._replace(arguments="")
    return calls


# --- arguments that cannot be sent as they are ---------------------------------------------------


def as_stops(value: object) -> list[str]:
    """Return the strings of `stop=`, one or several; refuse anything else."""
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, Sequence) and all(isinstance(s, str) for s in cast("Any", stops)):
        return list(cast("Sequence[str]", stops))
    raise ModelProviderError(f"stop= is a string or a list of strings, not {value!r}")


def as_object(name: str, value: object) -> Mapping[str, Any]:
    """Return a parameter to which Ember adds keys; refuse anything but a dict."""
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise ModelProviderError(f"{name}= is a dict, not {value!r}", {"param": name})


def as_headers(value: object) -> Headers:
    """Return the headers of `extra_headers=`; the error for other values shows none of them."""
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
    """Convert `timeout=`: seconds, a dict by phase, an httpx.Timeout, or None for no timeout."""
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


# In seconds; anything longer is no timeout, since a socket does not support much more.
_MAX_SECONDS = 10**9


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelProviderError(f"timeout= is a number of seconds above 0, not {value!r}")
    return float(value) if value <= _MAX_SECONDS else None


# --- requests that cannot be sent -----------------------------------------------------------------

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
is_valid_header = re.compile(r"[ -~]*").fullmatch
"""Matches headers of printable ASCII characters only."""


def header_error(headers: Headers, provider: str) -> ModelProviderError:
    """Return the error for an invalid header, without its value, which may be a key."""
    name = next(name for name in headers if not is_valid_header(name + headers[name]))
    return ModelProviderError(
        f"{provider}: the header {name!r} cannot be sent: it holds a line break or a character "
        "beyond ASCII; look at the key, or at extra_headers=",
        {"provider": provider},
    )


def body_error(body: Mapping[str, Any], provider: str, error: Exception) -> ModelProviderError:
    """Return the error for a body that cannot be sent, naming the parameter at fault."""
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
