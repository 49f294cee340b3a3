"""Reading OpenAI's chat completions, whole and streamed; pure.

Source: the `openai` 3.54.0 package (`types/chat/`), and what its compatible servers were seen to
send. Where they differ from OpenAI, the difference is in the answer itself: nothing here asks who
sent it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ember.conversation.parts import json_or_text
from ember.models.schemas import Chunk, FinishReason, ToolCall, UsageStats
from ember.pricing.cost import Billing
from ember.providers.json_values import count, dollars, entries, fields, index, items, string
from ember.providers.wire import Answer

__all__ = ["THOUGHTS", "ChatStreamReader", "arguments_text", "read_chat"]

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # Hugging Face
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "model_context_window_exceeded": "length",  # Z.ai
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Z.ai
    "error": "error",
    "network_error": "error",  # Z.ai
}
# Beside content and tool_calls, what some servers want to see again in the next turn.
THOUGHTS = ("reasoning_content", "reasoning_details")


def read_chat(body: Mapping[str, Any]) -> Answer | None:
    """A whole answer; None where the body is no chat completion."""
    choices = entries(body.get("choices"))
    if not choices and not (body.get("object") == "chat.completion" and body.get("usage")):
        return None
    # With n > 1 the first choice is the answer; the others are in `raw`. Without any, the answer
    # is empty, and paid for.
    choice = min(choices, key=_place, default=_NOTHING)
    message = fields(choice.get("message"))
    text, thoughts = _content(message.get("content", choice.get("text")))
    calls = _tool_calls(message)
    kept = {key: message[key] for key in ("tool_calls", *THOUGHTS) if message.get(key)}
    answer = Answer(
        text,
        _finish(choice.get("finish_reason")),
        calls,
        thoughts or _reasoning(message) or None,
        string(message.get("refusal")) or None,
        string(body.get("model")),
        string(body.get("id")) or None,
        message={"role": "assistant", "content": message.get("content"), **kept},
    )
    usage = _usage_of(body)
    if usage:
        _count(answer, usage, body)
    return answer


class ChatStreamReader:
    """Reads the chunks of one streamed chat completion."""

    ends_with_done = True

    def __init__(self) -> None:
        self.started = False
        self.complete = False
        self.failure: Mapping[str, Any] | None = None
        self._choices: dict[int, _Choice] = {}
        self._usage: Mapping[str, Any] = {}
        self._counted_in: Mapping[str, Any] = {}
        self._model = ""
        self._id = ""

    def read(self, name: str, event: Mapping[str, Any]) -> Chunk | None:
        """See `StreamReader.read`."""
        self._model = string(event.get("model")) or self._model
        self._id = string(event.get("id")) or self._id
        if event.get("usage") or "x_groq" in event:
            self._count(event)
        if "choices" not in event:
            return None
        self.started = True
        text = reasoning = ""
        for part in entries(event["choices"]):
            place = _place(part)
            choice = self._choices.get(place)
            if choice is None:
                choice = self._choices[place] = _Choice()
            more, thoughts = choice.add(part)
            if place == 0:
                self.complete = self.complete or choice.ended
                text, reasoning = text + more, reasoning + thoughts
        return Chunk(text, reasoning, event) if text or reasoning else None

    def _count(self, event: Mapping[str, Any]) -> None:
        usage = _usage_of(event)
        # The last one counts, but a chunk full of zeros says nothing about what was counted.
        if usage and (not self._usage or _tokens(usage)):
            self._usage, self._counted_in = usage, event
        if stopped := string(fields(event.get("x_groq")).get("error")):
            self.failure = {"error": {"message": stopped}}
        self.started = self.started or bool(usage)

    def answer(self) -> Answer:
        """See `StreamReader.answer`."""
        choice = self._choices[min(self._choices)] if self._choices else _Choice()
        answer = choice.answer(self._model, self._id)
        if self._usage:
            _count(answer, self._usage, self._counted_in)
        return answer


class _Choice:
    """One choice of a stream, as far as it has come."""

    def __init__(self) -> None:
        self.ended = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._finish: FinishReason | None = None
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._thoughts: dict[str, Any] = {}

    def add(self, part: Mapping[str, Any]) -> tuple[str, str]:
        """Take what a chunk says of this choice; returns its text and its reasoning."""
        said = fields(part.get("delta"))
        if len(said) == 1 and not part.get("finish_reason"):
            # Nearly all chunks add to the text and say nothing else.
            text = said.get("content")
            if isinstance(text, str):
                self._text.append(text)
                return text, ""
        if word := _finish(part.get("finish_reason")):
            self.ended, self._finish = True, word
        delta = fields(part.get("delta"))
        if "delta" not in part and "message" in part:
            # A server that does not stream answers in one piece.
            delta, self.ended = fields(part["message"]), True
        text, thoughts = _content(delta.get("content", part.get("text")))
        reasoning = thoughts or _reasoning(delta)
        self._text.append(text)
        self._reasoning.append(reasoning)
        self._refusal.append(string(delta.get("refusal")))
        for call in entries(delta.get("tool_calls")):
            self._add_call(call)
        if legacy := fields(delta.get("function_call")):
            self._add_call({"index": 0, "function": legacy})
        if details := items(delta.get("reasoning_details")):
            self._thoughts["reasoning_details"] = [
                *self._thoughts.get("reasoning_details", ()),
                *details,
            ]
        if isinstance(shown := delta.get("reasoning_content"), str):
            self._thoughts["reasoning_content"] = (
                self._thoughts.get("reasoning_content", "") + shown
            )
        return text, reasoning

    def _add_call(self, part: Mapping[str, Any]) -> None:
        call_id = string(part.get("id"))
        function = _function(part)
        name = string(function.get("name"))
        place = index(part.get("index"))
        arguments = arguments_text(function.get("arguments", function.get("input")))
        if place is not None:
            call = self._by_index.get(place)
            # Google's compatible endpoint numbers all calls 0: another id begins another call, and
            # where it gives none, a name and arguments after those of a whole call do.
            new = call is None or bool(name and call_id and call.id and call_id != call.id)
            if call is not None and name and arguments and not call_id and not call.id:
                new = bool(call.arguments) and isinstance(json_or_text(call.arguments), dict)
        else:
            # Mistral sends no index. A call's own pieces repeat its id, or neither id nor name.
            call = self._calls[-1] if self._calls else None
            new = call is None or (call_id != call.id if call_id else bool(name and call.name))
            place = len(self._calls)
        if new or call is None:
            call = self._by_index[place] = _Call(place)
            self._calls.append(call)
        call.id = call_id or call.id
        call.name = name or call.name
        call.custom = call.custom or part.get("type") == "custom"
        call.extra = fields(part.get("extra_content")) or call.extra
        call.arguments += arguments

    def answer(self, model: str, answer_id: str) -> Answer:
        """All that was read so far."""
        calls = sorted(self._calls, key=lambda call: call.index)
        calls = [call for call in calls if call.name or call.arguments]
        text = "".join(self._text)
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [call.echo() for call in calls]
        return Answer(
            text,
            self._finish,
            [ToolCall(call.id, call.name, json_or_text(call.arguments)) for call in calls],
            "".join(self._reasoning) or None,
            "".join(self._refusal) or None,
            model,
            answer_id or None,
            message=message | self._thoughts,
        )


class _Call:
    """A tool call whose arguments arrive in pieces."""

    __slots__ = ("arguments", "custom", "extra", "id", "index", "name")

    def __init__(self, place: int) -> None:
        self.index = place
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.custom = False
        self.extra: Mapping[str, Any] = {}

    def echo(self) -> dict[str, Any]:
        """The call as it goes back with the conversation."""
        kind, key = ("custom", "input") if self.custom else ("function", "arguments")
        call = {"id": self.id, "type": kind, kind: {"name": self.name, key: self.arguments}}
        # Google's compatible endpoint keeps the signature of its thoughts here.
        return {**call, "extra_content": self.extra} if self.extra else call


def arguments_text(arguments: object) -> str:
    """A tool's arguments as the JSON text that OpenAI wants."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else _dumps(arguments)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _finish(word: object) -> FinishReason | None:
    """The finish reason in Ember's vocabulary; None where nothing is said (null; Snowflake: "")."""
    return _FINISH.get(word.lower(), "other") if isinstance(word, str) and word else None


