"""A suite of many tests with a cassette each, beside the same one on httpx's MockTransport.

    python tests/benchmarks/suite.py [--tests 10000] [--rounds 2] [--processes 0 2]

Processor time and wall time of pytest, which has no other plugin but Ember's (and pytest-xdist,
where there are several processes). The bar is 1.3 times the suite on MockTransport.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EACH = 100  # tests of a file
SUITE = """
import httpx, json, pytest

BODY = {{"model": "gpt-4", "messages": [{{"role": "user", "content": "Hi"}}]}}
USAGE = {{"prompt_tokens": 1, "completion_tokens": 1}}
ANSWER = {{"id": "c", "model": "gpt-4-0613", "usage": USAGE,
          "choices": [{{"index": 0, "message": {{"role": "assistant", "content": "Hello"}}}}]}}
{mark}
@pytest.mark.parametrize("i", range({each}))
def test_it(i):
    with httpx.Client({client}) as client:
        answer = client.post("https://api.openai.com/v1/chat/completions", json=BODY).json()
    assert answer["choices"][0]["message"]["content"] == "Hello"
"""
MOCK = "transport=httpx.MockTransport(lambda request: httpx.Response(200, json=ANSWER))"


def make(folder: Path, tests: int) -> dict[str, Path]:
    """Both suites, and a cassette for each test of the one that replays."""
    from commands import exchange

    from ember_testing.replay.session import Session

    suites = {"replay": folder / "replay", "mock": folder / "mock"}
    for name, suite in suites.items():
        suite.mkdir()
        mark = "@pytest.mark.ember_replay" if name == "replay" else ""
        client = "" if name == "replay" else MOCK
        (suite / "pytest.ini").write_text("[pytest]\n")
        for number in range(tests // EACH):
            text = SUITE.format(mark=mark, client=client, each=EACH)
            (suite / f"test_{number:03}.py").write_text(text)
    cassette = folder / "one.sqlite"
    session = Session(cassette, "new")
    message = {"role": "assistant", "content": "Hello"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    choices = [{"index": 0, "message": message}]
    answer = {"id": "c", "model": "gpt-4-0613", "usage": usage, "choices": choices}
    messages = [{"role": "user", "content": "Hi"}]
    exchange(session, {"model": "gpt-4", "messages": messages}, answer)
    session.close(True)
    for number in range(tests // EACH):
        target = suites["replay"] / "cassettes" / f"test_{number:03}"
        target.mkdir(parents=True)
        for i in range(EACH):
            shutil.copyfile(cassette, target / f"test_it[{i}].sqlite")
    return suites


def run(suite: Path, processes: int) -> tuple[float, float]:
    """Processor time and wall time of one run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "ember_testing.plugin"]
    command += ["-p", "xdist", "-n", str(processes)] if processes else []
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, started = _cpu(), time.perf_counter()
    done = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return _cpu() - before, time.perf_counter() - started


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Make the suites, run them in turn, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    print(f"| {options.tests:,} tests | replay, s | MockTransport, s | ratio | bar |")
    print("|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory(prefix="ember-benchmark-") as name:
        suites = make(Path(name), options.tests)
        for processes in options.processes:
            rounds = [
                [run(suites[kind], processes) for kind in ("replay", "mock")]
                for _ in range(options.rounds)
            ]
            where = f"pytest-xdist, {processes} processes" if processes else "one process"
            for number, clock in enumerate(("CPU", "wall")):
                replay, mock = (
                    statistics.median(row[kind][number] for row in rounds) for kind in (0, 1)
                )
                of = statistics.median(row[0][number] / row[1][number] for row in rounds)
                print(f"| {where}, {clock} | {replay:.1f} | {mock:.1f} | {of:.2f} | <= 1.3 |")


if __name__ == "__main__":
    main()
