"""The registry: one provider instance per model, and the usage of each model."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

# Imported for httpx, which it brings: the first call would wait for it.
import ember.transport.send  # noqa: F401  # pyright: ignore[reportUnusedImport] - as above
from ember.exceptions import EmberError, ModelProviderError, ProviderAPIError
from ember.models.routing import class_for, provider_of, resolve
from ember.models.schemas import ChatResponse, Prompt, UsageStats
from ember.models.streams import AsyncStream, Stream
from ember.providers import base
from ember.providers.arguments import SECRET_PARAMETERS, hide_secret_parameters
from ember.providers.base import BaseProvider

__all__ = ["ModelRegistry", "UsageSummary"]

_logger = logging.getLogger("ember")


class UsageSummary(NamedTuple):
    """The usage of one model through one registry.

    Args:
        request_count: Answered requests.
        total_usage: The sum of their tokens and costs.
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
    """A registry that calls models and counts their usage.

    Every registry has its own provider instances and counts; connections are shared. It can be
    used from several threads and event loops at once.

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
        for name, metric in self._metrics.items():
            _check_metric(name, metric)
        # Reentrant: a provider's constructor may call this registry.
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}

    def get_model(self, model: str) -> BaseProvider:
        """Return the provider instance that serves a model.

        Raises:
            ModelProviderError: No provider serves it.
        """
        return self._entry(model).provider

    def invoke_model(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """Answer a prompt; the parameters are those of `models`.

        Raises:
            ModelProviderError: The call cannot be made as configured.
            ProviderAPIError: The provider failed.
        """
        if not SECRET_PARAMETERS.isdisjoint(params):
            hide_secret_parameters(params)
        entry = self._entry(model)
        with _CallObserver(entry, self._metrics, params) as observer:
            answer = entry.provider.complete(prompt, entry.wire_id, **params)
            return observer.accept(answer)

    async def invoke_model_async(self, model: str, prompt: Prompt, **params: Any) -> ChatResponse:
        """`invoke_model` without blocking the event loop."""
        if not SECRET_PARAMETERS.isdisjoint(params):
            hide_secret_parameters(params)
        entry = self._entry(model)
        with _CallObserver(entry, self._metrics, params) as observer:
            answer = await entry.provider.acomplete(prompt, entry.wire_id, **params)
            return observer.accept(answer)

    def stream_model(self, model: str, prompt: Prompt, **params: Any) -> Stream:
        """Answer a prompt in pieces; see `invoke_model`.

        Errors of the provider are raised by the iteration.
        """
        if not SECRET_PARAMETERS.isdisjoint(params):
            hide_secret_parameters(params)
        entry = self._entry(model)
        source = entry.provider.stream(prompt, entry.wire_id, **params)
        return Stream(source, lambda: _CallObserver(entry, self._metrics, params))

    def astream_model(self, model: str, prompt: Prompt, **params: Any) -> AsyncStream:
        """`stream_model` for an event loop."""
        if not SECRET_PARAMETERS.isdisjoint(params):
            hide_secret_parameters(params)
        entry = self._entry(model)
        source = entry.provider.stream(prompt, entry.wire_id, **params)
        return AsyncStream(source, lambda: _CallObserver(entry, self._metrics, params))

    def get_usage_summary(self, model: str) -> UsageSummary | None:
        """Return the usage of a model, by the name used in its calls.

        Returns:
            None before the first answered call.
        """
        entry = self._entries.get(model)
        return entry.tally.summary() if entry is not None else None

    def total(self) -> UsageSummary:
        """Return the usage of all models together; before any call, zero tokens and cost."""
        summaries = [entry.tally.summary() for entry in self._entries.copy().values()]
        used = [summary for summary in summaries if summary is not None]
        return UsageSummary(
            sum(summary.request_count for summary in used),
            sum((s.total_usage for s in used), UsageStats(cost=math.nan if used else 0.0)),
            sum(summary.unpriced_requests for summary in used),
        )

    def _entry(self, model: str) -> _Entry:
        entry = self._entries.get(model)
        if entry is not None and entry.registered is base.providers:
            return entry
        route = resolve(model)
        with self._lock:
            # Read first: a registration while the provider is created makes the entry stale.
            registered = base.providers
            entry = self._entries.get(model)
            if entry is None or entry.registered is not registered:
                cls = registered.get(route.provider) or class_for(route.provider)
                if entry is not None and entry.cls is cls:
                    provider = entry.provider  # the name still means the same class
                elif route.provider in registered:
                    provider = base.create_provider(cls)
                else:
                    provider = provider_of(route)
                tally = entry.tally if entry is not None else _Tally()
                entry = _Entry(model, route.model, provider, cls, registered, tally)
                self._entries[model] = entry
            return entry


# The labels of each metric, and the method that updates it.
_METRICS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "model_invocations": (("model",), "inc"),
    "invocation_duration": (("model",), "observe"),
    "model_errors": (("model", "error_type"), "inc"),
    "model_tokens": (("model", "kind"), "inc"),
    "model_cost": (("model",), "inc"),
}


def _check_metric(name: str, metric: Any) -> None:
    """Reject a metric whose update would fail after a call, which is then already billed."""
    labels, method = _METRICS[name]
    try:
        fill = getattr(metric.labels(**dict.fromkeys(labels, "")), method)
        if remove := getattr(metric, "remove", None):
            remove(*[""] * len(labels))  # leave no series behind
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelProviderError(
            f"metrics[{name!r}] cannot be filled: {error}; it needs the labels "
            f"{', '.join(labels)} and a method {method}()"
        ) from error
    if not callable(fill):
        raise ModelProviderError(f"metrics[{name!r}] has no method {method}()")


class _Tally:
    """A thread-safe sum of the usage of one model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._unpriced = 0
        self._usage = UsageStats()

    def add(self, usage: UsageStats) -> None:
        with self._lock:
            self._requests += 1
            self._unpriced += usage.cost != usage.cost  # nan
            self._usage += usage

    def summary(self) -> UsageSummary | None:
        with self._lock:
            if not self._requests:
                return None
            return UsageSummary(self._requests, self._usage, self._unpriced)


