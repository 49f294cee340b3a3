"""The registry: one provider instance a model, and what each model was used for."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.routing import Route, resolve
from ember.models.schemas import ChatResponse, Chunk, Prompt, UsageStats
from ember.models.streams import AsyncStream, Stream, StreamSource
from ember.providers import base
from ember.providers.base import BaseProvider
from ember.providers.compatible import WIRES
from ember.providers.http import HTTPProvider

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["ModelRegistry", "UsageSummary"]


class UsageSummary(NamedTuple):
    """What one model was used for through one registry.

    Args:
        request_count: Answered requests.
        total_usage: Their tokens and cost, added.
        unpriced_requests: How many of them had no known price; their cost is left out.
    """

    request_count: int
    total_usage: UsageStats
    unpriced_requests: int = 0

    @property
    def cost_usd(self) -> float:
        """The cost of all priced requests in US dollars."""
        return self.total_usage.cost


class ModelRegistry:
    """Calls models and keeps count.

    Every registry has its own provider instances and counts; connections are shared. It may be
    used from any number of threads and event loops at once.

    Args:
        metrics: prometheus_client objects by name, each optional: `model_invocations` (a counter
            with the label model), `invocation_duration` (a histogram of seconds with the label
            model), `model_errors` (labels model and error_type), `model_tokens` (labels model and
            kind) and `model_cost` (US dollars, label model).
    """

    def __init__(self, metrics: Mapping[str, Any] | None = None) -> None:
        self._metrics = dict(metrics or {})
        if unknown := self._metrics.keys() - _METRICS:
            raise ModelProviderError(
                f"metrics has {sorted(unknown)}, which nothing fills: there are "
                f"{', '.join(_METRICS)}"
            )
        # A provider may call this registry while it is made: the lock lets its own thread in again.
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}

    def get_model(self, model: str) -> BaseProvider:
        """The provider instance that serves a model.

        Raises:
            ModelProviderError: Nothing serves it.
        """
        return self._entry(model).provider

    def invoke_model(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """Answer a prompt; the parameters are those of `models`.

        Raises:
            ModelProviderError: The call cannot be made as it is set up.
            ProviderAPIError: The provider failed.
        """
        entry = self._entry(model)
        with _Observed(entry, self._metrics) as observed:
            answer = entry.provider.complete(prompt, entry.wire_id, **params)
            return observed.answered(answer)

    async def invoke_model_async(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """`invoke_model` without blocking the event loop."""
        entry = self._entry(model)
        with _Observed(entry, self._metrics) as observed:
            answer = await _acomplete(entry.provider, prompt, entry.wire_id, params)
            return observed.answered(answer)

    def stream_model(self, model: str, prompt: Prompt, **params: Any) -> Stream:
        """Answer a prompt in pieces; see `invoke_model`.

        What the provider raises comes from the iteration.
        """
        entry = self._entry(model)
        source = _source(entry, prompt, params)
        return Stream(source, lambda: _Observed(entry, self._metrics).ended)

    def astream_model(self, model: str, prompt: Prompt, **params: Any) -> AsyncStream:
        """`stream_model` for an event loop."""
        entry = self._entry(model)
        source = _source(entry, prompt, params)
        return AsyncStream(source, lambda: _Observed(entry, self._metrics).ended)

    def get_usage_summary(self, model: str) -> UsageSummary | None:
        """What a model was used for, by the name that it was called by.

        Returns:
            None before the first answered call.
        """
        entry = self._entries.get(model)
        return entry.summary() if entry is not None else None

    def _entry(self, model: str) -> _Entry:
        entry = self._entries.get(model)
        if entry is not None and entry.generation == base.generation():
            return entry
        route = resolve(model)
        with self._lock:
            entry = self._entries.get(model)
            if entry is None or entry.generation != base.generation():
                # Asked before the provider is made: a registration in between makes it stale.
                generation = base.generation()
                provider = self._provider(model, route)
                usage = entry.usage if entry is not None else _Tally()
                entry = _Entry(model, route.model, provider, generation, usage)
                self._entries[model] = entry
            return entry

    def _provider(self, model: str, route: Route) -> BaseProvider:
        """The model's instance, kept if what it was made of is still what the name means."""
        entry = self._entries.get(model)
        kept = entry.provider if entry is not None else None
        if base.is_known(route.provider):
            same = type(kept) is base.known()[route.provider]
            return kept if kept is not None and same else base.create(route.provider)
        wire = WIRES[route.provider]
        same = isinstance(kept, HTTPProvider) and kept.wire is wire
        return kept if kept is not None and same else HTTPProvider(wire)


