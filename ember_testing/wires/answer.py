"""What a fake model answers, and what a fake provider fails with: values, without a wire."""

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
    """What a fake model answers.

    Args:
        text: The text; by default what `chunks` come to.
        finish_reason: Why it ends, in Ember's vocabulary. Where the model asks for tools or
            refuses, "stop" becomes `tool_calls` or `content_filter`, as providers say it.
        tool_calls: The tools that it asks for.
        reasoning: Its reasoning.
        usage: What it used; None counts something plausible.
        chunks: The pieces that a stream brings the text in; None cuts it after each word.
        refusal: The refusal in words.
        model: The model that the provider reports; "" reports the one that was asked.

    Raises:
        ValueError: The chunks are not the text, the counts cannot be, or `tool_calls` is the
            reason and there are none.
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
        """The text as a stream brings it."""
        return self.chunks if self.chunks is not None else _WORDS.findall(self.text)

    @property
    def reason(self) -> FinishReason:
        """Why it ends, as the provider would say it."""
        if self.finish_reason != "stop":
            return self.finish_reason
        return "content_filter" if self.refusal else "tool_calls" if self.tool_calls else "stop"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a provider answers with; made by the functions of `ember_testing.faults`.

    Args:
        error_type: What it is in Ember's vocabulary.
        status: The HTTP status by wire; `openai` stands for those that are not named.
        words: The provider's structured words by wire: `(code, type)` for OpenAI, the type for
            Anthropic, the reason and the status for Google.
        messages: The provider's sentence, by wire as well.
        retry_after: Seconds to wait, as each provider says it.
        after_chunks: None answers with it; a number puts it into a stream that has begun well,
            after so many pieces.
    """

    error_type: ErrorType
    status: Mapping[str, int]
    words: Mapping[str, tuple[str | None, str]]
    messages: Mapping[str, str]
    retry_after: float | None = None
    after_chunks: int | None = None


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
    """An answer out of what a test gave: text, its pieces, an `Answer`, a `ChatResponse`.

    Raises:
        TypeError: It is none of these.
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
    """Counts of the right size: about four letters are a token."""
    output = answer.text + "".join(f"{call.name}{call.arguments}" for call in answer.tool_calls)
    thought = len(answer.reasoning or "") // 4
    return UsageStats(
        len(prompt) // 4 + 1, (len(output) + 3) // 4 + thought or 1, reasoning_tokens=thought
    )
