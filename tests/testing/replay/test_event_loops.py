"""Event loops: file access never blocks them, and calls keep their order."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing.cassettes import file
from ember_testing.patches import worker
from ember_testing.replay import cassette as standalone
from tests.loopback import Received, Reply, serving

Run = Callable[..., pytest.RunResult]
GONE = "http://127.0.0.1:1"  # nothing listens here: a replay needs no server

# Imported here, outside any event loop, because imports read files; and because a pytest run in
# this process unloads the modules that it imported first.
LOADED = (standalone, file, worker)
pytest.importorskip("blockbuster", reason="in the extra dev")
pytest.importorskip("httpcore2", reason="in the extra dev")
pytest.importorskip("aiohttp", reason="in the extra dev")

CALLS = """
import asyncio, aiohttp, anyio, certifi, httpcore2, httpx, httpx2, pytest, ssl
from blockbuster import blockbuster_ctx

URL = {url!r}
CERTIFICATES = certifi.where()
pytestmark = [pytest.mark.ember_replay, pytest.mark.anyio]

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture(autouse=True)
def blocking_is_an_error():
    with blockbuster_ctx():
        yield

@pytest.fixture(params=[httpx, httpx2])
async def client(request):
    async with request.param.AsyncClient(verify=False) as client:
        yield client

async def test_httpx(client):
    for q in range(3):
        await client.post(URL, json={{"q": q}})
    await asyncio.gather(*(client.post(URL, json={{"q": q}}) for q in range(3)))

async def test_httpx_stream(client):
    async with client.stream("POST", URL + "/stream", json={{}}) as response:
        assert [piece async for piece in response.aiter_raw()] == [b"data: 1\\n\\n"] * 3

async def test_httpx_closed(client):
    async with client.stream("POST", URL + "/stream", json={{}}) as response:
        async for piece in response.aiter_raw():
            break

async def test_tls():
    ssl.create_default_context(cafile=CERTIFICATES)

async def test_aiohttp():
    async with aiohttp.ClientSession() as session:
        for q in range(3):
            async with session.post(URL, json={{"q": q}}) as response:
                assert (await response.json(content_type=None))["echo"] == {{"q": q}}
        async with session.post(URL + "/stream", json={{}}) as response:
            assert b"".join([piece async for piece in response.content.iter_any()]) == (
                b"data: 1\\n\\n" * 3
            )
"""
FAKED = """
async def test_fake(fake_model):
    url = "https://api.openai.com/v1/chat/completions"
    fake_model("gpt-4", "Paris", "Paris")
    for library in (httpx, httpx2):
        async with library.AsyncClient(verify=False) as client:
            answer = await client.post(url, json={"model": "gpt-4", "messages": []})
            assert answer.status_code == 200
"""


def answer(request: Received) -> Reply:
    """Echo the request, or stream three pieces."""
    if request.path == "/stream":
        return Reply(pieces=[b"data: 1\n\n"] * 3, pause=0.05)
    return Reply(b'{"echo": ' + request.body + b"}")


def test_nothing_blocks_an_event_loop(run: Run) -> None:
    """Recorded, replayed and faked calls pass under blockbuster, and a miss is reported as such."""
    with serving(answer) as server:
        module = CALLS.format(url=server.url) + FAKED
        run(module, "--ember-record", "-p", "anyio").assert_outcomes(passed=9)
        run(None, "-p", "anyio").assert_outcomes(passed=9)
        assert len(server.received) == 2 * 8 + 4
    result = run(module.replace("{", '{"more": 1, ', 1).replace('"q": q', '"q": -q'), "-p", "anyio")
    result.stdout.no_fnmatch_line("*BlockingError*")
    result.stdout.fnmatch_lines(["*without a recording*"])


def test_gathered_identical_calls_get_answers_in_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathered identical calls get the answers of their positions, from large and small files."""
    numbers = count(1)

    async def gather(url: str) -> list[str]:
        async with httpx.AsyncClient(verify=False) as client:
            answers = await asyncio.gather(*(client.post(url, json={}) for _ in range(30)))
        return [each.text for each in answers]

    with (
        serving(lambda _: Reply(str(next(numbers)).encode())) as server,
        ember_testing.cassette(path, record="new") as cassette,
    ):
        live = asyncio.run(gather(server.url))
        assert sorted(call.n for call in cassette.recorded) == [*range(1, 31)]
    for largest in (2**20, 0):
        monkeypatch.setattr(file, "_LARGEST_LOADED", largest)
        with ember_testing.cassette(path) as cassette:
            assert asyncio.run(gather(GONE)) == live
            assert [call.n for call in cassette.played] == [*range(1, 31)]


