"""`UsageStats`, `ChatResponse` and the errors as values."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.api.exceptions import (
    ERROR_TYPES,
    EmberError,
    ModelProviderError,
    ProviderAPIError,
)
from ember.api.models.schemas import ChatResponse, UsageStats

COSTS = st.integers(0, 10**9).map(lambda units: units / 10**9)


def test_usage_has_both_items_and_attributes() -> None:
    """`usage["x"]` and `usage.x` are the same; the error for an unknown name lists all."""
    usage = UsageStats(prompt_tokens=12, completion_tokens=47)
    assert usage["prompt_tokens"] == usage.prompt_tokens == 12
    assert usage.total_tokens == 59
    assert dict(usage)["completion_tokens"] == 47
    with pytest.raises(KeyError, match="'tokens' is not a usage field; there are prompt_tokens"):
        usage["tokens"]


def test_unknown_cost_is_valid_json() -> None:
    """An unknown cost is nan as a number and null in JSON."""
    usage = UsageStats(1, 2)
    assert math.isnan(usage.cost)
    assert json.loads(json.dumps(usage.as_dict()))["cost"] is None


def test_usages_of_unknown_cost_are_equal() -> None:
    """Two usages with the same counts and no known cost are equal, also after pickling."""
    usage = UsageStats(1, 2)
    assert pickle.loads(pickle.dumps(usage)) == usage
    assert hash(pickle.loads(pickle.dumps(usage))) == hash(usage)
    assert usage != UsageStats(1, 2, cost=0.0)


@given(st.lists(COSTS, min_size=1, max_size=50), st.randoms())
def test_costs_add_exactly_in_any_order(costs: list[float], order: random.Random) -> None:
    """`sum` of usages is the exact decimal sum of their costs, whatever their order."""
    usages = [UsageStats(1, 1, cost=cost) for cost in costs]
    order.shuffle(usages)
    exact = sum(round(cost * 10**9) for cost in costs) / 10**9
    assert sum(usages, UsageStats(cost=0.0)).cost == exact
    assert sum(usages).prompt_tokens == len(costs)  # type: ignore[union-attr]  # sum may give 0


def test_unknown_costs_are_left_out_of_a_sum() -> None:
    """A sum adds the known costs: unknown ones do not turn it into nan."""
    assert sum([UsageStats(1, 1, cost=0.5), UsageStats(1, 1)], UsageStats()).cost == 0.5
    assert math.isnan((UsageStats(1, 1) + UsageStats(1, 1)).cost)


def test_values_are_frozen_and_slotted() -> None:
    """A response cannot be changed, and has slots instead of a `__dict__`."""
    response = ChatResponse(data="Paris", usage=UsageStats(1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        response.data = "London"  # type: ignore[misc]  # what must fail
    assert not hasattr(response, "__dict__")
    assert response.text == response.data == str(response) == "Paris"
    assert pickle.loads(pickle.dumps(response)) == response


def test_every_error_type_knows_whether_to_retry() -> None:
    """Exactly six error types are retryable; running out of credit is not one of them."""
    retryable = {t for t in ERROR_TYPES if ProviderAPIError("x", {"error_type": t}).retryable}
    assert retryable == {
        "rate_limit",
        "overloaded",
        "server",
        "timeout",
        "connection",
        "incomplete_stream",
    }


def test_failure_after_delivered_text_is_not_retryable() -> None:
    """A failure after text was delivered is not retryable: the text would repeat."""
    error = ProviderAPIError("cut", {"error_type": "incomplete_stream", "partial_text": "Once"})
    assert not error.retryable


def test_errors_pickle_with_their_cause() -> None:
    """An error pickles with its message, context, wait and cause."""
    error = ProviderAPIError("slow down", {"error_type": "rate_limit"}, None, 2.5)
    error.__cause__ = ValueError("why")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.context, copy.retry_after) == ("slow down", error.context, 2.5)
    assert copy.retryable
    assert repr(copy.__cause__) == "ValueError('why')"


def test_cause_that_cannot_be_pickled_is_dropped() -> None:
    """A cause that cannot be pickled is dropped; the error itself still pickles."""
    error = ModelProviderError("no key", {"provider": "openai"})
    error.__cause__ = ValueError(lambda: None)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "no key"
    assert copy.__cause__ is None
    assert isinstance(copy, EmberError)
