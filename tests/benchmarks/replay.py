"""What record and replay cost, beside vcrpy, cassetter and httpx's own MockTransport, in one run.

    python tests/benchmarks/replay.py [--rounds 3] [--large 100000] [NAME ...]

Bodies of 2 KB in and out. Each measure runs in a fresh process, `--rounds` times; the table gives
the best round (the machine's other work only ever adds) beside the bar. Peers that are
not installed are said to be so. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

_WORDS = "x" * 1800
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "y" * 1700}}
_USAGE = {"prompt_tokens": 450, "completion_tokens": 425, "total_tokens": 875}
ANSWER = json.dumps(
    {"id": "c", "model": "gpt-4-0613", "choices": [{**_CHOICE, "finish_reason": "stop"}],
     "usage": _USAGE, "pad": "z" * 150}
).encode()  # fmt: skip
FOLDER = Path(os.environ.get("EMBER_BENCHMARK_FOLDER", tempfile.gettempdir()))


def question(i: int) -> dict[str, Any]:
    """The body of the i-th request."""
    message = {"role": "user", "content": f"{i} {_WORDS}"}
    return {"model": "gpt-4", "messages": [message], "max_tokens": 500}


# --- the server ----------------------------------------------------------------------------------


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    try:
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(lines.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(head % len(ANSWER) + ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def server() -> Generator[str]:
    """A provider in a process of its own; its URL."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/chat/completions"
        assert process.stdin is not None
        process.stdin.close()


LONGEST = 120
"""Seconds after which a measure is given up."""
URL = "http://127.0.0.1:9/v1/chat/completions"


# --- the recorders -------------------------------------------------------------------------------


def _ember(path: Path, record: bool) -> AbstractContextManager[Any]:
    import ember_testing

    return ember_testing.cassette(path, record="new" if record else None)


def _vcrpy(path: Path, record: bool) -> AbstractContextManager[Any]:
    import vcr

    recorder = vcr.VCR(
        match_on=["method", "uri", "body"], record_mode="new_episodes" if record else "none"
    )
    return recorder.use_cassette(str(path))


def _cassetter(path: Path, record: bool) -> AbstractContextManager[Any]:
    import cassetter

    return cassetter.use_cassette(
        path,
        record_mode="new_episodes" if record else "none",
        match_on=["method", "uri", "body"],
    )


RECORDERS = {"ember": _ember, "vcrpy": _vcrpy, "cassetter": _cassetter}
PACKAGES = {"ember": "ember_testing", "vcrpy": "vcr", "cassetter": "cassetter"}


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# --- the measures, each in a process of its own --------------------------------------------------


def cassette_of(count: int) -> Path:
    """Ember's cassette of so many calls, made once a run."""
    path = FOLDER / f"{count}.sqlite"
    if not path.exists():
        from ember_testing.patches.exchange import Exchange
        from ember_testing.replay.session import Session
        from ember_testing.wires.response import Request

        session = Session(path.with_suffix(".new"), "new")
        headers = (("content-type", "application/json"),)
        for i in range(count):
            body = json.dumps(question(i), separators=(",", ":"), ensure_ascii=False).encode()
            call = session.answer(Request("POST", URL, headers, body))
            assert isinstance(call, Exchange)
            call.head(200, headers, "HTTP/1.1", "OK")
            call.piece(ANSWER)
            call.finish("complete")
        session.close(True)
        path.with_suffix(".new").rename(path)
    return path


def opening(count: int) -> float:
    """Milliseconds to open and close a cassette."""
    path = cassette_of(count)
    for _ in range(3):
        with _ember(path, False):
            pass

    def work() -> None:
        with _ember(path, False):
            pass

    return min(_seconds(work) for _ in range(20)) * 1e3


def _post_all(client: Any, url: str, numbers: list[int]) -> float:
    bodies = [question(i) for i in numbers]

    def work() -> None:
        for body in bodies:
            client.post(url, json=body).json()

    return _seconds(work) / len(numbers) * 1e3


def mock(calls: int) -> float:
    """Milliseconds a call of MockTransport."""
    import httpx

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=ANSWER))
    with httpx.Client(transport=transport) as client:
        _post_all(client, URL, list(range(50)))
        return min(_post_all(client, URL, list(range(calls))) for _ in range(5))