def test_a_small_cassette_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first awaited call uses the worker thread."""
    hops: list[object] = []
    run = worker.run

    async def counted(job: Callable[[], object], *more: Callable[..., None]) -> object:
        hops.append(job)
        return await run(job, *more)

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(verify=False) as client:
            for q in range(10):
                assert (await client.post(url, json={"q": q})).json() == {"echo": {"q": q}}

    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        asyncio.run(ask(server.url))
    monkeypatch.setattr(worker, "run", counted)
    with ember_testing.cassette(path):
        asyncio.run(ask(GONE))
    assert len(hops) == 1


def test_call_cancelled_before_it_is_sent_keeps_its_position(path: Path) -> None:
    """It counts in the recording and in the replay; the next identical call gets its own answer."""

    async def main(url: str) -> None:
        held = threading.Event()
        async with httpx.AsyncClient(verify=False) as client:
            worker.submit(lambda: held.wait(5) and None)
            task = asyncio.create_task(client.post(url, json={"q": 1}))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            held.set()
            assert (await client.post(url, json={"q": 1})).status_code == 200

    with serving(answer) as server, ember_testing.cassette(path, record="new") as cassette:
        asyncio.run(main(server.url))
        assert [call.outcome for call in cassette.recorded] == ["cancelled", "complete"]
        assert len(server.received) == 1
    with ember_testing.cassette(path) as cassette:
        asyncio.run(main(GONE))
        assert len(cassette.played) == 2


def test_calls_under_trio_are_recorded_and_replayed(path: Path) -> None:
    """Calls are recorded and replayed under trio too, in a nursery and cancelled."""
    trio = pytest.importorskip("trio", reason="in the extra dev")

    async def main(url: str) -> list[int]:
        found: list[int] = []
        async with httpx.AsyncClient(verify=False) as client:

            async def ask(q: int) -> None:
                found.append((await client.post(url, json={"q": q})).json()["echo"]["q"])

            async with trio.open_nursery() as nursery:
                for q in range(5):
                    nursery.start_soon(ask, q)
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.post(url, json={"q": 9})
        return sorted(found)

    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        assert trio.run(main, server.url) == [*range(5)]
    with ember_testing.cassette(path):
        assert trio.run(main, GONE) == [*range(5)]


def test_an_awaited_answer_is_on_disk_when_its_caller_has_it(path: Path) -> None:
    """A process killed as soon as its caller has the answer loses no recording."""
    code = """
        import asyncio, os, sys
        import httpx
        import ember_testing

        async def main():
            async with httpx.AsyncClient(verify=False) as client:
                for q in range(5):
                    await client.post(sys.argv[1], json={"q": q})
                os._exit(9)

        with ember_testing.cassette(sys.argv[2], record="new"):
            asyncio.run(main())
    """
    with serving(answer) as server:
        command = [sys.executable, "-c", textwrap.dedent(code), server.url, str(path)]
        assert subprocess.run(command, check=False).returncode == 9
    with ember_testing.cassette(path) as cassette:
        for q in range(5):
            httpx.post(GONE, json={"q": q})
        assert len(cassette.played) == 5


def test_miss_of_a_task_without_a_waiter_counts(path: Path) -> None:
    """A miss counts even if it is looked up after its event loop has ended."""

    async def main() -> None:
        held = threading.Event()
        client = httpx.AsyncClient(verify=False)
        worker.submit(lambda: held.wait(5) and None)
        task = asyncio.create_task(client.post(GONE, json={"q": 1}))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        asyncio.get_running_loop().call_later(0, held.set)
        await asyncio.sleep(0.01)

    with pytest.raises(ember_testing.CassetteMiss), ember_testing.cassette(path):
        asyncio.run(main())
