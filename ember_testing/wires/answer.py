"""The answers and errors of fake models, independent of any wire format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ember.exceptions import ErrorType
from ember.models.schemas import ChatResponse, FinishReason, ToolCall, UsageStats

__all__ = ["Answer", "Failure", "as_answer", "plausible_usage"]

_WORDS = re.compile(r"\s*\S+(?:\s+\Z)?|\s+")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a fake model.

    Args:
        text: The text; by default the joined `chunks`.
        finish_reason: The finish reason in Ember's vocabulary. With tool calls or a refusal,
            "stop" becomes `tool_calls` or `content_filter`, as providers report it.
        tool_calls: The requested tool calls.
        reasoning: The reasoning text.
        usage: Token counts; None makes up plausible ones.
        chunks: The pieces in which a stream sends the text; None splits it after each word.
        refusal: The text of a refusal.
        model: The model that the provider reports; "" reports the requested one.

    Raises:
        ValueError: `chunks` do not add up to `text`, the counts contradict each other, or
            `finish_reason` is `tool_calls` without any.
    """

    text: str = ""
    finish_reason: FinishReason = "stop"
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    usage: UsageStats | None = None
    chunks: Sequence[str] | None = None
    refusal: str | None = None
    model: str = ""

    def __post_init__(self) -> None:
        if self.chunks is not None:
            joined = "".join(self.chunks)
            if not self.text:
                object.__setattr__(self, "text", joined)
            elif joined != self.text:
                raise ValueError(
                    f"the chunks come to {joined!r} and not to the text {self.text!r}: leave the "
                    "text out"
                )
        if self.finish_reason == "tool_calls" and not self.tool_calls:
            raise ValueError(
                "finish_reason='tool_calls' without a tool call: pass tool_calls=[ToolCall(...)]"
            )
        if self.usage is not None:
            _check(self.usage)

    @property
    def pieces(self) -> Sequence[str]:
        """The text in the pieces in which a stream sends it."""
        return self.chunks if self.chunks is not None else _WORDS.findall(self.text)

    @property
    def reason(self) -> FinishReason:
        """The finish reason that the provider would report."""
        if self.finish_reason != "stop":
            return self.finish_reason
        return "content_filter" if self.refusal else "tool_calls" if self.tool_calls else "stop"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error response of a provider; created by the functions of `ember_testing.faults`.

    Args:
        error_type: The error type in Ember's vocabulary.
        status: HTTP status by wire format; `openai` is the default for missing ones.
        words: The provider's error codes by wire format: `(code, type)` for OpenAI, the type for
            Anthropic, reason and status for Google.
        messages: The provider's error message by wire format.
        retry_after: Seconds to wait, sent as each provider sends them.
        after_chunks: None sends the error as the response; a number sends it inside a stream,
            after that many pieces.
    """

    error_type: ErrorType
    status: Mapping[str, int]
    words: Mapping[str, tuple[str | None, str]]
    messages: Mapping[str, str]
    retry_after: float | None = None
    after_chunks: int | None = None

    def on(self, wire: str) -> tuple[int, str | None, str, str]:
        """Return status, error code, error type and message on a wire."""
        default = "openai"
        code, kind = self.words.get(wire, self.words[default])
        message = self.messages.get(wire, self.messages[default])
        return self.status.get(wire, self.status[default]), code, kind, message


def _check(usage: UsageStats) -> None:
    if usage.cached_tokens + usage.cache_write_tokens > usage.prompt_tokens:
        raise ValueError(
            f"cached_tokens={usage.cached_tokens} and cache_write_tokens="
            f"{usage.cache_write_tokens} are part of prompt_tokens={usage.prompt_tokens}, which is "
            "less"
        )
    if usage.reasoning_tokens > usage.completion_tokens:
        raise ValueError(
            f"reasoning_tokens={usage.reasoning_tokens} are part of completion_tokens="
            f"{usage.completion_tokens}, which is less"
        )


def as_answer(value: object) -> Answer:
    """Convert a test's reply to an answer: text, its pieces, an `Answer`, a `ChatResponse`.

    Raises:
        TypeError: The value has another type.
    """
    if isinstance(value, Answer):
        return value
    if isinstance(value, str):
        return Answer(value)
    if isinstance(value, ChatResponse):
        return Answer(
            value.text,
            value.finish_reason or "stop",
            value.tool_calls,
            value.reasoning,
            value.usage if value.usage.total_tokens > 0 else None,
            None,
            value.refusal,
            value.model,
        )
    if isinstance(value, (list, tuple)):
        pieces = cast("Sequence[object]", value)
        if all(isinstance(piece, str) for piece in pieces):
            return Answer(chunks=[str(piece) for piece in pieces])
    raise TypeError(
        f"{value!r} is no answer: pass text, a list of the pieces of a stream, an Answer, a "
        "ChatResponse, a fault of ember_testing.faults, or a function that returns one of these; "
        "to a call for embeddings a list of numbers, or ember_testing.Embeddings()"
    )


def plausible_usage(prompt: str, answer: Answer) -> UsageStats:
    """Return plausible token counts, at about four characters per token."""
    output = answer.text + "".join(f"{call.name}{call.arguments}" for call in answer.tool_calls)
    thought = len(answer.reasoning or "") // 4
    return UsageStats(
        len(prompt) // 4 + 1, (len(output) + 3) // 4 + thought or 1, reasoning_tokens=thought
    )
