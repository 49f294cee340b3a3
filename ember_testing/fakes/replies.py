"""The replies set up for models: which of them is next, and its response on the wire."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ember.exceptions import EmberError
from ember.models.routing import built_in, resolve
from ember.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember.providers.servers import SERVERS
from ember_testing.fakes.call import FakeCall
from ember_testing.faults import Damage, Fault, applied, replaces_answer
from ember_testing.wires import answer_response, wire_of
from ember_testing.wires.answer import Answer, Failure, as_answer, plausible_usage
from ember_testing.wires.embeddings import (
    Embeddings,
    as_embeddings,
    embedding_error,
    embedding_response,
    inputs_of,
)
from ember_testing.wires.parsing import ModelRequest
from ember_testing.wires.response import ProviderResponse, Response

__all__ = ["FakeResponse", "Replies", "Reply", "ReplyQueue", "ReplyValue", "build_response"]

Vectors: TypeAlias = Embeddings | Sequence[float] | Sequence[Sequence[float]]
ReplyValue: TypeAlias = (
    str | Sequence[str] | Answer | ChatResponse | Fault | ProviderResponse | Vectors
)
Reply: TypeAlias = ReplyValue | Callable[[FakeCall], ReplyValue]

_WILD = re.compile(r"[*?\[]")


class ReplyQueue:
    """The replies set up by one `fake_model(pattern, ...)`; not thread-safe.

    Raises:
        TypeError: There is no reply, or one of another type.
    """

    def __init__(self, pattern: str, replies: Sequence[Reply], usage: UsageStats | None) -> None:
        if not replies:
            raise TypeError(f"fake_model({pattern!r}) needs an answer, such as 'Paris'")
        for reply in replies:
            is_other = callable(reply) or isinstance(reply, (Failure, Damage, ProviderResponse))
            if not is_other and as_embeddings(reply) is None:
                as_answer(reply)
        self.pattern = pattern
        self.usage = usage
        self.total = len(replies)
        self._waiting = deque(replies)
        self._names = [re.compile(fnmatch.translate(name.lower())) for name in _names(pattern)]
        left, slash, _ = pattern.lower().partition("/")
        self.provider = left if slash and (left in SERVERS or base.is_registered(left)) else None

    @property
    def _is_endless(self) -> bool:
        return len(self._waiting) == 1 and callable(self._waiting[0])

    def take(self) -> Reply | None:
        """Return the next reply, or None; a function as the last one answers all further calls."""
        if self._is_endless:
            return self._waiting[0]
        return self._waiting.popleft() if self._waiting else None

    def unused(self) -> str:
        """Return how many answers no call used, or ""."""
        if not self._waiting or self._is_endless:
            return ""
        return f"{self.pattern}: {len(self._waiting)} of {self.total} answers"

    def matches(self, provider: str, model: str, unknown_address: bool) -> bool:
        """Return whether the pattern matches a call, by its wire format if need be."""
        names = {f"{provider}/{model}"}
        if self.provider is None:
            names.add(model)
        elif unknown_address and wire_of(self.provider) == wire_of(provider):
            names.add(f"{self.provider}/{model}")
        if provider == "openai-responses":
            names.add(f"openai/{model}")
        return any(own.fullmatch(name.lower()) for own in self._names for name in names)


def _names(pattern: str) -> Iterator[str]:
    """Yield the pattern, and the model's id on the wire, which may include a date."""
    yield pattern
    if _WILD.search(pattern):
        return
    with contextlib.suppress(EmberError):
        route = resolve(pattern)
        if base.is_registered(route.provider):
            return
        nothing = {"api_key": "fake-key", "base_url": "http://fake"}
        wire_id = built_in(route.provider).call("name", route.model, nothing).model
        prefix = f"{route.provider}/" if "/" in pattern and pattern != route.model else ""
        yield f"{prefix}{wire_id}"


class Replies:
    """All replies that were set up, in order; not thread-safe."""

    def __init__(self) -> None:
        self.queues: list[ReplyQueue] = []
        self._found: dict[tuple[str, str, bool], list[ReplyQueue]] = {}

    def add(self, queue: ReplyQueue) -> None:
        """Add replies."""
        self.queues.append(queue)
        self._found.clear()

    def clear(self) -> None:
        """Forget all replies."""
        self.queues.clear()
        self._found.clear()

    def of(self, provider: str, model: str, unknown_address: bool = False) -> list[ReplyQueue]:
        """Return the replies whose pattern matches a call."""
        key = provider, model, unknown_address
        found = self._found.get(key)
        if found is None:
            found = [each for each in self.queues if each.matches(provider, model, unknown_address)]
            self._found[key] = found
        return found


# The text of a stream before a provider's error interrupts it.
_INTERRUPTED = "This answer does not come to its end."


class FakeResponse(NamedTuple):
    """The response for a reply."""

    response: Response
    fault: Fault | None  # the fault in it
    text: str  # the text of a whole answer, or ""


def build_response(
    request: ModelRequest,
    call: FakeCall,
    value: ReplyValue,
    usage: UsageStats | None,
    number: int,
) -> FakeResponse:
    """Return the response for a reply to a call of one of Ember's wires, or for embeddings.

    Args:
        request: The parsed request.
        call: The call that it makes.
        value: The reply, or the result of one that is a function.
        usage: Token counts set up for it; None makes up plausible ones.
        number: Number of the call, for the ids.

    Raises:
        TypeError: It is not a reply to such a call.
        ValueError: The wire format cannot express it.
    """
    if isinstance(value, ProviderResponse):
        return FakeResponse(value.served, None, value.means.text if value.means else "")
    fault = value if isinstance(value, (Failure, Damage)) else None
    response, text = Response(200), ""
    if request.wire is None:
        if isinstance(fault, Failure):
            return FakeResponse(embedding_error(request, fault), fault, "")
        embeddings = Embeddings() if fault is not None else as_embeddings(value)
        if embeddings is None:
            raise TypeError(
                f"{value!r} is no vector: a call for embeddings is answered by a list of numbers, "
                "by one such list for each input, or by ember_testing.Embeddings()"
            )
        inputs = inputs_of(request) or ()
        tokens = usage.prompt_tokens if usage else sum(len(str(each)) // 4 + 1 for each in inputs)
        response = embedding_response(request, inputs, embeddings, tokens, number)
    elif fault is None or not replaces_answer(fault):
        contents = _INTERRUPTED if isinstance(value, Failure) else value
        answer = as_answer(contents.answer if isinstance(contents, Damage) else contents)
        counts = answer.usage or usage or plausible_usage(call.prompt, answer)
        response = answer_response(
            request.wire, call.model, answer, counts, number, stream=call.stream
        )
        text = answer.text
    if fault is None:
        return FakeResponse(response, None, text)
    return FakeResponse(applied(fault, response, request.wire or "openai"), fault, "")