def _place(choice: Mapping[str, Any]) -> int:
    # A number below 0 is no place: whatever carries it belongs to the one answer there is.
    place = choice.get("index")
    return 0 if place == 0 else max(0, index(place) or 0)


def _content(content: object) -> tuple[str, str]:
    """The text and the reasoning of a `content`, which may be a list of parts (Mistral)."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, Mapping):
        # Cloudflare sends structured output as an object.
        return _dumps(cast("object", content)), ""
    text: list[str] = []
    thoughts: list[str] = []
    for part in items(content):
        if isinstance(part, str):
            text.append(part)
            continue
        said = fields(part)
        if said.get("type") in ("thinking", "reasoning"):
            inner = said.get("thinking", said.get("text"))
            thoughts += _content(inner)
        else:
            text.append(string(said.get("text")))
    return "".join(text), "".join(thoughts)


def _reasoning(message: Mapping[str, Any]) -> str:
    return string(message.get("reasoning_content")) or string(message.get("reasoning"))


def _tool_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    calls = entries(message.get("tool_calls"))
    if not calls and (legacy := fields(message.get("function_call"))):
        calls = [{"function": legacy}]
    made: list[ToolCall] = []
    for call in calls:
        function = _function(call)
        name = string(function.get("name"))
        arguments = function.get("arguments", function.get("input"))
        if name or arguments:  # Snowflake fills in a function_call that holds nothing
            made.append(ToolCall(string(call.get("id")), name, json_or_text(arguments)))
    return made


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a call says of its function; a custom tool's has a name of its own."""
    kinds = ("custom", "function") if call.get("type") == "custom" else ("function", "custom")
    return fields(call.get(kinds[0])) or fields(call.get(kinds[1])) or call


