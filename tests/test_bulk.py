"""Bulk work on an engine made for it: a binding goes to the workers of a real Dask cluster."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from decimal import Decimal

import pytest

from ember.api import models
from ember.api.exceptions import EmberError, ProviderAPIError
from ember.api.models.schemas import ChatResponse
from tests.loopback import Received, Reply, serving
from tests.ways import completion

dask_bag = pytest.importorskip("dask.bag", reason="the extra `bulk` is not installed")
distributed = pytest.importorskip("distributed", reason="the extra `bulk` is not installed")

PROMPTS = [f"Question {number}" for number in range(10_000)]
REFUSED = {f"Question {number}" for number in range(7, 10_000, 1000)}


def answering(received: Received) -> Reply:
    """Answers each prompt with itself, as many prompt tokens as its number; refuses a few."""
    (message,) = received.json()["messages"]
    prompt = message["content"]
    if prompt in REFUSED:
        error = {"message": "too many requests", "type": "rate_limit_error"}
        return Reply(json.dumps({"error": error}).encode(), status=429)
    number = int(prompt.rpartition(" ")[2])
    usage = {"prompt_tokens": number, "completion_tokens": 3, "total_tokens": number + 3}
    return Reply(json.dumps(completion(prompt) | {"usage": usage}).encode())


def test_ten_thousand_prompts_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every prompt has its answer or its error, though a worker is killed; the sums are exact."""
    caplog.set_level(logging.CRITICAL, "distributed")  # it tells of the worker that is killed
    with serving(answering) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-bulk")
        ask = models.instance("gpt-4", temperature=0)

        def answered(prompt: str) -> tuple[str, ChatResponse | EmberError]:
            try:
                return prompt, ask(prompt)
            except EmberError as error:
                return prompt, error

        with distributed.Client(
            n_workers=2, threads_per_worker=4, dashboard_address=None
        ) as cluster:
            first = next(iter(cluster.run(os.getpid).values()))
            killer = threading.Timer(1.0, os.kill, (first, signal.SIGKILL))
            killer.start()
            work = dask_bag.from_sequence(PROMPTS, npartitions=200).map(answered)
            results = work.compute()
            killer.join()
            assert first not in cluster.run(os.getpid).values()

    assert [prompt for prompt, _ in results] == PROMPTS
    failures = {prompt: error for prompt, error in results if isinstance(error, EmberError)}
    assert failures.keys() == REFUSED
    for error in failures.values():
        assert isinstance(error, ProviderAPIError)
        assert error.error_type == "rate_limit"
    answers = {prompt: r for prompt, r in results if isinstance(r, ChatResponse)}
    assert all(response.text == prompt for prompt, response in answers.items())
    total = sum(response.usage for response in answers.values())
    expected = sum(int(prompt.rpartition(" ")[2]) for prompt in answers)
    assert (total.prompt_tokens, total.completion_tokens) == (expected, 3 * len(answers))
    # gpt-4: 30 and 60 dollars a million tokens.
    cost = (Decimal(expected) * 30 + Decimal(3 * len(answers)) * 60) / 1_000_000
    assert total.cost == float(cost)
    assert len(server.received) >= len(PROMPTS)
