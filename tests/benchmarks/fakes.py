"""What a faked call costs above httpx's own `MockTransport`, with one model and with fifty.

    python tests/benchmarks/fakes.py [--rounds 7] [--calls 500]

Both answer the same bytes to the same client of Ember's, in turn in one process; the table gives
the median of the rounds in microseconds. The promise is at most 300 above.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import httpx

from ember.api import models
from ember_testing import fake_model
from ember_testing.wires import streamed, whole
from ember_testing.wires.answer import Answer, plausible_usage

PROMPT = "What is the capital of France?"


@contextlib.contextmanager
def mock_transport() -> Iterator[None]:
    """The least that can answer: a function in the place of the network."""
    answer = Answer("Paris")
    usage = plausible_usage(PROMPT, answer)
    body = whole("openai", "gpt-4", answer, usage, 1).pieces[0]
    events = b"".join(streamed("openai", "gpt-4", answer, usage, 1).pieces)

    def handler(request: httpx.Request) -> httpx.Response:
        if b'"stream": true' in request.content or b'"stream":true' in request.content:
            return httpx.Response(
                200, content=events, headers={"content-type": "text/event-stream"}
            )
        return httpx.Response(200, content=body, headers={"content-type": "application/json"})

    transport = httpx.MockTransport(handler)
    with (
        mock.patch.dict(os.environ, OPENAI_API_KEY="sk-benchmark"),
        mock.patch.object(httpx.Client, "_transport_for_url", return_value=transport),
    ):
        yield


@contextlib.contextmanager
def faked(number: int) -> Iterator[None]:
    """A fake with so many models."""
    with fake_model() as fake:
        for other in range(number - 1):
            fake(f"gpt-4.1-number-{other}", lambda call: "another")
        fake("gpt-4", lambda call: "Paris")
        yield


def call() -> None:
    """One plain call."""
    assert models("gpt-4", PROMPT).text == "Paris"


def stream() -> None:
    """One streamed call."""
    with models.stream("gpt-4", PROMPT) as pieces:
        assert "".join(chunk.text for chunk in pieces) == "Paris"


def measured(way: contextlib.AbstractContextManager[None], ask: object, calls: int) -> float:
    """Microseconds a call."""
    with way:
        for _ in range(20):
            ask()  # type: ignore[operator]  # call or stream
        gc.collect()
        gc.disable()
        started = time.perf_counter()
        for _ in range(calls):
            ask()  # type: ignore[operator]  # call or stream
        elapsed = time.perf_counter() - started
        gc.enable()
    return elapsed / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=500)
    arguments = parser.parse_args()
    print(
        f"{'':>8} {'MockTransport':>14} {'1 model':>9} {'50 models':>10} {'above':>7} {'above':>7}"
    )
    for ask in (call, stream):
        rounds = [
            [measured(way, ask, arguments.calls) for way in (mock_transport(), faked(1), faked(50))]
            for _ in range(arguments.rounds)
        ]
        bare, one, fifty = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{ask.__name__:>8} {bare:>14.0f} {one:>9.0f} {fifty:>10.0f} {one - bare:>7.0f} "
            f"{fifty - bare:>7.0f}"
        )
    entered = time.perf_counter()
    for _ in range(50):
        with fake_model():
            pass
    print(f"entering and leaving: {(time.perf_counter() - entered) / 50 * 1e6:.0f} us")


if __name__ == "__main__":
    main()
