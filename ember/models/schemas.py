"""The values that calls take and return: frozen, slotted, independent of the provider."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, overload

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # for type checkers only

    ParsedT = TypeVar("ParsedT", default=Any)
else:
    from typing import TypeVar

    ParsedT = TypeVar("ParsedT")

__all__ = [
    "ChatResponse",
    "Chunk",
    "FinishReason",
    "ParsedT",
    "Prompt",
    "ToolCall",
    "UsageStats",
]

# Text; one part; a list of parts; a list of messages.
Prompt: TypeAlias = str | bytes | Path | Mapping[str, Any] | Sequence[Any]
_TokenCount = Literal[
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, eq=False)
class UsageStats:
    """The usage of a call: tokens and US dollars.

    `usage.prompt_tokens` and `usage["prompt_tokens"]` are the same. `+` and `sum(...)` add usages:
    tokens exactly, dollars as decimals, and an unknown cost (`nan`) is left out.

    Args:
        prompt_tokens: All input tokens, cached reads and cache writes included.
        completion_tokens: All billed output tokens, reasoning included.
        total_tokens: Input and output; by default their sum.
        cached_tokens: Of the input, tokens read from the provider's prompt cache.
        cache_write_tokens: Of the input, tokens written to the provider's prompt cache.
        reasoning_tokens: Of the output, tokens spent on reasoning.
        cost: US dollars; `nan` if no price is known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = -1
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = math.nan

    def __post_init__(self) -> None:
        if self.total_tokens < 0:
            object.__setattr__(self, "total_tokens", self.prompt_tokens + self.completion_tokens)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, name: Literal["cost"]) -> float: ...
        @overload
        def __getitem__(self, name: _TokenCount) -> int: ...
        @overload
        def __getitem__(self, name: str) -> Any: ...

    def __getitem__(self, name: str) -> Any:
        if name not in _USAGE_FIELDS:
            raise KeyError(f"{name!r} is not a usage field; there are {', '.join(_USAGE_FIELDS)}")
        return getattr(self, name)

    def __eq__(self, other: object) -> bool:
        # Unknown costs are equal, unlike nan.
        return isinstance(other, UsageStats) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().values()))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field of this name, or the default if there is no such field."""
        return getattr(self, name) if name in _USAGE_FIELDS else default

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields, so that `dict(usage)` works."""
        return _USAGE_FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(_USAGE_FIELDS)

    def __add__(self, other: UsageStats) -> UsageStats:
        if not isinstance(other, UsageStats):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
            return NotImplemented
        return UsageStats(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            _add_costs(self.cost, other.cost),
        )

    def __radd__(self, other: object) -> UsageStats:
        # sum() starts from 0.
        return self if other == 0 else NotImplemented

    def priced(self, cost: float) -> UsageStats:
        """Return the same usage with this cost in US dollars."""
        return UsageStats(
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
            cost,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON values: an unknown cost is None."""
        values = {name: getattr(self, name) for name in _USAGE_FIELDS}
        if math.isnan(self.cost):
            values["cost"] = None
        return values


_USAGE_FIELDS = tuple(f.name for f in fields(UsageStats))


def _add_costs(a: float, b: float) -> float:
    if math.isnan(a):
        return b
    if math.isnan(b):
        return a
    # A float's repr is the intended decimal: adding decimals makes 0.1 + 0.2 equal 0.3, and a sum
    # independent of its order.
    from decimal import Decimal  # late: most programs never add costs

    return float(Decimal(repr(a)) + Decimal(repr(b)))


class ToolCall(NamedTuple):
    """A call of a tool that the model requests.

    Args:
        id: The id that the tool's result must refer to.
        name: The tool's name.
        arguments: The arguments as a dict; the provider's text if it is not a JSON object.
        signature: The provider's opaque token to send back with the call, or None.
    """

    id: str
    name: str
    arguments: Any
    signature: str | None = None


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ChatResponse(Generic[ParsedT]):
    """A complete answer.

    Args:
        data: The text; "" if the model sent none (see `finish_reason`, `refusal`, `tool_calls`).
        usage: Tokens and cost.
        model: The model as the provider reported it.
        provider: The provider's name in Ember, such as `openai`.
        finish_reason: Why the answer ended, the same words for all providers; None if the provider
            gave no reason. The provider's word is in `raw`.
        tool_calls: The tool calls that the model requests.
        reasoning: The model's reasoning as far as the provider shows it.
        refusal: The text of the model's or the provider's refusal.
        request_id: The provider's id of this request, for its support.
        headers: The response's HTTP headers, names in lower case; they include rate limits.
        message: The answer as a message, to append to the conversation unchanged: it keeps what
            the provider needs back (tool calls, signatures of reasoning).
        raw: The provider's parsed body; for a stream, the list of its events.
        parsed: The answer as an object of the type in `response_format=`; None without such a
            type, if the model refused, or if it requests tools first.
    """

    data: str
    usage: UsageStats = field(default_factory=UsageStats)
    model: str = ""
    provider: str = ""
    finish_reason: FinishReason | None = None
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    refusal: str | None = None
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)
    message: dict[str, Any] = field(default_factory=_empty, repr=False)
    raw: Any = field(default=None, repr=False)
    parsed: ParsedT = None  # type: ignore[assignment]  # None if there is no object

    def __post_init__(self) -> None:
        if not self.message:
            object.__setattr__(self, "message", {"role": "assistant", "content": self.data})

    @property
    def text(self) -> str:
        """The text; the same string as `data`."""
        return self.data

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON values: an unknown cost is None."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {**values, "usage": self.usage.as_dict()}

    if not TYPE_CHECKING:

        def __await__(self) -> Any:
            raise TypeError(
                "models() has answered already, and is not awaited: write "
                "`await models.acall(model, prompt)`"
            )

    def __str__(self) -> str:
        return self.data


class Chunk(NamedTuple):
    """One piece of a streamed answer.

    Args:
        text: New text; "" if the piece has other content.
        reasoning: New reasoning text.
        raw: The provider's event.
        tool_call: New text of a tool call's arguments, with the call's id and name, or None.
    """

    text: str
    reasoning: str = ""
    raw: Any = None
    tool_call: ToolCall | None = None

    def __str__(self) -> str:
        return self.text


# Other libraries' names for the fields of these classes.
_INSTEAD: Mapping[str, Mapping[str, str]] = {
    "UsageStats": {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "cache_read_input_tokens": "cached_tokens",
        "cache_creation_input_tokens": "cache_write_tokens",
        "prompt_tokens_details": "cached_tokens and .cache_write_tokens",
        "completion_tokens_details": "reasoning_tokens",
        "total_cost": "cost",
        "cost_usd": "cost",
        "model_dump": "as_dict()",
    },
    "ChatResponse": {
        "content": "text",
        "output_text": "text",
        "choices": "text, .tool_calls and .finish_reason",
        "candidates": "text, .tool_calls and .finish_reason",
        "output": "text and .tool_calls",
        "stop_reason": "finish_reason",
        "cost": "usage.cost",
        "id": "request_id",
        "json": "as_dict()",
        "dict": "as_dict()",
        "to_dict": "as_dict()",
        "model_dump": "as_dict()",
    },
    "Chunk": {"choices": "text", "delta": "text", "content": "text", "usage": "text; the stream "
              "has .usage after its end"},
}  # fmt: skip


def _no_attribute(self: object, name: str) -> Any:
    kind = type(self).__name__
    instead = _INSTEAD.get(kind, {}).get(name)
    hint = f": use .{instead}" if instead else ""
    raise AttributeError(f"{kind!r} object has no attribute {name!r}{hint}", name=name, obj=self)


for _class in (UsageStats, ChatResponse, Chunk):
    # Not in the class bodies: type checkers would then accept any attribute.
    _class.__getattr__ = _no_attribute  # type: ignore[union-attr]  # not defined so far


def _plain(value: Any) -> Any:
    """Convert a value to JSON's types; nan and infinity become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({f.name: getattr(value, f.name) for f in fields(value)})
    for as_dict in ("_asdict", "model_dump"):  # a named tuple, a pydantic object
        if callable(make := getattr(value, as_dict, None)):
            return _plain(make())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType] - any JSON
    return repr(value)
