"""One registry in threads, tasks, event loops, forks and other processes loses nothing."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry, Counter, Histogram

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember.api.models import ModelBinding, ModelRegistry, UsageSummary
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, UsageStats
from tests.loopback import Received, Reply, serving
from tests.ways import KEY, completion, events

ROOT = Path(__file__).parents[3]
# Sums of these as floats are wrong in the last digits.
INPUT, OUTPUT = Decimal("0.1"), Decimal("0.7")  # US dollars per million tokens


@pytest.fixture(autouse=True)
def prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices for this module, and a key."""
    monkeypatch.setenv("EMBER_COST_GPT4_INPUT", str(INPUT))
    monkeypatch.setenv("EMBER_COST_GPT4_OUTPUT", str(OUTPUT))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def hasty_threads() -> Generator[None]:
    """Switch threads as often as possible, to break operations that are not atomic."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def numbered(received: Received) -> Reply:
    """Answer "N" to "N"; the usage depends on N, so the sum shows a missing one."""
    body = received.json()
    text = body["messages"][-1]["content"]
    number = int(text)
    usage = {
        "prompt_tokens": number,
        "completion_tokens": 2 * number + 1,
        "total_tokens": 3 * number + 1,
    }
    if body.get("stream"):
        *chunks, _, _ = events(text)
        last = {"id": "1", "model": "gpt-4", "choices": [], "usage": usage}
        return Reply(pieces=[*chunks, f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode()])
    return Reply(json.dumps(completion(text, model="gpt-4", usage=usage)).encode())


def check(summary: UsageSummary | None, numbers: range) -> None:
    """Check that the summary counts all of these: tokens exactly, cost to a micro-dollar."""
    assert summary is not None
    prompt = sum(numbers)
    output = sum(2 * number + 1 for number in numbers)
    assert summary.request_count == len(numbers)
    assert summary.total_usage.prompt_tokens == prompt
    assert summary.total_usage.completion_tokens == output
    assert summary.total_usage.total_tokens == prompt + output
    assert summary.unpriced_requests == 0
    assert Decimal(repr(summary.cost_usd)) == (prompt * INPUT + output * OUTPUT) / 1_000_000


def metrics() -> tuple[CollectorRegistry, dict[str, Counter | Histogram]]:
    """All metrics that a registry fills, as prometheus_client's objects."""
    collected = CollectorRegistry()

    def counter(name: str, *labels: str) -> Counter:
        return Counter(name, name, labels, registry=collected)

    return collected, {
        "model_invocations": counter("calls", "model"),
        "model_errors": counter("errors", "model", "error_type"),
        "model_tokens": counter("tokens", "model", "kind"),
        "model_cost": counter("cost", "model"),
        "invocation_duration": Histogram("duration", "seconds", ["model"], registry=collected),
    }


# --- threads and tasks --------------------------------------------------------------------------


def test_threads_and_tasks_through_one_registry() -> None:
    """64 threads and 1,000 tasks, plain and streamed: usage, cost and metrics lose nothing."""
    collected, given = metrics()
    registry = ModelRegistry(metrics=given)
    gate = threading.Barrier(64)

    def thread(first: int) -> None:
        gate.wait(30)
        for number in range(first, 640, 64):
            if number % 3:
                answer = registry.invoke_model("gpt-4", str(number), base_url=url, timeout=60)
                assert answer.text == str(number)
            else:
                with registry.stream_model(
                    "gpt-4", str(number), base_url=url, timeout=60
                ) as stream:
                    assert "".join(chunk.text for chunk in stream) == str(number)

    async def tasks() -> None:
        async def one(number: int) -> None:
            if number % 5:
                answer = await registry.invoke_model_async(
                    "gpt-4", str(number), base_url=url, timeout=60
                )
                assert answer.text == str(number)
            else:
                async with registry.astream_model(
                    "gpt-4", str(number), base_url=url, timeout=60
                ) as stream:
                    assert "".join([chunk.text async for chunk in stream]) == str(number)

        await asyncio.gather(*(one(number) for number in range(640, 1640)))

    with serving(numbered) as server:
        url = f"{server.url}/v1"
        with ThreadPoolExecutor(65) as pool:
            running = [pool.submit(thread, first) for first in range(64)]
            running.append(pool.submit(asyncio.run, tasks()))
            for future in running:
                future.result()
        assert len(server.received) == 1640
        assert server.connections <= 64 + 1000

    numbers = range(1640)
    summary = registry.get_usage_summary("gpt-4")
    check(summary, numbers)
    assert summary is not None
    labels = {"model": "gpt-4"}
    value = collected.get_sample_value
    assert value("calls_total", labels) == 1640
    assert value("duration_count", labels) == 1640
    prompt = value("tokens_total", labels | {"kind": "prompt"})
    output = value("tokens_total", labels | {"kind": "completion"})
    assert (prompt, output) == (sum(numbers), sum(2 * number + 1 for number in numbers))
    assert value("cost_total", labels) == pytest.approx(summary.cost_usd)


