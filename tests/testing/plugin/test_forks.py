"""Forked processes use the test's cassette, and a miss in one of them hangs nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ember_testing.cli import main
from tests.loopback import Loopback, Received, Reply, serving

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
Project = Callable[..., pytest.RunResult]

HEAD = """
import asyncio, multiprocessing, os, queue, threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import ThreadPool
import httpx, pytest

URL = {url!r}
fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.ember_replay

def ask(text):
    with httpx.Client(verify=False) as client:
        return client.post(URL, json={{"q": text}}).text
"""


@pytest.fixture
def server() -> Generator[Loopback]:
    """Answer with the question and a number that no other answer has."""
    numbers = count(1)

    def answer(request: Received) -> Reply:
        return Reply(f"{request.json()['q']} {next(numbers)}".encode())

    with serving(answer) as server:
        yield server


@pytest.fixture
def project(
    pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Run pytest in a child process, which has one thread and may fork."""
    monkeypatch.delenv("EMBER_RECORD", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nember_unused = fail\n")

    def run(body: str | None, *arguments: str) -> pytest.RunResult:
        if body is not None:
            pytester.makepyfile(test_it=HEAD.format(url=server.url) + body)
        options = ("-q", "-p", "no:cacheprovider", "-p", "ember_testing.plugin")
        return pytester.runpytest_subprocess(*options, *arguments, timeout=60)

    return run


FORKING = """
def test_pool(cassette):
    one = ask("parent").split()[0]
    with fork.Pool(3) as pool:
        assert [each.split()[0] for each in pool.map(ask, "abc")] == ["a", "b", "c"]
    assert one == "parent"
    assert len(cassette.played) + len(cassette.recorded) == 4

def test_executor():
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        assert [each.split()[0] for each in pool.map(ask, "xy")] == ["x", "y"]

def test_only_the_child_calls():
    process = fork.Process(target=ask, args=("only",))
    process.start()
    process.join()
    assert process.exitcode == 0

def test_a_child_that_forks():
    if (pid := os.fork()) == 0:
        if (inner := os.fork()) == 0:
            ask("grandchild")
            os._exit(0)
        os.waitpid(inner, 0)
        ask("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--ember-record", "--ember-record=all"])
def test_forked_processes_record_into_one_file_and_replay(
    project: Project, pytester: pytest.Pytester, server: Loopback, mode: str
) -> None:
    """All their calls are kept in one file, replayed and counted as used."""
    if mode.endswith("all"):
        project(FORKING, "--ember-record").assert_outcomes(passed=4)
        server.received.clear()
    project(FORKING, mode).stdout.fnmatch_lines(["*0 replayed, 9 recorded*", "4 passed*"])
    assert len(server.received) == 9
    before = [path.name for path in sorted((pytester.path / "cassettes").rglob("*.*"))]
    assert len(before) == 4
    for options in ((), ("--ember-report", "report.json")):
        result = project(None, *options)
        result.stdout.fnmatch_lines(["*9 replayed, 0 recorded*", "4 passed*"])
    assert len(server.received) == 9
    report = json.loads((pytester.path / "report.json").read_text())
    assert sorted(used["used"] for used in report["cassettes"].values()) == [
        [[1, 1]], [[1, 2]], [[1, 2]], [[1, 4]]
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--report", "report.json", "--yes", "cassettes"])
    assert ended.value.code == 0
    assert [path.name for path in sorted((pytester.path / "cassettes").rglob("*.*"))] == before


@pytest.mark.slow
def test_the_nth_of_identical_requests_gets_the_nth_answer_over_all_processes(
    project: Project, server: Loopback
) -> None:
    """Six processes send the same request at once; each recorded answer is replayed once."""
    body = """
def test_same():
    first = ask("same")
    with fork.Pool(3) as pool:
        found = sorted([first, *pool.map(ask, ["same"] * 6, chunksize=1), ask("same")])
    assert found == [f"same {number}" for number in range(1, 9)]
"""
    project(body, "--ember-record").assert_outcomes(passed=1)
    for _ in range(3):
        project(None).assert_outcomes(passed=1)
    more = body.replace("* 6", "* 7")
    result = project(more)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no further recording for POST*recorded 8, this is call 9*"])
    assert len(server.received) == 8


def test_failing_test_drops_the_recordings_of_its_children(
    project: Project, pytester: pytest.Pytester
) -> None:
    """The calls of its children are dropped like its own."""
    body = """
def test_one():
    with fork.Pool(2) as pool:
        pool.map(ask, "ab")
    assert False
"""
    project(body, "--ember-record").assert_outcomes(failed=1)
    assert not [*(pytester.path / "cassettes").rglob("*.*")]


def test_a_budget_holds_over_forked_processes(project: Project, server: Loopback) -> None:
    """Processes cannot spend what another process has reserved."""
    body = """
def chat(i):
    body = {"model": "gpt-4", "max_tokens": 1000, "messages": [{"role": "user", "content": str(i)}]}
    with httpx.Client(verify=False) as client:
        return client.post(URL + "/v1/chat/completions", json={**body, "q": i}).text

@pytest.mark.filterwarnings("ignore")
def test_one():
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        list(pool.map(chat, range(6)))
"""
    result = project(body, "--ember-record", "--ember-budget", "0.2")
    result.stdout.fnmatch_lines(["*not sent: it may cost*"])
    assert 1 <= len(server.received) <= 3


def test_process_that_outlives_its_test_gets_an_error(project: Project, server: Loopback) -> None:
    """A pool of an earlier test gets an error: that test's cassette is closed."""
    body = """
POOL = []
def test_one():
    POOL.append(ProcessPoolExecutor(1, mp_context=fork))
    assert POOL[0].submit(ask, "x").result().startswith("x")
def test_two():
    with pytest.raises(Exception, match="the test that forked this process is over"):
        POOL[0].submit(ask, "x").result()
    POOL[0].shutdown()
"""
    project(body, "--ember-record", "-k", "test_one").assert_outcomes(passed=1, deselected=1)
    project(None).assert_outcomes(passed=2)
    assert len(server.received) == 1


WAITING = """
def test_pool():
    with fork.Pool(2) as pool:
        pool.map(ask, "abc")

def test_thread_pool():
    with ThreadPool(2) as pool:
        pool.map(ask, "abc")

def test_queue_of_a_thread():
    waiting = queue.Queue()
    def work():
        while True:
            ask(waiting.get())
            waiting.task_done()
    threading.Thread(target=work, daemon=True).start()
    waiting.put("x")
    waiting.join()

def consume(waiting):
    ask(waiting.get())
    waiting.task_done()

def test_queue_of_a_process():
    waiting = fork.JoinableQueue()
    fork.Process(target=consume, args=(waiting,), daemon=True).start()
    waiting.put("x")
    waiting.join()

def test_task():
    async def work(done):
        async with httpx.AsyncClient(verify=False) as client:
            await client.post(URL, json={"q": "x"})
        done.set()
    async def main():
        done = asyncio.Event()
        task = asyncio.create_task(work(done))
        await done.wait()
    asyncio.run(main())

@pytest.fixture
def value():
    done = threading.Event()
    threading.Thread(target=lambda: (ask("x"), done.set())).start()
    done.wait()

def test_fixture(value): pass

@pytest.fixture(scope="module")
def wide_value():
    done = threading.Event()
    threading.Thread(target=lambda: (ask("x"), done.set())).start()
    done.wait()

def test_wide_fixture(wide_value): pass

def test_after(): pass
"""


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_no_test_waits_for_a_thread_task_or_process_with_a_miss(
    project: Project, pytester: pytest.Pytester, handler: Any
) -> None:
    """Each test ends with the miss, and the run continues, as `pytest &` in a script too."""
    pytester.makeconftest("from ember_testing.patches import hangs\nhangs._PATIENCE = 0.4\n")
    before = signal.signal(signal.SIGINT, handler)  # a child ignores what its parent ignores
    try:
        result = project("import warnings\n" + WAITING, "-W", "ignore")
    finally:
        signal.signal(signal.SIGINT, before)
    result.assert_outcomes(failed=5, errors=2, passed=1)
    text = result.stdout.str()
    assert text.count("to record it: pytest --ember-record test_it.py::") >= 6
    assert text.count("waiting for the thread, task or process that met this") == 6


def test_files_shared_by_processes_are_deleted(
    project: Project, pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is left in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    project(FORKING, "--ember-record", "--ember-budget", "9").assert_outcomes(passed=4)
    project(None).assert_outcomes(passed=4)
    assert not [path for path in folder.iterdir() if path.name.startswith("ember-")]
