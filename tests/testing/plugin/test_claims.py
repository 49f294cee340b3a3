"""A cassette that several workers or runs record at once: each question is paid once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from itertools import count

import pytest

from tests.loopback import Loopback, Received, Reply, serving

pytestmark = pytest.mark.slow  # several pytest processes at once

HEAD = """
import asyncio, os, threading, time
import httpx, pytest
pytestmark = pytest.mark.ember_replay(cassette="shared")
def ask(text):
    with httpx.Client(verify=False) as client:
        return client.post({url!r}, json={{"q": text}}).text
"""
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "ember_testing.plugin")
Project = Callable[..., "list[str]"]


@pytest.fixture
def server() -> Generator[Loopback]:
    """Answer slowly, with a number that no other answer has."""
    numbers = count(1)

    def answer(request: Received) -> Reply:
        return Reply(f"{request.json()['q']} {next(numbers)}".encode(), delay=0.3)

    with serving(answer) as server:
        yield server


@pytest.fixture
def start(
    pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.Popen[str]]:
    """Start pytest in a child process."""
    monkeypatch.delenv("EMBER_RECORD", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def start(body: str | None, *arguments: str) -> subprocess.Popen[str]:
        if body is not None:
            pytester.makepyfile(test_it=HEAD.format(url=server.url) + body)
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return start


def ended(process: subprocess.Popen[str], *, passed: int) -> None:
    """Wait for a run and check that all tests passed."""
    output, _ = process.communicate(timeout=60)
    assert f"{passed} passed" in output, output
    assert process.returncode == 0, output


def recorded(pytester: pytest.Pytester) -> list[tuple[str, int]]:
    """Return the requests in the shared cassette with their positions."""
    path = pytester.path / "cassettes/shared.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select request_body, n from calls order by id").fetchall()


SAME = """
@pytest.mark.parametrize("i", range(6))
def test_same(i, cassette):
    assert ask("same") == "same 1"
    assert len(cassette.played) + len(cassette.recorded) == 1
"""


@pytest.mark.parametrize("mode", ["--ember-record", "--ember-record=all"])
def test_six_tests_on_three_workers_pay_once(
    start: Callable[..., subprocess.Popen[str]],
    pytester: pytest.Pytester,
    server: Loopback,
    mode: str,
) -> None:
    """The first process sends the request; the others wait and get its answer."""
    ended(start(SAME, mode, "-p", "xdist", "-n3"), passed=6)
    assert len(server.received) == 1
    assert len(recorded(pytester)) == 1
    ended(start(None), passed=6)
    assert len(server.received) == 1


def test_identical_calls_of_one_test_are_separate_recordings(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """Three identical calls of one test are three recordings, in threads and in tasks as well."""
    body = """
def test_in_turn():
    asked = [ask("same") for _ in range(3)]
    assert len(set(asked)) == 3
    assert asked == sorted(asked)

@pytest.mark.parametrize("i", range(2))
def test_tasks(i):
    async def main():
        async with httpx.AsyncClient(verify=False) as client:
            asked = [client.post(URL, json={"q": "task"}) for _ in range(3)]
            return sorted(reply.text[:4] for reply in await asyncio.gather(*asked))
    assert asyncio.run(main()) == ["task"] * 3
""".replace("URL", repr(server.url))
    ended(start(body, "--ember-record", "-p", "xdist", "-n3"), passed=3)
    questions = sorted(request.json()["q"] for request in server.received)
    assert questions == ["same"] * 3 + ["task"] * 3
    assert sorted(n for _, n in recorded(pytester)) == [1, 1, 2, 2, 3, 3]
    ended(start(None, "-p", "xdist", "-n2"), passed=3)
    assert len(server.received) == 6


def test_answer_of_a_failed_test_is_kept_if_another_used_it(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """An answer that another test has used is kept; answers that no other test used are dropped."""
    body = """
def wait_for(name):
    until = time.monotonic() + 20
    while not os.path.exists(name) and time.monotonic() < until:
        time.sleep(0.01)

def test_fails():
    ask("both"), ask("mine")
    open("asked", "w").close()
    wait_for("adopted")
    assert "FIXED" in os.environ

def test_passes():
    wait_for("asked")
    assert ask("both") == "both 1"
    open("adopted", "w").close()
    wait_for("failed")