def test_failures_are_counted_by_kind() -> None:
    """Calls that fail are in the metrics with their error type, and not in the usage."""
    collected, given = metrics()
    registry = ModelRegistry(metrics=given)
    refusal = Reply(b'{"error": {"message": "slow down", "type": "requests"}}', status=429)
    with serving(lambda received: refusal) as server, ThreadPoolExecutor(8) as pool:

        def fail(number: int) -> None:
            with pytest.raises(ProviderAPIError):
                registry.invoke_model("gpt-4", str(number), base_url=server.url)

        list(pool.map(fail, range(40)))
    labels = {"model": "gpt-4"}
    limited = labels | {"error_type": "rate_limit"}
    assert collected.get_sample_value("calls_total", labels) == 40
    assert collected.get_sample_value("errors_total", limited) == 40
    assert registry.get_usage_summary("gpt-4") is None


def test_one_provider_instance_per_model() -> None:
    """Threads that request a new model at the same moment all get the same instance."""
    instances: list[BaseProvider] = []

    class Slow(BaseProvider):
        def __init__(self, api_key: str | None = None) -> None:
            super().__init__(api_key)
            threading.Event().wait(0.02)
            instances.append(self)

        def complete(self, prompt: str, model: str, **kwargs: object) -> ChatResponse:
            return ChatResponse(prompt, UsageStats(1, 1, cost=0.5))

    register_provider("slow-to-make", Slow)
    registry = ModelRegistry()
    gate = threading.Barrier(32)

    def ask(number: int) -> BaseProvider:
        gate.wait(10)
        return registry.get_model(f"slow-to-make/{number % 2}")

    with ThreadPoolExecutor(32) as pool:
        got = list(pool.map(ask, range(32)))
    assert len(instances) == 2
    assert len(set(map(id, got))) == 2


@pytest.mark.usefixtures("hasty_threads")
def test_summary_while_calls_run() -> None:
    """A summary taken at any moment is consistent: its tokens match its requests."""

    class Even(BaseProvider):
        def complete(self, prompt: str, model: str, **kwargs: object) -> ChatResponse:
            return ChatResponse(prompt, UsageStats(3, 4, cost=0.001))

    register_provider("even", Even)
    registry = ModelRegistry()
    over = threading.Event()
    summaries: list[UsageSummary] = []

    def watch() -> None:
        while not over.is_set():
            if summary := registry.get_usage_summary("even/m"):
                summaries.append(summary)

    watching = threading.Thread(target=watch)
    watching.start()

    def work(_: int) -> None:
        for _ in range(500):
            registry.invoke_model("even/m", "Hi")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    over.set()
    watching.join()
    for summary in summaries:
        assert summary.total_usage.prompt_tokens == 3 * summary.request_count
        assert Decimal(repr(summary.cost_usd)) == summary.request_count * Decimal("0.001")
    last = registry.get_usage_summary("even/m")
    assert last is not None
    assert (last.request_count, last.cost_usd) == (4000, 4.0)


# --- event loops --------------------------------------------------------------------------------