_METRICS = (
    "model_invocations",
    "invocation_duration",
    "model_errors",
    "model_tokens",
    "model_cost",
)


class _Tally:
    """The usage of one model, added up without losing any under threads."""

    # So many usages wait before a call adds them up.
    _BATCH = 1000

    def __init__(self) -> None:
        # Appending is atomic: a call leaves its usage here without a lock.
        self._waiting: deque[UsageStats] = deque()
        self._lock = threading.Lock()
        self._requests = 0
        self._unpriced = 0
        self._cost: Decimal | int = 0
        self._tokens = [0] * 6

    def add(self, usage: UsageStats) -> None:
        self._waiting.append(usage)
        if len(self._waiting) >= self._BATCH:
            with self._lock:
                self._fold()

    def summary(self) -> UsageSummary | None:
        with self._lock:
            self._fold()
            if not self._requests:
                return None
            priced = self._requests > self._unpriced
            cost = float(self._cost) if priced else math.nan
            prompt, completion, total, cached, written, reasoning = self._tokens
            usage = UsageStats(prompt, completion, total, cached, written, reasoning, cost)
            return UsageSummary(self._requests, usage, self._unpriced)

    def _fold(self) -> None:
        from decimal import Decimal  # late: loaded with the prices

        waiting, tokens = self._waiting, self._tokens
        while waiting:
            usage = waiting.popleft()
            self._requests += 1
            tokens[0] += usage.prompt_tokens
            tokens[1] += usage.completion_tokens
            tokens[2] += usage.total_tokens
            tokens[3] += usage.cached_tokens
            tokens[4] += usage.cache_write_tokens
            tokens[5] += usage.reasoning_tokens
            if math.isnan(usage.cost):
                self._unpriced += 1
            else:
                self._cost += Decimal(repr(usage.cost))


class _Entry:
    """A model as one registry knows it."""

    __slots__ = ("generation", "model", "provider", "usage", "wire_id")

    def __init__(
        self, model: str, wire_id: str, provider: BaseProvider, generation: int, usage: _Tally
    ) -> None:
        self.model = model
        self.wire_id = wire_id
        self.provider = provider
        self.generation = generation
        self.usage = usage

    def summary(self) -> UsageSummary | None:
        return self.usage.summary()

    def checked(self, response: object) -> ChatResponse:
        """What a provider of the user's own gave back, with what Ember adds."""
        if not isinstance(response, ChatResponse):
            raise ModelProviderError(
                f"{type(self.provider).__name__}.complete() must return a ChatResponse; for "
                f"{self.model!r} it returned {response!r}",
                {"model": self.model, "response": response},
            )
        if isinstance(self.provider, HTTPProvider):
            return response
        provider = response.provider or self.model.partition("/")[0]
        usage, model = response.usage, response.model or self.wire_id
        if math.isnan(usage.cost) and usage.total_tokens:
            from ember.pricing import cost as pricing  # late: prices are read at the first cost

            try:
                cost = pricing.cost(provider, model, usage, requested_model=self.wire_id)
            except ModelProviderError as error:
                error.context["response"] = response  # it is paid for
                raise
            usage = usage.priced(cost)
        return replace(response, usage=usage, provider=provider, model=model)


