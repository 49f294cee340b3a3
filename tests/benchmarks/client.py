"""What a call costs with Ember and with httpx by hand, measured side by side in one run.

    python tests/benchmarks/client.py [--rounds 5] [NAME ...]

Each measure runs in a fresh process, against a server in another one (`server.py`), and in turn
for both; the table gives the median of the rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

PROMPT = "What is the capital of France?"
BODY = {"model": "gpt-4", "messages": [{"role": "user", "content": PROMPT}]}
HEADERS = {"authorization": "Bearer sk-benchmark"}


def _url() -> str:
    return os.environ["OPENAI_BASE_URL"] + "/chat/completions"


# --- the two clients, each as a function of no arguments ----------------------------------------


def _httpx_sync() -> Callable[[], Any]:
    import httpx

    client = httpx.Client(limits=httpx.Limits(max_connections=None), timeout=60)
    url = _url()
    return lambda: client.post(url, headers=HEADERS, json=BODY).json()


def _ember_sync() -> Callable[[], Any]:
    from ember.api import models

    return lambda: models("gpt-4", PROMPT)


def _httpx_async() -> Callable[[], Any]:
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)
    url = _url()

    async def call() -> Any:
        return (await client.post(url, headers=HEADERS, json=BODY)).json()

    return call


def _ember_async() -> Callable[[], Any]:
    from ember.api import models

    return lambda: models.acall("gpt-4", PROMPT)


def _httpx_stream() -> Callable[[], Any]:
    import httpx

    client = httpx.Client(timeout=60)
    url = _url()
    body = BODY | {"stream": True, "stream_options": {"include_usage": True}}

    def call() -> str:
        text: list[str] = []
        rest = b""
        with client.stream("POST", url, headers=HEADERS, json=body) as response:
            for piece in response.iter_bytes():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]" and (choices := json.loads(event[6:])["choices"]):
                        text.append(choices[0]["delta"].get("content", ""))
        return "".join(text)

    return call


def _ember_stream() -> Callable[[], Any]:
    from ember.api import models

    return lambda: "".join([chunk.text for chunk in models.stream("gpt-4", PROMPT)])


SYNC = {"ember": _ember_sync, "httpx": _httpx_sync}
ASYNC = {"ember": _ember_async, "httpx": _httpx_async}
STREAM = {"ember": _ember_stream, "httpx": _httpx_stream}


# --- the measures: each prints one number from a fresh process ----------------------------------


def _import(who: str) -> float:
    started = time.perf_counter()
    if who == "ember":
        import ember.api.models  # noqa: F401
    else:
        import httpx  # noqa: F401
    return (time.perf_counter() - started) * 1e3


def _start(who: str) -> float:
    SYNC[who]()()
    return 0.0  # the parent takes the time


def _first(who: str) -> float:
    import httpx  # noqa: F401

    import ember.api.models  # noqa: F401

    started = time.perf_counter()
    SYNC[who]()()
    return (time.perf_counter() - started) * 1e3


def _median(call: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    for _ in range(count // 10 + 1):
        call()
    times: list[float] = []
    for _ in range(count):
        started = clock()
        call()
        times.append(clock() - started)
    return statistics.median(times) * 1e6


def _sync(who: str) -> float:
    return _median(SYNC[who](), 3000, time.perf_counter)


def _stream(who: str) -> float:
    return _median(STREAM[who](), 60, time.perf_counter)


def _stream_cpu(who: str) -> float:
    return _median(STREAM[who](), 60, time.process_time)


def _threads(who: str, threads: int = 128, each: int = 40) -> float:
    call = SYNC[who]()
    gate = threading.Barrier(threads + 1)

    def work() -> None:
        call()
        gate.wait()
        gate.wait()
        for _ in range(each):
            call()

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    for thread in running:
        thread.join()
    return threads * each / (time.perf_counter() - started)


async def _at_once(call: Callable[[], Any], at_once: int, each: int) -> None:
    async def work() -> None:
        for _ in range(each):
            await call()

    await asyncio.gather(*(work() for _ in range(at_once)))


def _async_cost(who: str, at_once: int, calls: int, clock: Callable[[], float]) -> float:
    """Seconds a call."""

    async def main() -> float:
        call = ASYNC[who]()
        each = max(1, calls // at_once)
        await _at_once(call, at_once, 2)
        started = clock()
        await _at_once(call, at_once, each)
        return (clock() - started) / (each * at_once)

    return asyncio.run(main())


def _async_one(who: str) -> float:
    return _async_cost(who, 1, 2000, time.process_time) * 1e6


def _async_200(who: str) -> float:
    return 1 / _async_cost(who, 200, 4000, time.perf_counter)


def _async_1000(who: str) -> float:
    return _async_cost(who, 1000, 4000, time.process_time) * 1e6


def _memory(who: str) -> float:
    call = SYNC[who]()
    for _ in range(1000):
        call()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _dispatch(threads: int) -> float:
    """Calls a second through a registry whose provider does nothing."""
    from ember.api.models import ModelRegistry
    from ember.api.models.providers import BaseProvider, register_provider
    from ember.api.models.schemas import ChatResponse, UsageStats

    answer = ChatResponse("yes", UsageStats(1, 1, cost=0.0), "m", "null")

    class Null(BaseProvider):
        def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
            return answer

    register_provider("null", Null)
    registry = ModelRegistry()
    each = 160_000 // threads

    def work() -> None:
        for _ in range(each):
            registry.invoke_model("null/m", PROMPT)

    running = [threading.Thread(target=work) for _ in range(threads)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return each * threads / (time.perf_counter() - started)


def _kept(who: str) -> float:
    """Objects known to the garbage collector that a call's result keeps alive, raw body aside."""
    call = SYNC[who]()
    for _ in range(2000):
        call()
    gc.collect()
    before = len(gc.get_objects())
    kept = [call() for _ in range(1000)]
    gc.collect()
    with_results = len(gc.get_objects())
    kept.clear()
    gc.collect()
    after = len(gc.get_objects())
    print(f"  {(after - before) / 1000:.3f} objects a call stay when the result is dropped")
    return (with_results - before) / 1000