def test_event_loops_one_after_the_other() -> None:
    """Two asyncio.run, then trio, then threads with their own loops use one registry."""
    registry = ModelRegistry()

    async def two(first: int) -> None:
        for number in (first, first + 1):
            answer = await registry.invoke_model_async(
                "gpt-4", str(number), base_url=url, timeout=60
            )
            assert answer.text == str(number)

    with serving(numbered) as server:
        url = f"{server.url}/v1"
        asyncio.run(two(0))
        asyncio.run(two(2))
        trio.run(two, 4)
        trio.run(two, 6)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda first: asyncio.run(two(first)), range(8, 24, 2)))
        assert server.settles_at(0)
    check(registry.get_usage_summary("gpt-4"), range(24))


def test_loop_closed_without_its_async_generators() -> None:
    """The next loop works after one that was closed without closing its async generators."""

    async def one() -> str:
        return (await models.acall("gpt-4", "7", base_url=f"{server.url}/v1")).text

    with serving(numbered) as server:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(one()) == "7"
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        assert asyncio.run(one()) == "7"


# --- processes ----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_starts_afresh() -> None:
    """After a fork, parent and child use separate connections and get their own answers."""
    with serving(numbered) as server:
        url = f"{server.url}/v1"
        assert models("gpt-4", "1", base_url=url, timeout=60).text == "1"
        child = os.fork()
        if not child:
            try:
                right = all(
                    models("gpt-4", str(n), base_url=url, timeout=60).text == str(n)
                    for n in range(9)
                )
                right = (
                    right
                    and asyncio.run(models.acall("gpt-4", "3", base_url=url, timeout=60)).text
                    == "3"
                )
            finally:
                os._exit(0 if right else 1)
        for number in range(20, 29):
            assert models("gpt-4", str(number), base_url=url, timeout=60).text == str(number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        # The parent's, the child's, and the child's event loop's.
        assert server.connections == 3


def test_binding_works_in_spawned_processes() -> None:
    """A binding pickles to spawned workers, and gets its key from their environment."""
    with serving(numbered) as server:
        binding = models.instance("gpt-4", base_url=f"{server.url}/v1", temperature=0.2)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(answer_with, [(binding, str(n)) for n in range(6)]) == list("012345")
        assert {received.json()["temperature"] for received in server.received} == {0.2}
        keys = {received.headers["authorization"] for received in server.received}
        assert keys == {f"Bearer {KEY}"}


def answer_with(work: tuple[ModelBinding, str]) -> str:
    """Call the model in a worker."""
    binding, prompt = work
    return binding(prompt).text


LEFT_OPEN = {
    "stream": """
stream = models.stream("gpt-4", "5")
print(next(stream).text)
""",
    "stream-in-a-block": """
with models.stream("gpt-4", "5") as stream:
    print(next(stream).text)
    raise SystemExit
""",
    "stream-in-a-thread": """
import threading
def read():
    global stream
    stream = models.stream("gpt-4", "5")
    print(next(stream).text)
thread = threading.Thread(target=read)
thread.start()
thread.join()
""",
    "astream": """
import asyncio
async def main():
    global stream
    # The first call in a loop loads httpx's modules, which asyncio's debug mode finds slow.
    asyncio.get_running_loop().slow_callback_duration = 60
    stream = models.astream("gpt-4", "5")
    print((await stream.__anext__()).text)
asyncio.run(main())
""",
    "call": """
print(models("gpt-4", "5").text)
""",
    "acall": """
import asyncio
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    print((await models.acall("gpt-4", "5")).text)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("code", LEFT_OPEN.values(), ids=LEFT_OPEN)
def test_interpreter_exits_without_noise(code: str) -> None:
    """An interpreter that exits with a stream or a connection open writes nothing to stderr."""
    with serving(numbered) as server:
        program = f"from ember.api import models{code}"
        process = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            env=os.environ | {"OPENAI_BASE_URL": f"{server.url}/v1"},
            check=False,
        )
        assert process.stderr == ""
        assert (process.returncode, process.stdout) == (0, "5\n")
        assert server.settles_at(0)
