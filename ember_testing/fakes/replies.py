"""The replies set up for models: which of them is next, and its response on the wire."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

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
)
from ember_testing.wires.exchange import ModelRequest
from ember_testing.wires.response import ProviderResponse, Response

__all__ = [
    "Given",
    "Replies",
    "Reply",
    "SetUp",
    "check_reply",
    "embeddings_of",
    "next_of",
    "response_of",
]

Vectors: TypeAlias = Embeddings | Sequence[float] | Sequence[Sequence[float]]
Given: TypeAlias = str | Sequence[str] | Answer | ChatResponse | Fault | ProviderResponse | Vectors
Reply: TypeAlias = Given | Callable[[FakeCall], Given]

_WILD = re.compile(r"[*?\[]")


class SetUp:
    """The replies set up by one `fake_model(pattern, ...)`.

    Args:
        pattern: The pattern as given.
        replies: The replies in order.
        usage: Token counts of each answer, or None.
    """

    def __init__(self, pattern: str, replies: Sequence[Reply], usage: UsageStats | None) -> None:
        self.pattern = pattern
        self.usage = usage
        self.given = len(replies)
        self.waiting = deque(replies)
        self._names = [re.compile(fnmatch.translate(name.lower())) for name in _names(pattern)]
        left, slash, _ = pattern.lower().partition("/")
        self.provider = left if slash and (left in SERVERS or base.is_known(left)) else None

    @property
    def endless(self) -> bool:
        """Whether the next reply answers all further calls."""
        return len(self.waiting) == 1 and callable(self.waiting[0])

    def matches(self, provider: str, model: str, guessed: bool) -> bool:
        """Return whether the pattern matches a call.

        Args:
            provider: The provider's name.
            model: The model's id on the wire.
            guessed: Whether only the wire format identifies the provider (a custom base URL).
        """
        names = {model, f"{provider}/{model}"} if self.provider is None else {f"{provider}/{model}"}
        if provider == "openai-responses":
            names.add(f"openai/{model}")
        if guessed and self.provider and wire_of(self.provider) == wire_of(provider):
            names.add(f"{self.provider}/{model}")
        return any(own.fullmatch(name.lower()) for own in self._names for name in names)


def _names(pattern: str) -> Iterator[str]:
    """Yield the pattern, and the model's id on the wire, which may include a date."""
    yield pattern
    if _WILD.search(pattern):
        return
    with contextlib.suppress(EmberError):
        route = resolve(pattern)
        if base.is_known(route.provider):
            return
        nothing = {"api_key": "fake-key", "base_url": "http://fake"}
        wire_id = built_in(route.provider).call("name", route.model, nothing).model
        prefix = f"{route.provider}/" if "/" in pattern and pattern != route.model else ""
        yield f"{prefix}{wire_id}"


class Replies:
    """All replies that were set up, in order; not thread-safe."""

    def __init__(self) -> None:
        self.all: list[SetUp] = []
        self._found: dict[tuple[str, str, bool], list[SetUp]] = {}

    def add(self, setup: SetUp) -> None:
        """Add replies."""
        self.all.append(setup)
        self._found.clear()

    def clear(self) -> None:
        """Forget all replies."""
        self.all.clear()
        self._found.clear()

    def of(self, provider: str, model: str, guessed: bool = False) -> list[SetUp]:
        """Return the replies whose pattern matches a call."""
        key = provider, model, guessed
        found = self._found.get(key)
        if found is None:
            found = [each for each in self.all if each.matches(provider, model, guessed)]
            self._found[key] = found
        return found

    def unused(self) -> list[str]:
        """Return the answers that no call used."""
        return [
            f"{each.pattern}: {len(each.waiting)} of {each.given} answers"
            for each in self.all
            if each.waiting and not each.endless
        ]


def next_of(setups: Sequence[SetUp]) -> tuple[SetUp, Reply] | None:
    """Return the next reply, of the first setup that has one left, or None."""
    for each in setups:
        if each.endless:
            return each, each.waiting[0]
        if each.waiting:
            return each, each.waiting.popleft()
    return None


def check_reply(reply: Reply) -> None:
    """Check that a value is a reply.

    Raises:
        TypeError: It is not.
    """
    is_other = callable(reply) or isinstance(reply, (Failure, Damage, ProviderResponse))
    if not is_other and as_embeddings(reply) is None:
        as_answer(reply)


# The text of a stream before a provider's error interrupts it.
_INTERRUPTED = "This answer does not come to its end."


def response_of(
    wire: str, call: FakeCall, setup: SetUp, given: Given, number: int
) -> tuple[Response, Fault | None]:
    """Return the response for a reply, and the fault in it.

    Args:
        wire: `openai`, `openai-responses`, `anthropic` or `google`.
        call: The call to answer.
        setup: The setup of the reply.
        given: The reply, or the result of one that is a function.
        number: Number of the call, for the ids.

    Raises:
        TypeError: It is not a reply.
        ValueError: The wire format cannot express it.
    """
    if isinstance(given, ProviderResponse):
        return given.served, None
    fault = given if isinstance(given, (Failure, Damage)) else None
    response = Response(200)
    if fault is None or not replaces_answer(fault):
        said = _INTERRUPTED if isinstance(given, Failure) else given
        answer = as_answer(said.answer if isinstance(said, Damage) else said)
        usage = answer.usage or setup.usage or plausible_usage(call.prompt, answer)
        response = answer_response(wire, call.model, answer, usage, number, stream=call.stream)
    return (response if fault is None else applied(fault, response, wire)), fault


def embeddings_of(
    request: ModelRequest, inputs: Sequence[object], setup: SetUp, given: Given, number: int
) -> tuple[Response, Fault | None]:
    """Return the response for a reply to a call for embeddings, and the fault in it.

    Args:
        request: The parsed request.
        inputs: The inputs to embed.
        setup: The setup of the reply.
        given: The reply, or the result of one that is a function.
        number: Number of the call, for the ids.

    Raises:
        TypeError: The reply has no vectors.
        ValueError: The vectors do not fit the request.
    """
    if isinstance(given, ProviderResponse):
        return given.served, None
    fault = given if isinstance(given, (Failure, Damage)) else None
    if isinstance(fault, Failure):
        return embedding_error(request, fault), fault
    embeddings = Embeddings() if fault is not None else as_embeddings(given)
    if embeddings is None:
        raise TypeError(
            f"{given!r} is no vector: a call for embeddings is answered by a list of numbers, by "
            "one such list for each input, or by ember_testing.Embeddings()"
        )
    tokens = sum(len(str(each)) // 4 + 1 for each in inputs)
    if setup.usage is not None:
        tokens = setup.usage.prompt_tokens
    response = embedding_response(request, inputs, embeddings, tokens, number)
    return (response if fault is None else applied(fault, response, "openai")), fault
