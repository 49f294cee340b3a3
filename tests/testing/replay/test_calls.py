"""Calls of httpx clients are recorded and replayed: sync, async, streamed, in threads."""
# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends

from __future__ import annotations

import asyncio
import gzip
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

import ember_testing
from ember_testing import CassetteMiss
from tests.loopback import Received, Reply, echo, resetting, serving
from tests.testing.chat import client, post

GONE = "http://127.0.0.1:1"  # nothing listens here: a replay needs no server
SSE = [b"data: %d\n\n" % i for i in range(6)] + ["data: é".encode()[:-1], b"\xa9\n\n", b"[DONE]"]


def numbered() -> Any:
    """Return answers that are numbered in the order of the requests."""
    numbers = count(1)
    return lambda request: Reply(json.dumps({"n": next(numbers)}).encode())


def test_replayed_response_equals_the_live_one(path: Path) -> None:
    """Status, reason, headers, bytes and version are the same, and `elapsed` is set."""
    raw = b'{"a": 1e2, "b": 1.50, "c":"\\u00e9"}'

    def answer(request: Received) -> Reply:
        return Reply(raw, status=201, headers={"x-request-id": "r1", "x-ratelimit-tokens": "9"})

    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        live = post(server.url, {"q": 1})
    with ember_testing.cassette(path):
        played = post(GONE, {"q": 1})
    assert played.content == live.content == raw
    assert played.headers.raw == live.headers.raw
    assert (played.status_code, played.reason_phrase) == (201, live.reason_phrase)
    assert played.http_version == live.http_version == "HTTP/1.1"
    assert played.elapsed.total_seconds() >= 0