def replaying(name: str, count: int) -> float:
    """Milliseconds a replayed call, in another order than recorded."""
    import httpx

    path = cassette_of(count) if name == "ember" else FOLDER / f"{name}-{count}.yaml"
    if name != "ember" and not path.exists():
        with server() as url, httpx.Client() as client, RECORDERS[name](path, True):
            _post_all(client, url, list(range(count)))
        path.write_text(path.read_text().replace(url, URL))
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)
    numbers = numbers[:1000]

    def run() -> float:
        with RECORDERS[name](path, False), httpx.Client(verify=False) as client:
            return _post_all(client, URL, numbers)

    return min(
        run() for _ in range(1 if name != "ember" and count > 100 else 30 if count < 100 else 5)
    )


def recording(name: str, count: int) -> dict[str, float]:
    """Milliseconds a recorded call, above plain httpx in the same process; and of the end.

    In batches of fifty, the best of which counts: of the recording those of its second half, so
    that a cost that grew with the number of calls would show.
    """
    import httpx

    found: dict[str, float] = {"call": 1e9, "end": 1e9}
    plain = 1e9
    with server() as url, httpx.Client() as client:
        for turn in range(4):
            batches = [list(range(i, i + 50)) for i in range(0, count, 50)]
            plain = min(plain, *(_post_all(client, url, batch) for batch in batches[:8]))
            path = Path(tempfile.mkdtemp(dir=FOLDER)) / f"{turn}.{name}"
            recorder = RECORDERS[name](path, True)
            recorder.__enter__()
            inside = [_post_all(client, url, batch) for batch in batches]
            end = _seconds(lambda recorder=recorder: recorder.__exit__(None, None, None))
            found["call"] = min(found["call"], *inside[len(inside) // 2 :])
            found["end"] = min(found["end"], end * 1e3 / count)
    return {"call": found["call"] - plain, "end": found["end"]}


def memory(count: int) -> float:
    """Megabytes by which a process grows while it replays all of a cassette."""
    import httpx

    path = cassette_of(count)
    with _ember(path, False), httpx.Client(verify=False) as client:
        _post_all(client, URL, list(range(100)))
        gc.collect()
        before = _resident()
        for i in range(100, count):
            client.post(URL, json=question(i))
        gc.collect()
        return _resident() - before


def _resident() -> float:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def one_call_test(name: str) -> float:
    """Milliseconds of a test of one call: cassette, client and call."""
    import httpx

    path = cassette_of(1) if name == "ember" else FOLDER / f"{name}-1.yaml"
    if name not in ("ember", "httpx") and not path.exists():
        with server() as url, httpx.Client() as client, RECORDERS[name](path, True):
            _post_all(client, url, [0])
        path.write_text(path.read_text().replace(url, URL))
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=ANSWER))

    def work() -> None:
        inside = nullcontext() if name == "httpx" else RECORDERS[name](path, False)
        options: dict[str, Any] = {"transport": transport} if name == "httpx" else {}
        with inside, httpx.Client(**options) as client:
            client.post(URL, json=question(0)).json()

    work()
    return min(_seconds(work) for _ in range(30)) * 1e3


def one_call_of_ember() -> float:
    """The same through Ember's own client."""
    from ember.api import models

    path = FOLDER / "own.sqlite"
    base, options = URL.removesuffix("/chat/completions"), {"api_key": "sk-x"}
    if not path.exists():
        with server() as url:
            base_live = url.removesuffix("/chat/completions")
            with _ember(path, True):
                models("gpt-4", _WORDS, base_url=base_live, **options)

    def work() -> None:
        with _ember(path, False):
            models("gpt-4", _WORDS, base_url=base, **options)

    work()
    return min(_seconds(work) for _ in range(50)) * 1e3


