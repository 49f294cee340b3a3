"""`cassette_server`: clients that cannot be patched are recorded and replayed by base URL."""

# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ember_testing import CassetteMiss, cassette, cassette_server
from ember_testing.faults import cut, rate_limit, server_error
from tests.loopback import Received, Reply, serving
from tests.testing.http_clients import LIBRARIES

KEY = "sk-server-0123456789abcdefghij"
AWAY = "https://files.example/a"
SSE = [b"data: %d\n\n" % i for i in range(5)] + [b"data: [DONE]\n\n"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the test's cassette."""
    return tmp_path / "c.sqlite"


def by_socket(base: str, body: object, path: str = "/chat/completions") -> tuple[int, bytes]:
    """Make a call with a raw socket, which is not patched."""
    parts = urlsplit(f"{base}{path}")
    content = json.dumps(body).encode()
    with socket.create_connection((parts.hostname or "", parts.port or 0), 5) as plain:
        head = [
            f"POST {parts.path} HTTP/1.1",
            f"host: {parts.netloc}",
            f"authorization: Bearer {KEY}",
            "content-type: application/json",
            f"content-length: {len(content)}",
        ]
        plain.sendall("\r\n".join([*head, "", ""]).encode() + content)
        response = http.client.HTTPResponse(plain)
        response.begin()
        return response.status, response.read()


def test_client_with_its_own_sockets_is_recorded(path: Path) -> None:
    """The provider gets one request, with the client's key, which is not recorded."""
    with serving() as provider:
        with cassette_server(path, record="new") as server:
            base = server.url(f"{provider.url}/v1")
            assert by_socket(base, {"q": 1}) == (200, b'{"echo": {"q": 1}}')
            assert by_socket(base, {"q": 2}) == (200, b'{"echo": {"q": 2}}')
            assert [call.url for call in server.recorded] == [
                f"{provider.url}/v1/chat/completions"
            ] * 2
        assert provider.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY.encode() not in path.read_bytes()
        with cassette_server(path) as server:
            base = server.url(f"{provider.url}/v1")
            assert by_socket(base, {"q": 2}) == (200, b'{"echo": {"q": 2}}')
            assert by_socket(base, {"q": 1}) == (200, b'{"echo": {"q": 1}}')
            assert len(server.played) == len(provider.received) == 2


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_reads_the_served_answers(library: str, path: Path) -> None:
    """Pieces arrive at once, live and replayed, and a compressed body is passed on unchanged."""

    def answer(request: Received) -> Reply:
        if request.json() == {}:
            return Reply(pieces=SSE, pause=0.02, headers={"content-type": "text/event-stream"})
        return Reply(gzip.compress(request.body), headers={"content-encoding": "gzip"})

    client = LIBRARIES[library]()
    with serving(answer) as provider:
        for record in ("new", None):
            with cassette_server(path, record=record) as server:  # type: ignore[arg-type]  # both
                base = server.url(provider.url)
                pieces = list(client.pieces(base))
                assert b"".join(pieces) == b"".join(SSE)
                # httplib2 reads all of an answer, and aiohttp what has arrived by then.
                assert pieces == SSE or library in ("aiohttp", "httplib2")
                got = client.post(base, {"q": 1}).body
                assert json.loads(got if got[:1] == b"{" else gzip.decompress(got)) == {"q": 1}
        assert len(provider.received) == 2


def test_pieces_pass_on_at_once(path: Path) -> None:
    """The first piece arrives long before the last one; `timing` replays the pauses."""

    def times(url: str) -> Iterator[float]:
        started = time.perf_counter()
        with httpx.stream("POST", url, json={}) as response:
            for _ in response.iter_raw():
                yield time.perf_counter() - started

    with serving(lambda _: Reply(pieces=SSE, pause=0.2)) as provider:
        with cassette_server(path, record="new") as server:
            live = list(times(server.url(provider.url)))
        assert live[0] < live[-1] - 0.6
        with cassette_server(path) as server:
            assert list(times(server.url(provider.url)))[-1] < 0.8
        with cassette_server(path, timing=True) as server:
            assert list(times(server.url(provider.url)))[-1] > 0.8


def test_a_miss_is_an_error_that_says_what_is_missing(path: Path) -> None:
    """The client gets a status that is not retried, and the block raises the miss."""
    with serving() as provider:
        with cassette_server(path, record="new") as server:
            by_socket(server.url(provider.url), {"q": 1})
        with pytest.raises(CassetteMiss, match="nearest: recording 1"):
            with cassette_server(path) as server:
                status, body = by_socket(server.url(provider.url), {"q": 2})
                assert status == 400
                assert "no recording for POST" in json.loads(body)["error"]["message"]
        assert len(provider.received) == 1


def test_broken_answers_are_recordings(path: Path) -> None:
    """A refused connection and an answer that breaks off fail for the client too."""
    with serving(lambda _: Reply(pieces=SSE, cut=True)) as provider:
        for record in ("new", None):
            with cassette_server(path, record=record) as server:  # type: ignore[arg-type]  # both
                with pytest.raises(http.client.IncompleteRead):
                    by_socket(server.url(provider.url), {})
                with pytest.raises((ConnectionError, http.client.HTTPException)):
                    by_socket(server.url("http://127.0.0.1:1"), {})
        assert len(provider.received) == 1


def test_client_that_disconnects_early_is_recorded_so_far(path: Path) -> None:
    """The recording ends where the client disconnected."""
    with serving(lambda _: Reply(pieces=SSE * 20, pause=0.02)) as provider:
        with cassette_server(path, record="new") as server:
            with httpx.stream("POST", server.url(provider.url), json={}) as response:
                next(response.iter_raw())
            patience = time.monotonic() + 5
            while not server.recorded and time.monotonic() < patience:
                time.sleep(0.01)
            assert server.recorded[0].outcome == "closed"


def test_redirects_within_the_provider_lead_to_the_server(path: Path) -> None:
    """A redirect within the provider points back at the server; one to another host is kept.

    A HEAD is complete after its headers, and `Expect` is not forwarded.
    """

    def answer(request: Received) -> Reply:
        place = {"/old": "/new?a=1", "/whole": f"{provider.url}/new?a=1", "/away": AWAY}
        if location := place.get(request.path):
            return Reply(status=307, headers={"location": location})
        assert "expect" not in request.headers
        return Reply(b"new")

    with serving(answer) as provider:
        for record in ("new", None):
            with cassette_server(path, record=record) as server:  # type: ignore[arg-type]  # both
                base = server.url(provider.url)
                with httpx.Client(follow_redirects=True) as client:
                    for place in ("/old", "/whole"):
                        response = client.get(f"{base}{place}", headers={"expect": "100-continue"})
                        assert response.text == "new"
                        assert str(response.url) == f"{base}/new?a=1"
                    assert client.head(f"{base}/new").status_code == 200
                    away = client.get(f"{base}/away", follow_redirects=False)
                    assert away.headers["location"] == AWAY
                calls = [*server.recorded, *server.played]
                assert [call.outcome for call in calls] == ["complete"] * 6
        assert len(provider.received) == 6


def test_faults_and_repeats_work_over_the_server(path: Path) -> None:
    """A fault applies to the call of its number; the settings are those of `cassette`."""
    with serving() as provider:
        with cassette_server(path, record="new") as server:
            for n in range(2):
                by_socket(server.url(provider.url), {"q": n})
        faults = {1: rate_limit(retry_after=1), 3: server_error(), 4: cut(1)}
        with cassette_server(path, faults=faults, repeats="last") as server:
            base = server.url(provider.url)
            assert [by_socket(base, {"q": 0})[0] for _ in range(3)] == [429, 200, 500]
            with pytest.raises(http.client.IncompleteRead):
                by_socket(base, {"q": 0})


def test_concurrent_requests_get_their_own_answers(path: Path) -> None:
    """Threads and tasks each get their own answer, and a connection serves several calls."""
    with serving() as provider:
        with cassette_server(path, record="new") as server, ThreadPoolExecutor(8) as pool:
            base = server.url(provider.url)
            list(pool.map(lambda n: by_socket(base, {"q": n}), range(40)))
            assert len(server.recorded) == 40

    async def ask(base: str) -> list[int]:
        async with httpx.AsyncClient() as client:
            answers = await asyncio.gather(
                *(client.post(f"{base}/chat/completions", json={"q": n}) for n in range(40))
            )
        return [answer.json()["echo"]["q"] for answer in answers]

    with cassette_server(path) as server:
        assert asyncio.run(ask(server.url(provider.url))) == list(range(40))


def test_a_child_process_is_pointed_at_it(path: Path) -> None:
    """The variables that vendors' packages read point a child at the server."""
    pytest.importorskip("openai", reason="in the extra dev")
    body = {
        "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Paris"}}],
    }  # fmt: skip
    code = """
        import openai
        answer = openai.OpenAI().chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "Where is the Louvre?"}]
        )
        print(answer.choices[0].message.content)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    reply = Reply(json.dumps(body).encode(), headers={"content-type": "application/json"})
    with serving(lambda _: reply) as provider:
        for record in ("new", None):
            with cassette_server(path, record=record) as server:  # type: ignore[arg-type]  # both
                own = {"OPENAI_BASE_URL": server.url(f"{provider.url}/v1"), "OPENAI_API_KEY": KEY}
                environment = {**os.environ, **server.environment, **own}
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False
                )
                assert done.stdout == "Paris\n", done.stderr
        assert len(provider.received) == 1


def test_provider_names_have_base_urls(path: Path) -> None:
    """Names are Ember's; an unknown one is an error that says what to pass."""
    with cassette_server(path) as server:
        root = f"http://127.0.0.1:{server.port}"
        assert server.url("openai") == f"{root}/https/api.openai.com/v1"
        assert server.url("anthropic") == f"{root}/https/api.anthropic.com"
        assert server.url("https://gateway.example/x/") == f"{root}/https/gateway.example/x"
        assert server.environment["OPENAI_BASE_URL"] == server.url("openai")
        with pytest.raises(ValueError, match="expected a provider's name"):
            server.url("no-provider")
        answer = httpx.post(f"{root}/v1/chat/completions", json={})
        assert (answer.status_code, "names no provider" in answer.text) == (400, True)
    with pytest.raises(ValueError, match="record="), cassette_server(path, record="x"):  # type: ignore[arg-type]  # wrong on purpose
        pass


