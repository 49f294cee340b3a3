"""A recording that is killed at any moment loses no finished call."""
# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import ember_testing
from tests.loopback import Reply, serving

ROUNDS = int(os.environ.get("EMBER_KILL_ROUNDS", "10"))
"""For a long run: EMBER_KILL_ROUNDS=200."""

RECORDER = """
import sys, httpx, ember_testing
path, url = sys.argv[1:]
with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as client:
    print("ready", flush=True)
    for i in range(10**6):
        client.post(url, json={"q": i, "pad": "x" * (i * 97 % 5000)})
        print(i, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_kill_9_loses_no_finished_call(tmp_path: Path) -> None:
    """After a kill at a random moment the file is intact and holds every call that had returned."""
    chance = random.Random(20261122)
    total = 0
    with serving(lambda request: Reply(pieces=[request.body[:5], request.body[5:]])) as server:
        for number in range(ROUNDS):
            path = tmp_path / f"{number}.sqlite"
            with subprocess.Popen(
                [sys.executable, "-c", RECORDER, str(path), server.url],
                stdout=subprocess.PIPE,
                text=True,
            ) as recorder:
                assert recorder.stdout is not None
                assert recorder.stdout.readline() == "ready\n"
                # Every other recorder is killed after its first call has returned, however slow
                # the machine is; the others at a random time after the start.
                first = recorder.stdout.readline() if number % 2 else ""
                time.sleep(chance.uniform(0.005, 0.2))
                recorder.kill()
                lines = [first, *recorder.stdout]
                finished = [int(line) for line in lines if line.endswith("\n")]
            check(path, finished)
            total += len(finished)
    assert total >= ROUNDS // 2


def check(path: Path, finished: list[int]) -> None:
    """Replay every finished call from the file, and check the file's integrity."""
    if not path.exists():
        assert not finished
        return
    with (
        ember_testing.cassette(path) as cassette,
        httpx.Client(verify=False) as client,
    ):
        for i in finished:
            body = {"q": i, "pad": "x" * (i * 97 % 5000)}
            answer = client.post("http://127.0.0.1:1", json=body)
            assert answer.json() == body
        assert len(cassette.played) == len(finished)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        (torn,) = connection.execute(
            "select count(*) from calls "
            "where length(response_body) <> (select sum(length(data)) from chunks "
            "where call_id = calls.id)"
        ).fetchone()
        assert torn == 0
        (count,) = connection.execute("select count(*) from calls").fetchone()
    # One more may have been committed before its number was printed.
    assert len(finished) <= count <= len(finished) + 1
    assert not path.with_name(f"{path.name}-journal").exists()


def test_a_half_written_commit_is_rolled_back(tmp_path: Path) -> None:
    """A journal left by a kill during a commit is rolled back before a replay."""
    path = tmp_path / "c.sqlite"
    with serving() as server, ember_testing.cassette(path, record="new"):
        with httpx.Client(verify=False) as client:
            client.post(server.url, json={"q": 1})
    child = os.fork() if hasattr(os, "fork") else pytest.skip("no fork on this system")
    if child == 0:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("pragma cache_size = 1")  # spills half of the transaction to the file
        connection.execute("begin")
        connection.executemany(
            "insert into cassette values (?, ?)", [(f"{i}", "x" * 900) for i in range(500)]
        )
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.with_name("c.sqlite-journal").stat().st_size > 0
    with ember_testing.cassette(path), httpx.Client(verify=False) as client:
        assert client.post("http://127.0.0.1:1", json={"q": 1}).json() == {"echo": {"q": 1}}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.sqlite"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(
            "select count(*) from cassette where value like 'x%'"
        ).fetchone() == (0,)


def test_a_full_disk_is_reported_and_the_answer_is_not_lost(tmp_path: Path) -> None:
    """The caller gets the answer it paid for, no further call is sent, the file stays intact."""
    path = tmp_path / "c.sqlite"
    with serving(lambda _: Reply(b"x" * 200_000)) as server:
        with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as client:
            client.post(server.url, json={"q": 1})
        script = (
            "import resource, signal, sys, httpx, ember_testing\n"
            "path, url = sys.argv[1:]\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
            "with ember_testing.cassette(path, record='new'):\n"
            "    for q in (2, 3):\n"
            "        answer = httpx.post(url, json={'q': q}, verify=False)\n"
            "        print(len(answer.content), flush=True)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script, str(path), server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert [request.json()["q"] for request in server.received] == [1, 2]
    assert result.stdout == "200000\n"
    assert "CassetteError: cannot write the cassette" in result.stderr
    with ember_testing.cassette(path), httpx.Client(verify=False) as client:
        assert len(client.post("http://127.0.0.1:1", json={"q": 1}).content) == 200_000