class _Entry(NamedTuple):
    """A model in one registry: its provider, and the classes registered at its creation."""

    model: str
    wire_id: str
    provider: BaseProvider
    cls: type[BaseProvider]
    registered: Mapping[str, type[BaseProvider]]
    tally: _Tally


class _CallObserver:
    """A call whose usage is counted, timed, logged and reported to the metrics."""

    __slots__ = ("_answer", "_entry", "_metrics", "_params", "_started")

    def __init__(
        self, entry: _Entry, metrics: Mapping[str, Any], params: Mapping[str, Any]
    ) -> None:
        self._entry = entry
        self._metrics = metrics
        self._params = params
        self._answer: ChatResponse | None = None
        self._started = time.perf_counter()

    def __enter__(self) -> _CallObserver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        answer: Any = self._answer
        if isinstance(error, EmberError):
            # There is an answer, but its price is malformed or it does not fit `response_format`.
            answer = error.context.get("response")
        # The type of `parsed`, unknown after isinstance, does not matter here.
        self._record(answer if isinstance(answer, ChatResponse) else None, error)  # pyright: ignore[reportUnknownArgumentType] - as above

    def accept(self, answer: ChatResponse) -> ChatResponse:
        """Complete an answer, which the end of the `with` block counts."""
        self._answer = response = self.complete(answer)
        return response

    def complete(self, answer: ChatResponse) -> ChatResponse:
        """Return an answer with the fields that a custom provider left out."""
        entry = self._entry
        if entry.provider.is_priced:
            return answer
        if not isinstance(answer, ChatResponse):  # pyright: ignore[reportUnnecessaryIsInstance] - providers without types
            raise ModelProviderError(
                f"{type(entry.provider).__name__}.complete() must return a ChatResponse; for "
                f"{entry.model!r} it returned {answer!r}",
                {"model": entry.model, "response": answer},
            )
        provider = answer.provider or entry.model.partition("/")[0]
        usage, model = answer.usage, answer.model or entry.wire_id
        if math.isnan(usage.cost) and usage.total_tokens:
            from ember.pricing import cost as pricing  # late: the first cost loads the prices

            try:
                cost = pricing.cost(provider, model, usage, requested_model=entry.wire_id)
            except ModelProviderError as error:
                error.context["response"] = answer  # it was billed
                raise
            usage = usage.priced(cost)
        completed = replace(answer, usage=usage, provider=provider, model=model)
        response_format = self._params.get("response_format")
        if response_format is None or completed.parsed is not None:
            return completed
        from ember.conversation.python_types import with_parsed  # late: loads the conversations

        return with_parsed(response_format, completed)

    def end(self, response: ChatResponse, error: BaseException | None) -> None:
        """Count a stream; a failed one only if the provider had reported usage."""
        is_counted = error is None or bool(response.usage.total_tokens)
        self._record(response, error, is_counted)

    def _record(
        self, response: ChatResponse | None, error: BaseException | None, is_counted: bool = True
    ) -> None:
        usage = response.usage if response is not None and is_counted else None
        if usage is not None:
            self._entry.tally.add(usage)
        if self._metrics:
            self._fill_metrics(usage, error)
        if _logger.isEnabledFor(logging.INFO):
            self._log(response, error)

    def _log(self, response: ChatResponse | None, error: BaseException | None) -> None:
        """Log one line per call, without prompts and keys."""
        context: Mapping[str, Any] = getattr(error, "context", {})
        status = context.get("status_code") or ("200" if error is None else "-")
        usage = response.usage if response is not None else UsageStats()
        _logger.info(
            "%s: %s%s in %.0f ms, %d + %d tokens, %s, request %s",
            self._entry.model,
            status,
            "" if error is None else f" {context.get('error_type', type(error).__name__)}",
            (time.perf_counter() - self._started) * 1000,
            usage.prompt_tokens,
            usage.completion_tokens,
            "unknown cost" if math.isnan(usage.cost) else f"${usage.cost:.6f}",
            (response.request_id if response is not None else context.get("request_id")) or "-",
        )

    def _fill_metrics(self, usage: UsageStats | None, error: BaseException | None) -> None:
        model, metrics = self._entry.model, self._metrics
        if usage is not None and (tokens := metrics.get("model_tokens")):
            tokens.labels(model=model, kind="prompt").inc(usage.prompt_tokens)
            tokens.labels(model=model, kind="completion").inc(usage.completion_tokens)
        if usage is not None and (cost := metrics.get("model_cost")) and not math.isnan(usage.cost):
            cost.labels(model=model).inc(usage.cost)
        if calls := metrics.get("model_invocations"):
            calls.labels(model=model).inc()
        if duration := metrics.get("invocation_duration"):
            duration.labels(model=model).observe(time.perf_counter() - self._started)
        if error is not None and (errors := metrics.get("model_errors")):
            error_type: str = type(error).__name__
            if isinstance(error, ProviderAPIError):
                error_type = error.error_type
            errors.labels(model=model, error_type=error_type).inc()