def test_server_inside_another_recording_sends_once(path: Path, tmp_path: Path) -> None:
    """A server inside another recording sends its requests once, and only it records them."""
    with serving() as provider, cassette(tmp_path / "outer.sqlite", record="new") as outer:
        with cassette_server(path, record="new") as server:
            by_socket(server.url(provider.url), {"q": 1})
            assert (len(server.recorded), len(outer.recorded)) == (1, 0)
        assert len(provider.received) == 1


def test_the_fixture_records_and_replays_with_its_test(
    pytester: pytest.Pytester,
    run: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fixture uses the test's cassette and the run's mode; a miss fails the test."""
    pytester.makepyfile(
        test_it="""
        import json, os, socket, urllib.request
        import pytest

        def ask(url, body):
            # by a child, as clients that no seam reaches are
            import subprocess, sys
            code = (
                "import sys, urllib.request; "
                "r = urllib.request.Request(sys.argv[1], sys.argv[2].encode()); "
                "print(urllib.request.urlopen(r).read().decode())"
            )
            return subprocess.run(
                [sys.executable, "-c", code, url, body], capture_output=True, text=True
            ).stdout

        @pytest.mark.ember_replay
        def test_one(cassette_server):
            base = cassette_server.url(os.environ["PROVIDER"])
            assert json.loads(ask(base, '{"q": 1}')) == {"echo": {"q": 1}}

        @pytest.mark.ember_replay
        def test_missed(cassette_server):
            base = cassette_server.url(os.environ["PROVIDER"])
            if os.environ.get("MORE"):
                ask(base, '{"q": 2}')
        """
    )
    with serving() as provider:
        monkeypatch.setenv("PROVIDER", provider.url)
        run(None, "--ember-record").assert_outcomes(passed=2)
        assert len(provider.received) == 1
        run().assert_outcomes(passed=2)
        monkeypatch.setenv("MORE", "1")
        result = run()
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*no recording for POST*", "*--ember-record*test_missed*"])
        assert len(provider.received) == 1


def test_the_command_serves_until_it_is_interrupted(path: Path) -> None:
    """`ember-cassettes serve` prints base URLs, records, replays, and ends with the misses."""

    def run(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ember_testing.cli", "serve", str(path), *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )

    def base(process: subprocess.Popen[str], provider: str) -> str:
        assert process.stdout is not None
        for line in process.stdout:
            if "OPENAI_BASE_URL" in line:
                root = line.split("=", 1)[1].split("/https/")[0]
                return f"{root}/{provider.replace('://', '/')}"
        raise AssertionError(process.communicate())

    def end(process: subprocess.Popen[str]) -> tuple[int, str]:
        process.send_signal(2)
        output = process.communicate(timeout=20)
        return process.returncode, "".join(output)

    with serving() as provider:
        process = run("--record", "new")
        assert by_socket(base(process, provider.url), {"q": 1})[0] == 200
        code, output = end(process)
        assert (code, "1 recorded" in output) == (0, True), output
        process = run()
        url = base(process, provider.url)
        assert by_socket(url, {"q": 1})[0] == 200
        with suppress(OSError):
            assert by_socket(url, {"q": 2})[0] == 400
        code, output = end(process)
        assert (code, "no recording for POST" in output) == (1, True), output
        assert len(provider.received) == 1