def _measured(name: str) -> Callable[[str], float]:
    return {
        "import": _import,
        "start": _start,
        "first": _first,
        "sync": _sync,
        "async": _async_one,
        "threads": _threads,
        "async-200": _async_200,
        "async-1000": _async_1000,
        "stream": _stream,
        "stream-cpu": _stream_cpu,
        "memory": _memory,
        "kept": _kept,
        "dispatch-1": lambda who: _dispatch(1),
        "dispatch-32": lambda who: _dispatch(32),
    }[name]


# name, what, unit, bar as text; a ratio is Ember's figure by httpx's.
TABLE = (
    ("import", "import", "ms", "<= 1.15"),
    ("start", "process start to first answer", "ms", "<= 1.10"),
    ("first", "first call after import", "ms", "<= 10 ms"),
    ("sync", "one sync call, warm, median", "us", "<= 0.65"),
    ("async", "one async call, warm, CPU", "us", "<= 0.75"),
    ("threads", "128 threads", "calls/s", ">= 3.0"),
    ("async-200", "200 async calls at once", "calls/s", ">= 3.0"),
    ("async-1000", "1,000 async calls at once, CPU a call", "us", "<= 1.3 of one"),
    ("stream", "a streamed answer of 500 chunks", "us", "<= 1.1"),
    ("stream-cpu", "the same, CPU", "us", ""),
    ("memory", "resident memory after 1,000 calls", "MB", "<= +4 MB"),
    ("kept", "objects a kept result holds", "", ""),
    ("dispatch-1", "dispatch, null provider, 1 thread", "calls/s", ">= 150,000"),
    ("dispatch-32", "dispatch, null provider, 32 threads", "calls/s", "not lower"),
)
_EMBER_ONLY = {"dispatch-1", "dispatch-32"}


# --- the parent ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _serving() -> Generator[str]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def _run(name: str, who: str, base_url: str) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as where it is installed
    environment |= {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-benchmark"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--measure", name, who],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall = (time.perf_counter() - started) * 1e3
    *notes, figure = done.stdout.splitlines()
    for note in notes:
        print(f"{who}:{note}")
    return wall if name == "start" else float(figure)


def _report(names: list[str], rounds: int) -> None:
    medians: dict[tuple[str, str], float] = {}
    print(f"{'what':42} {'unit':8} {'ember':>9} {'httpx':>9} {'ratio':>6}  bar")
    with _serving() as base_url:
        for name, what, unit, bar in TABLE:
            if names and name not in names:
                continue
            clients = ("ember",) if name in _EMBER_ONLY else ("ember", "httpx")
            figures: dict[str, list[float]] = {who: [] for who in clients}
            for _ in range(rounds if name != "kept" else 1):
                for who in clients:
                    figures[who].append(_run(name, who, base_url))
            for who in clients:
                medians[name, who] = statistics.median(figures[who])
            ember, raw = medians[name, "ember"], medians.get((name, "httpx"))
            shown = f"{raw:9,.1f} {ember / raw:6.2f}" if raw else f"{'':9} {'':6}"
            print(f"{what:42} {unit:8} {ember:9,.1f} {shown}  {bar}", flush=True)
    for who in ("ember", "httpx"):
        one, many = medians.get(("async", who)), medians.get(("async-1000", who))
        if one and many:
            print(f"{who}: CPU a call at 1,000 async against 1: {many / one:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "WHO"), help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    chosen = parser.parse_args()
    if chosen.measure:
        name, who = chosen.measure
        print(_measured(name)(who))
    else:
        _report(chosen.names, chosen.rounds)


if __name__ == "__main__":
    main()