def plugin() -> dict[str, float]:
    """Milliseconds that the plugin adds to the start of pytest and to a test that uses none of it.

    Processor time, since the wall's differs by more than that from run to run; with and without it
    in turn, compiled bytecode in both.
    """
    found: dict[tuple[bool, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        few, many = Path(folder) / "test_few.py", Path(folder) / "test_many.py"
        few.write_text("def test_one(): pass\n")
        many.write_text("".join(f"def test_{i}(): pass\n" for i in range(1000)))
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(40):
            for path in (few, many) if turn < 8 else (few,):
                for chosen in ((), ("-p", "ember_testing.plugin")):
                    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
                    before = _used_by_children()
                    subprocess.run(
                        [*command, *chosen, str(path)],
                        env=environment,
                        cwd=folder,
                        check=True,
                        stdout=subprocess.DEVNULL,
                    )
                    taken = (_used_by_children() - before) * 1e3
                    found.setdefault((bool(chosen), path.name), []).append(taken)
    best = {key: statistics.median(values) for key, values in found.items()}
    start = best[True, few.name] - best[False, few.name]
    thousand = best[True, many.name] - best[False, many.name]
    return {"start": start, "test": (thousand - start) / 999}


def _used_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- the table -----------------------------------------------------------------------------------


def _measure(expression: str, rounds: int) -> Any:
    """The best of several rounds, each in a fresh process."""
    results: list[Any] = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--measure", expression]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return f"more than {LONGEST} s"
        if result.returncode:
            return result.stderr.strip().splitlines()[-1][:60]
        results.append(json.loads(result.stdout))
    if isinstance(results[0], dict):
        return {name: min(each[name] for each in results) for name in results[0]}
    return min(results)


def _show(what: str, value: Any, bar: str = "") -> None:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    print(f"| {what} | {text} | {bar and f'<= {bar}'} |", flush=True)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(PACKAGES[name]) is not None


def table(names: list[str], rounds: int, large: int) -> None:
    """Run the measures and print them."""

    def is_selected(name: str) -> bool:
        return not names or name in names

    print("| ms unless said otherwise | measured | bar |\n|---|---:|---|")
    if is_selected("opening"):
        for count in (5000, large):
            _show(
                f"opening and closing a cassette of {count:,}",
                _measure(f"opening({count})", rounds),
                "1",
            )
    if is_selected("replaying"):
        floor = _measure("mock(1000)", rounds)
        _show("a call through MockTransport", floor)
        for count in (10, 5000, large):
            found = _measure(f"replaying('ember', {count})", rounds)
            _show(f"ember: a replayed call of {count:,}, above it", found - floor, "0.10")
        for name in ("vcrpy", "cassetter"):
            for count in (10, 300):
                found = "not installed"
                if _installed(name):
                    found = _measure(f"replaying({name!r}, {count})", 1)
                    found = found - floor if isinstance(found, float) else found
                _show(f"{name}: a replayed call of {count:,}, above it", found)
    if is_selected("recording"):
        for name in RECORDERS:
            for count in (200, 1000) if name == "ember" else (200,):
                if not _installed(name):
                    _show(f"{name}: a recorded call", "not installed")
                    continue
                found = _measure(f"recording({name!r}, {count})", rounds)
                if isinstance(found, str):
                    _show(f"{name}: a recorded call", found)
                    continue
                bar = "0.25" if name == "ember" else ""
                _show(f"{name}: a recorded call of {count}, above httpx", found["call"], bar)
                _show(f"{name}: what its end takes, a call", found["end"])
    if is_selected("memory"):
        _show(f"ember: MB more after {large:,} replayed", _measure(f"memory({large})", 1), "10")
    if is_selected("one-call"):
        _one_call(rounds)


def _one_call(rounds: int) -> None:
    """What a test with one call takes, its client and its cassette made for it."""
    for name in ("httpx", *RECORDERS):
        found = "not installed"
        if name == "httpx" or _installed(name):
            found = _measure(f"one_call_test({name!r})", rounds)
        title = "MockTransport" if name == "httpx" else name
        _show(
            f"{title}: a one-call test with httpx.Client()",
            found,
            "1" if name == "ember" else "",
        )
    _show(
        "ember: a one-call test with Ember's client",
        _measure("one_call_of_ember()", rounds),
        "1",
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="opening replaying recording memory one-call plugin"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if options.serve:
        asyncio.run(_serve())
    elif options.measure:
        name, _, arguments = options.measure.partition("(")
        values = json.loads(f"[{arguments[:-1]}]".replace("'", '"').lower())
        print(json.dumps(globals()[name](*values)))
    else:
        with tempfile.TemporaryDirectory(prefix="ember-benchmark-") as folder:
            os.environ["EMBER_BENCHMARK_FOLDER"] = folder
            table(options.names, options.rounds, options.large)


if __name__ == "__main__":
    main()