class _Observed:
    """One call: counts it, times it, and reports it to the metrics."""

    __slots__ = ("_entry", "_metrics", "_started")

    def __init__(self, entry: _Entry, metrics: Mapping[str, Any]) -> None:
        self._entry = entry
        self._metrics = metrics
        self._started = time.perf_counter()

    def __enter__(self) -> _Observed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if isinstance(error, ModelProviderError):
            paid = error.context.get("response")  # answered, but its price is malformed
            if isinstance(paid, ChatResponse):
                self._count(paid.usage)
        if self._metrics:
            self._report(error)

    def answered(self, answer: object) -> ChatResponse:
        """Count an answer."""
        response = self._entry.checked(answer)
        self._count(response.usage)
        return response

    def ended(self, response: ChatResponse, error: BaseException | None) -> None:
        """Count a stream; one that failed counts if the provider had counted anything."""
        if error is None or response.usage.total_tokens:
            self._count(response.usage)
        if self._metrics:
            self._report(error)

    def _count(self, usage: UsageStats) -> None:
        self._entry.usage.add(usage)
        if not self._metrics:
            return
        model = self._entry.model
        if tokens := self._metrics.get("model_tokens"):
            tokens.labels(model=model, kind="prompt").inc(usage.prompt_tokens)
            tokens.labels(model=model, kind="completion").inc(usage.completion_tokens)
        if (cost := self._metrics.get("model_cost")) and not math.isnan(usage.cost):
            cost.labels(model=model).inc(usage.cost)

    def _report(self, error: BaseException | None) -> None:
        model = self._entry.model
        if calls := self._metrics.get("model_invocations"):
            calls.labels(model=model).inc()
        if duration := self._metrics.get("invocation_duration"):
            duration.labels(model=model).observe(time.perf_counter() - self._started)
        if error is not None and (errors := self._metrics.get("model_errors")):
            if isinstance(error, ProviderAPIError):
                error_type: str = error.error_type
            else:
                error_type = type(error).__name__
            errors.labels(model=model, error_type=error_type).inc()


async def _acomplete(
    provider: BaseProvider, prompt: Prompt, model: str, params: Mapping[str, Any]
) -> object:
    acomplete = getattr(provider, "acomplete", None)
    if acomplete is not None:
        return await acomplete(prompt, model, **params)
    # anyio's threads serve asyncio and trio alike; httpx depends on it.
    from anyio.to_thread import run_sync

    return await run_sync(lambda: provider.complete(prompt, model, **params))


def _source(entry: _Entry, prompt: Prompt, params: Mapping[str, Any]) -> StreamSource:
    if isinstance(entry.provider, HTTPProvider):
        return entry.provider.stream(prompt, entry.wire_id, **params)
    return _WholeAnswer(entry, prompt, params)


class _WholeAnswer:
    """The stream of a provider that does not stream: one chunk."""

    def __init__(self, entry: _Entry, prompt: Prompt, params: Mapping[str, Any]) -> None:
        self._entry = entry
        self._prompt = prompt
        self._params = params
        self._response = ChatResponse("")

    def run(self) -> Generator[Chunk]:
        entry = self._entry
        answer = entry.provider.complete(self._prompt, entry.wire_id, **self._params)
        yield self._chunk(answer)

    async def arun(self) -> AsyncGenerator[Chunk]:
        entry = self._entry
        answer = await _acomplete(entry.provider, self._prompt, entry.wire_id, self._params)
        yield self._chunk(answer)

    def response(self) -> ChatResponse:
        return self._response

    def _chunk(self, answer: object) -> Chunk:
        if isinstance(answer, ChatResponse):
            self._response = answer  # for the count, should its price be malformed
        self._response = self._entry.checked(answer)
        return Chunk(self._response.text, self._response.reasoning or "", self._response.raw)
