"""What a faked call costs above httpx's own `MockTransport`, with one model and with fifty.

respx, with one route, is measured beside it.

    python tests/benchmarks/fakes.py [--rounds 7] [--calls 500]

Both answer the same bytes to the same client of Ember's, in turn in one process; the table gives
the median of the rounds in microseconds. The bars are 100 above for a whole answer, and 200 for a
streamed one.
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
import respx

from ember.api import models
from ember_testing import fake_model
from ember_testing.wires import answer_response
from ember_testing.wires.answer import Answer, plausible_usage

PROMPT = "What is the capital of France?"


@contextlib.contextmanager
def mock_transport() -> Iterator[None]:
    """The least that can answer: a function in the place of the network."""
    answer = Answer("Paris")
    usage = plausible_usage(PROMPT, answer)
    body = answer_response("openai", "gpt-4", answer, usage, 1, stream=False).body
    events = answer_response("openai", "gpt-4", answer, usage, 1, stream=True).body

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
def by_respx() -> Iterator[None]:
    """respx, with one route that answers the same bytes."""
    answer = Answer("Paris")
    usage = plausible_usage(PROMPT, answer)
    body = answer_response("openai", "gpt-4", answer, usage, 1, stream=False).body
    events = answer_response("openai", "gpt-4", answer, usage, 1, stream=True).body

    def reply(request: httpx.Request) -> httpx.Response:
        is_stream = b'"stream":true' in request.content.replace(b" ", b"")
        kind = "text/event-stream" if is_stream else "application/json"
        content = events if is_stream else body
        return httpx.Response(200, content=content, headers={"content-type": kind})

    with (
        mock.patch.dict(os.environ, OPENAI_API_KEY="sk-benchmark"),
        respx.mock(using="httpx") as router,
    ):
        router.route(host="api.openai.com").mock(side_effect=reply)
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
    """Microseconds of the processor a call."""
    with way:
        for _ in range(20):
            ask()  # type: ignore[operator]  # call or stream
        gc.collect()
        gc.disable()
        started = time.process_time()
        for _ in range(calls):
            ask()  # type: ignore[operator]  # call or stream
        elapsed = time.process_time() - started
        gc.enable()
    return elapsed / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=500)
    arguments = parser.parse_args()
    print("| us a call | MockTransport | respx | 1 model | 50 models | 1 above | 50 above | bar |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for ask, bar in ((call, 100), (stream, 200)):
        ways = (mock_transport, by_respx, lambda: faked(1), lambda: faked(50))
        rounds = [
            [measured(way(), ask, arguments.calls) for way in ways] for _ in range(arguments.rounds)
        ]
        bare, other, one, fifty = (statistics.median(each) for each in zip(*rounds, strict=True))
        above = [statistics.median(row[n] - row[0] for row in rounds) for n in (2, 3)]
        figures = (bare, other, one, fifty, *above)
        cells = " | ".join(f"{figure:.0f}" for figure in figures)
        print(f"| {ask.__name__} | {cells} | <= {bar} |", flush=True)
    entered = time.perf_counter()
    for _ in range(50):
        with fake_model():
            pass
    print(f"\nEntering and leaving: {(time.perf_counter() - entered) / 50 * 1e6:.0f} us")


if __name__ == "__main__":
    main()