def test_every_call_of_a_long_recording_has_tokens_and_cost(path: Path) -> None:
    """Provider, tokens and cost of every call are stored, however many there are."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    message = {"role": "assistant", "content": "yes"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"model": "gpt-4-0613", "choices": [choice], "usage": usage}).encode()
    with (
        serving(lambda _: Reply(body)) as server,
        ember_testing.cassette(path, record="new") as cassette,
        client() as sender,
    ):
        for number in range(430):
            asked = {"model": "gpt-4", "messages": [{"role": "user", "content": str(number)}]}
            sender.post(f"{server.url}/v1/chat/completions", json=asked)
    calls = [*cassette.recorded]
    assert len(calls) == 430
    assert {(call.model, call.prompt_tokens, call.text) for call in calls} == {
        ("gpt-4-0613", 3, "yes")
    }
    assert [json.loads(call.body)["messages"][0]["content"] for call in calls] == [
        str(number) for number in range(430)
    ]


def test_every_client_of_the_process_is_recorded(path: Path) -> None:
    """Clients made before or after, sync or async, in threads, and of httpx2 are all recorded."""
    httpx2 = pytest.importorskip("httpx2")

    async def awaited(library: Any, url: str, text: str) -> Any:
        async with library.AsyncClient(verify=False) as sender:
            return (await sender.post(f"{url}/v1", json={"q": text})).json()

    def everything(url: str, before: httpx.Client) -> list[Any]:
        answers = [before.post(f"{url}/v1", json={"q": "before"}).json()]
        answers.append(post(url, {"q": "after"}).json())
        with ThreadPoolExecutor(1) as pool:
            answers.append(pool.submit(post, url, {"q": "thread"}).result().json())
        answers.append(asyncio.run(awaited(httpx, url, "awaited")))
        with httpx2.Client(verify=False) as sender:
            answers.append(sender.post(f"{url}/v1", json={"q": "httpx2"}).json())
        answers.append(asyncio.run(awaited(httpx2, url, "httpx2 awaited")))
        return answers

    methods = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request
    with client() as before:
        with serving() as server, ember_testing.cassette(path, record="new") as cassette:
            live = everything(server.url, before)
            assert len(cassette.recorded) == len(server.received) == 6
        with ember_testing.cassette(path) as cassette:
            assert everything(GONE, before) == live
            assert len(cassette.played) == 6
    assert methods == (
        httpx.HTTPTransport.handle_request,
        httpx.AsyncHTTPTransport.handle_async_request,
    )


def test_each_gathered_prompt_gets_its_own_answer_in_any_order(path: Path) -> None:
    """50 prompts gathered in another order, or sent from threads, each get their own answer."""

    async def gather(url: str, order: list[int]) -> dict[int, int]:
        async with httpx.AsyncClient(verify=False, timeout=30) as sender:
            answers = await asyncio.gather(
                *(sender.post(f"{url}/v1", json={"q": number}) for number in order)
            )
        return dict(zip(order, (each.json()["echo"]["q"] for each in answers), strict=True))

    order = list(range(50))
    with serving() as server, ember_testing.cassette(path, record="new"):
        asyncio.run(gather(server.url, order))
    random.Random(5).shuffle(order)
    with ember_testing.cassette(path):
        assert asyncio.run(gather(GONE, order)) == {number: number for number in order}
    with ember_testing.cassette(path), ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda q: post(GONE, {"q": q}).json()["echo"]["q"], order)
        assert list(answers) == order


def test_identical_concurrent_calls_get_the_answers_of_their_positions(path: Path) -> None:
    """20 identical calls are counted when sent: the first stays first even if it is slowest."""

    def answer(request: Received) -> Reply:
        position = int(request.headers["x-position"])
        return Reply(json.dumps({"p": position}).encode(), delay=0.04 if position % 3 == 0 else 0)

    async def gather(url: str) -> list[int]:
        async with httpx.AsyncClient(verify=False, timeout=30) as sender:
            answers = await asyncio.gather(
                *(
                    sender.post(f"{url}/v1", json={"q": "same"}, headers={"x-position": str(i)})
                    for i in range(20)
                )
            )
        return [each.json()["p"] for each in answers]

    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        assert asyncio.run(gather(server.url)) == list(range(20))
    for _ in range(2):
        with ember_testing.cassette(path):
            assert asyncio.run(gather(GONE)) == list(range(20))


def test_the_nth_identical_call_gets_the_nth_answer_and_no_further(path: Path) -> None:
    """Past the end a call fails with the number of recordings; `repeats="last"` repeats."""
    with serving(numbered()) as server, ember_testing.cassette(path, record="new"):
        assert [post(server.url, {}).json()["n"] for _ in range(3)] == [1, 2, 3]
    with (
        pytest.raises(CassetteMiss, match="recorded 3, this is call 4"),
        ember_testing.cassette(path),
    ):
        assert [post(GONE, {}).json()["n"] for _ in range(3)] == [1, 2, 3]
        post(GONE, {})
    with ember_testing.cassette(path, repeats="last"):
        assert [post(GONE, {}).json()["n"] for _ in range(6)] == [1, 2, 3, 3, 3, 3]
    with serving(numbered()) as server, ember_testing.cassette(path, record="new"):
        assert [post(server.url, {}).json()["n"] for _ in range(4)] == [1, 2, 3, 1]


class TestStreams:
    """Pieces pass through while recording, and are replayed with the same boundaries."""

    @staticmethod
    def read(url: str) -> Iterator[tuple[float, bytes]]:
        """Return seconds and bytes of each piece that arrives."""
        start = time.perf_counter()
        with client() as sender, sender.stream("POST", f"{url}/v1", json={}) as response:
            for piece in response.iter_raw():
                yield time.perf_counter() - start, piece

    @staticmethod
    async def aread(url: str) -> AsyncIterator[bytes]:
        """Like `read`, async."""
        async with (
            httpx.AsyncClient(verify=False) as sender,
            sender.stream("POST", f"{url}/v1", json={}) as response,
        ):
            async for piece in response.aiter_raw():
                yield piece

    def test_pieces_pass_without_delay_and_are_replayed(self, path: Path) -> None:
        """Recording adds no delay; a replay gives the same pieces at once, sync and async."""
        with serving(lambda _: Reply(pieces=SSE, pause=0.03)) as server:
            with ember_testing.cassette(path, record="new"):
                live = list(self.read(server.url))
            assert [piece for _, piece in live] == SSE
            assert live[0][0] < live[-1][0] - 0.15
        with ember_testing.cassette(path):
            played = list(self.read(GONE))
        assert [piece for _, piece in played] == SSE
        assert played[-1][0] < 0.1

        async def collect() -> list[bytes]:
            return [piece async for piece in self.aread(GONE)]

        with ember_testing.cassette(path):
            assert asyncio.run(collect()) == SSE

    def test_timing_replays_the_pauses(self, path: Path) -> None:
        """`timing=True` replays the recorded delays, sync and async."""
        with serving(lambda _: Reply(pieces=SSE[:3], pause=0.05)) as server:
            with ember_testing.cassette(path, record="new"):
                assert len(list(self.read(server.url))) == 3
        with ember_testing.cassette(path, timing=True):
            played = list(self.read(GONE))
        assert played[-1][0] > 0.12  # longer on a busy machine

        async def took() -> float:
            start = time.perf_counter()
            async for _ in self.aread(GONE):
                pass
            return time.perf_counter() - start

        with ember_testing.cassette(path, timing=True):
            assert asyncio.run(took()) > 0.12

    def test_stream_left_early_is_recorded_so_far(self, path: Path) -> None:
        """A reader that stops after two pieces gets them; one that reads on gets an error."""

        def first(url: str, count: int) -> list[bytes]:
            found: list[bytes] = []
            for _, piece in self.read(url):
                found.append(piece)
                if len(found) == count:
                    break
            return found

        with serving(lambda _: Reply(pieces=SSE, pause=0.02)) as server:
            with ember_testing.cassette(path, record="new") as cassette:
                assert first(server.url, 2) == SSE[:2]
                assert cassette.recorded[0].outcome == "closed"
        with ember_testing.cassette(path):
            assert first(GONE, 2) == SSE[:2]
        with pytest.raises(CassetteMiss, match="ends after 2 pieces"), ember_testing.cassette(path):
            first(GONE, 3)

    def test_broken_stream_is_replayed_with_its_error(self, path: Path) -> None:
        """The pieces up to the cut are replayed, then the same error."""

        def broken(url: str) -> tuple[list[bytes], str]:
            found: list[bytes] = []
            with pytest.raises(httpx.RemoteProtocolError) as failure:
                found.extend(piece for _, piece in self.read(url))
            return found, str(failure.value)

        with serving(lambda _: Reply(pieces=SSE[:3], pause=0.02, cut=True)) as server:
            with ember_testing.cassette(path, record="new") as cassette:
                live = broken(server.url)
                assert cassette.recorded[0].outcome == "cut"
        with ember_testing.cassette(path):
            assert broken(GONE) == live

    def test_stream_open_at_the_end_of_the_block_is_recorded_so_far(self, path: Path) -> None:
        """The pieces received when the block ends are recorded, and the stream stays usable."""
        with serving(lambda _: Reply(pieces=SSE, pause=0.01)) as server, client() as sender:
            with ember_testing.cassette(path, record="new"):
                request = sender.build_request("POST", f"{server.url}/v1", json={})
                response = sender.send(request, stream=True)
                pieces = response.iter_raw()
                assert next(pieces) == SSE[0]
            assert list(pieces) == SSE[1:]
            response.close()
        with ember_testing.cassette(path) as cassette:
            for _, piece in self.read(GONE):
                assert piece == SSE[0]
                break
            assert cassette.played[0].outcome == "closed"


def test_connection_errors_are_replayed(path: Path) -> None:
    """Refused and reset connections fail again in the same way, without a connection."""
    with resetting() as url, ember_testing.cassette(path, record="new"):
        with pytest.raises(httpx.TransportError) as reset:
            post(url, {"q": "reset"})
        with pytest.raises(httpx.ConnectError) as refused:
            post(GONE, {"q": "refused"})
    with ember_testing.cassette(path):
        for question, live in (("reset", reset), ("refused", refused)):
            with pytest.raises(type(live.value)) as played:
                post(GONE, {"q": question})
            assert str(played.value) == str(live.value)
            assert played.value.request.url == f"{GONE}/v1"


def test_compressed_answers_are_replayed_compressed_and_stored_readable(path: Path) -> None:
    """The gzip bytes are replayed in their pieces; the file's text column holds plain text."""
    packed = gzip.compress(b'{"text": "plain to read"}')
    pieces = [packed[:10], packed[10:]]
    headers = {"content-encoding": "gzip"}
    with serving(lambda _: Reply(pieces=pieces, pause=0.02, headers=headers)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            assert post(server.url, {}).json() == {"text": "plain to read"}
            assert cassette.recorded[0].response_body == '{"text": "plain to read"}'
    with ember_testing.cassette(path), client() as sender:
        with sender.stream("POST", f"{GONE}/v1", json={}) as response:
            assert list(response.iter_raw()) == pieces
    with ember_testing.cassette(path):
        assert post(GONE, {}).json() == {"text": "plain to read"}


def test_errors_are_kept_only_where_they_are_expected(path: Path) -> None:
    """A 429 is not recorded, with a warning, unless `record_errors=True`."""
    statuses = iter([429, 200, 401])

    def answer(request: Received) -> Reply:
        return Reply(b"{}", status=next(statuses))

    with serving(answer) as server:
        with (
            pytest.warns(ember_testing.RecordingWarning, match="not kept: status 429"),
            ember_testing.cassette(path, record="new"),
        ):
            assert [post(server.url, {}).status_code for _ in range(2)] == [429, 200]
        with ember_testing.cassette(path):
            assert post(GONE, {}).status_code == 200
        with ember_testing.cassette(path, record="new", record_errors=True):
            assert post(server.url, {"key": "wrong"}).status_code == 401
    with ember_testing.cassette(path):
        assert post(GONE, {"key": "wrong"}).status_code == 401


def test_uploads_in_pieces_are_matched_by_their_content(path: Path) -> None:
    """Bodies from generators and multipart forms are sent, recorded and matched."""

    def body() -> Iterator[bytes]:
        yield b'{"q": '
        yield b'"pieces"}'

    async def abody() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    async def awaited(url: str) -> Any:
        async with httpx.AsyncClient(verify=False) as sender:
            return (await sender.post(f"{url}/v2", content=abody())).json()

    def everything(url: str) -> None:
        with client() as sender:
            answer = sender.post(f"{url}/v1", content=body())
            assert answer.json() == {"echo": {"q": "pieces"}}
            form = sender.post(f"{url}/files", files={"f": ("a.txt", b"x")})
            assert b'name="f"' in form.content
        assert asyncio.run(awaited(url)) == {"echo": {"q": "pieces"}}

    with serving() as server, ember_testing.cassette(path, record="new"):
        everything(server.url)
        assert server.received[0].body == b'{"q": "pieces"}'
    with ember_testing.cassette(path):
        everything(GONE)


def test_a_miss_is_not_swallowed(path: Path) -> None:
    """Neither `except Exception` nor a bare except hides it, even in a task or thread."""
    for swallow in (swallow_broadly, swallow_in_thread, swallow_in_task):
        with pytest.raises(CassetteMiss, match="no recording"), ember_testing.cassette(path):
            swallow()


def swallow_broadly() -> None:
    """Swallow every exception."""
    with suppress(BaseException):
        post(GONE, {})


def swallow_in_thread() -> None:
    """Leave the exception in a pool's future."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(post, GONE, {})


def swallow_in_task() -> None:
    """Leave the exception in the results of `gather`."""

    async def run() -> None:
        async with httpx.AsyncClient(verify=False) as sender:
            await asyncio.gather(sender.post(f"{GONE}/v1", json={}), return_exceptions=True)

    asyncio.run(run())


def test_a_miss_names_the_nearest_recording_and_what_to_do(path: Path) -> None:
    """It shows the differing leaves, and the code that records the call."""
    with serving() as server, ember_testing.cassette(path, record="new"):
        for town in ("Paris", "Rome", "Oslo"):
            post(server.url, {"model": "m", "messages": [{"content": f"Where is {town}?"}]})
    with pytest.raises(CassetteMiss) as miss, ember_testing.cassette(path):
        post(GONE, {"model": "n", "messages": [{"content": "Where is Rome?"}]})
    text = str(miss.value)
    assert "nearest: recording 2" in text
    assert '! model: recorded "m", now "n"' in text
    assert 'record="new"' in text
    assert len(text.splitlines()) < 8


def test_rules_changed_after_a_recording_still_find_it(path: Path) -> None:
    """Recordings made before a test ignored a path are still found."""
    with serving() as server, ember_testing.cassette(path, record="new"):
        for i in range(3):
            post(server.url, {"q": i, "run": "monday"})
    with ember_testing.cassette(path, ignore=["run"]):
        assert post(GONE, {"q": 2, "run": "tuesday"}).json()["echo"]["q"] == 2
    with serving() as server, ember_testing.cassette(path, record="new", ignore=["run"]):
        post(server.url, {"q": 1, "run": "friday"})
        post(server.url, {"q": 9, "run": "friday"})
        assert len(server.received) == 1
    with ember_testing.cassette(path, ignore=["run"]):
        assert post(GONE, {"q": 9, "run": "x"}).json()["echo"] == {"q": 9, "run": "friday"}
        assert post(GONE, {"q": 0, "run": "x"}).json()["echo"] == {"q": 0, "run": "monday"}


def test_innermost_cassette_answers_first(tmp_path: Path) -> None:
    """The innermost cassette answers; when it ends, the outer one does, still without network."""
    outer, inner = tmp_path / "outer.sqlite", tmp_path / "inner.sqlite"
    with serving(numbered()) as server:
        with ember_testing.cassette(outer, record="new") as first:
            post(server.url, {})
            with ember_testing.cassette(inner, record="new") as second:
                post(server.url, {})
            post(server.url, {})
            assert (len(first.recorded), len(second.recorded)) == (2, 1)
        with ember_testing.cassette(outer):
            assert post(GONE, {}).json() == {"n": 1}
            with ember_testing.cassette(inner):
                assert post(GONE, {}).json() == {"n": 2}
            with ember_testing.cassette(tmp_path / "third.sqlite", record="new"):
                assert post(server.url, {}).json() == {"n": 4}
            assert post(GONE, {}).json() == {"n": 3}


def test_client_with_a_mock_transport_is_not_recorded(path: Path) -> None:
    """A client with a mock transport is neither recorded nor replayed."""
    mock = httpx.MockTransport(lambda request: httpx.Response(200, text="mocked"))
    with ember_testing.cassette(path) as cassette, httpx.Client(transport=mock) as sender:
        assert sender.get("https://example.com").text == "mocked"
        assert not cassette.played


def test_loopback_calls_go_through_when_allowed(path: Path) -> None:
    """With `allow_loopback=True` the test's server answers, and is not recorded."""
    with serving() as server:
        for record in ("new", None):
            with ember_testing.cassette(path, record=record, allow_loopback=True) as cassette:  # type: ignore[arg-type]  # a loop over literals
                assert post(server.url, {"q": 1}).json() == {"echo": {"q": 1}}
                assert not cassette.played
                assert not cassette.recorded
    assert not path.exists()


def test_a_replayed_call_builds_no_tls_context_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay never loads a CA bundle, even for an https URL."""
    with serving() as server, ember_testing.cassette(path, record="new"):
        post(server.url, {})
    with client() as sender, ember_testing.cassette(path):
        monkeypatch.setattr(
            ssl, "create_default_context", lambda *_, **__: pytest.fail("built one")
        )
        monkeypatch.setattr(ssl, "SSLContext", lambda *_: pytest.fail("built one"))
        assert sender.post(f"{GONE}/v1", json={}).status_code == 200


def test_invalid_setting_is_refused(path: Path) -> None:
    """An invalid value is an error that names it."""
    for arguments in (
        {"record": "once"},
        {"repeats": "always"},
        {"match_on": ["address"]},
        {"match_on": "body"},
        {"ignore": "metadata"},
    ):
        (name, value) = next(iter(arguments.items()))
        with pytest.raises(ValueError, match=f"{name}="), ember_testing.cassette(path, **arguments):  # type: ignore[arg-type]  # wrong on purpose
            pytest.fail(f"accepted {value!r}")


def test_played_and_recorded_list_the_calls(path: Path) -> None:
    """`played` and `recorded` give each call's request and response."""
    with serving(echo) as server, ember_testing.cassette(path, record="new") as cassette:
        post(server.url, {"q": 1})
        assert cassette.recorded[0].json() == {"q": 1}
    call = cassette.recorded[-1]
    assert (call.method, call.status, call.n, call.outcome) == ("POST", 200, 1, "complete")
    assert call.url == f"{server.url}/v1"
    assert call.response_body == '{"echo": {"q":1}}'
    assert dict(call.response_headers)["content-length"] == "17"
    assert call.seconds is not None
    assert call.seconds > 0
    assert [each.id for each in cassette.recorded[:]] == [1]
    assert repr(cassette.recorded) == "<1 calls>"