def _usage_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    # Groq's streams have it under a name of their own.
    return fields(body.get("usage")) or fields(fields(body.get("x_groq")).get("usage"))


def _tokens(usage: Mapping[str, Any]) -> int:
    return count(usage.get("prompt_tokens")) + count(usage.get("completion_tokens"))


_NOTHING: Mapping[str, Any] = {}
# In the details of the prompt, or beside it.
_CACHED = (
    "cached_tokens",  # Together and Hugging Face have it beside
    "num_cached_tokens",  # Mistral
    "prompt_cache_hit_tokens",  # DeepSeek
    "cache_read_input_tokens",  # Databricks, Vercel
)
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens")  # OpenAI, OpenRouter; the others


def _count(answer: Answer, usage: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Fill in what the answer used, in the normalised meaning."""
    inputs = fields(usage.get("prompt_tokens_details"))
    outputs = fields(usage.get("completion_tokens_details"))
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    cached = _first_count(_CACHED, inputs, usage)
    written = _first_count(_WRITTEN, inputs, usage)
    reasoning = count(outputs.get("reasoning_tokens")) or count(usage.get("reasoning_tokens"))
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning  # xAI counts it beside the completion
    answer.usage = UsageStats(
        prompt, completion, total or prompt + completion, cached, written, reasoning
    )
    cost = usage.get("cost")
    reported = dollars(fields(cost).get("total_cost", cost))  # Perplexity itemizes it
    if reported is not None and usage.get("is_byok") is True:
        # With a key of one's own the seller bills beside OpenRouter.
        upstream = fields(usage.get("cost_details")).get("upstream_inference_cost")
        reported += dollars(upstream) or 0
    audio = {
        "input_audio_tokens": count(inputs.get("audio_tokens")),
        "output_audio_tokens": count(outputs.get("audio_tokens")),
    }
    answer.billing = Billing(
        {name: counted for name, counted in audio.items() if counted},
        tier=string(body.get("service_tier")) or None,
        reported=reported,
    )


def _first_count(names: Sequence[str], *places: Mapping[str, Any]) -> int:
    """What the first place counts under any of the names that counts anything."""
    for place in places:
        most = max([count(place[name]) for name in names if name in place], default=0)
        if most:
            return most
    return 0