"""
    first = start(body, "--ember-record", "-k", "test_fails")
    second = start(None, "--ember-record", "-k", "test_passes")
    output, _ = first.communicate(timeout=60)
    assert "1 failed" in output
    assert "error" not in output
    (pytester.path / "failed").touch()
    ended(second, passed=1)
    assert [text for text, _ in recorded(pytester)] == ['{"q":"both"}']
    assert len(server.received) == 2
    ended(start(None, "-k", "test_passes"), passed=1)


def test_claim_of_a_killed_process_passes_to_a_waiting_one(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """If a recorder is killed while it sends, the process that waits sends the request."""
    body = """
def test_one():
    open("begun", "w").close()
    if "HANG" in os.environ:
        threading.Timer(0.1, os.kill, (os.getpid(), 9)).start()
    assert ask("same").startswith("same")
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANG", "1")
        killed = start(body, "--ember-record")
        while not (pytester.path / "begun").exists() and killed.poll() is None:
            time.sleep(0.01)
    ended(start(None, "--ember-record"), passed=1)
    killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert len(recorded(pytester)) == 1
    ended(start(None), passed=1)


def test_two_runs_with_mode_all_lose_nothing(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """Both runs pass, the calls of both are recorded, and a replay of all sends nothing."""
    body = """
@pytest.mark.parametrize("i", range(5))
def test_some(i):
    assert ask("both").startswith("both")
    assert ask(f"own {i}").startswith(f"own {i}")
    if os.environ["RUN"] == "replay":
        ask("only of 0"), ask("only of 1")
    else:
        ask(f"only of {os.environ['RUN']}")
"""
    runs = []
    for number in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUN", number)
            runs.append(start(body, "--ember-record=all"))
    for run in runs:
        ended(run, passed=5)
    sent = len(server.received)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN", "replay")
        ended(start(None), passed=5)
    assert len(server.received) == sent
    with suppress(FileNotFoundError):
        assert not [path for path in (pytester.path / "cassettes").iterdir() if "part" in path.name]


def test_locks_of_dead_processes_are_deleted(
    start: Callable[..., subprocess.Popen[str]],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next process that claims a call deletes them; new locks and those in use stay."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    folder = pytester.path / f"ember-claims-{os.getuid()}"
    folder.mkdir()
    for name in ("dead", "held", "new"):
        (folder / f"1-{name}.lock").touch()
    for name in ("dead", "held"):
        os.utime(folder / f"1-{name}.lock", (1, 1))
    with (folder / "1-held.lock").open("r+") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        ended(start(SAME, "--ember-record"), passed=6)
    assert sorted(path.name for path in folder.glob("*.lock")) == ["1-held.lock", "1-new.lock"]


def test_calls_under_a_stopped_clock_are_all_recorded(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """Workers whose tests freeze the clock at the same time record all their calls."""
    pytest.importorskip("time_machine")
    body = """
import time_machine
@time_machine.travel("2026-01-01", tick=False)
@pytest.mark.parametrize("i", range(6))
def test_frozen(i):
    for text in (f"own {i}", "same", f"other {i}", "same"):
        assert ask(text).rpartition(" ")[0] == text
"""
    for mode in ("--ember-record", "--ember-record=all"):
        ended(start(body, mode, "-p", "xdist", "-n3"), passed=6)
        assert len(recorded(pytester)) == 14
    sent = len(server.received)
    ended(start(None, "-p", "xdist", "-n2"), passed=6)
    assert len(server.received) == sent == 28


def test_run_with_mode_all_keeps_the_calls_of_a_running_one(
    start: Callable[..., subprocess.Popen[str]], pytester: pytest.Pytester, server: Loopback
) -> None:
    """This holds for two overlapping runs with `=all`; the next run after both starts afresh."""
    body = """
def test_first():
    ask("first of " + os.environ["RUN"])

def test_last():
    until = time.monotonic() + 30
    while os.environ["RUN"] == "slow" and not os.path.exists("done") and time.monotonic() < until:
        time.sleep(0.02)
    ask("last")
"""

    def begin(name: str) -> subprocess.Popen[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUN", name)
            return start(body, "--ember-record=all")

    slow = begin("slow")
    while not (pytester.path / "cassettes/shared.sqlite").exists() and slow.poll() is None:
        time.sleep(0.02)
    ended(begin("quick"), passed=2)
    (pytester.path / "done").touch()
    ended(slow, passed=2)
    asked = sorted(text for text, _ in recorded(pytester))
    assert asked == ['{"q":"first of quick"}', '{"q":"first of slow"}', '{"q":"last"}']
    assert len(server.received) == 3
    ended(begin("later"), passed=2)
    assert sorted(text for text, _ in recorded(pytester)) == [
        '{"q":"first of later"}', '{"q":"last"}'
    ]  # fmt: skip
