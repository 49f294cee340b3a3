"""The toolkit's promises hold for every patched HTTP library."""

# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import array
import asyncio
import gc
import gzip
import http.client
import importlib
import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import ember_testing
from ember_testing import CassetteMiss, NetworkBlocked, faults
from ember_testing.patches.transport import SEAMS
from tests.loopback import Received, Reply, resetting, serving
from tests.testing.http_clients import LIBRARIES, STREAMING, Library

GONE = "http://127.0.0.1:1"  # nothing listens here: a replay needs no server
SSE = [b"data: %d\n\n" % i for i in range(6)] + ["data: é".encode()[:-1], b"\xa9\n\n", b"[DONE]"]
KEY = "sk-libraries-0123456789abcdef"
CHAT = "https://api.openai.com/v1/chat/completions"
ASKED = {"model": "gpt-4", "messages": [{"role": "user", "content": "Where is the Louvre?"}]}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    """One HTTP library."""
    return LIBRARIES[request.param]()


@pytest.fixture(params=STREAMING)
def streaming(request: pytest.FixtureRequest) -> Library:
    """One HTTP library that gives a response's pieces as they arrive."""
    return LIBRARIES[request.param]()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the test's cassette."""
    return tmp_path / "c.sqlite"


def test_replayed_response_equals_the_live_one(library: Library, path: Path) -> None:
    """Status, headers and bytes are the same, and in any order each call gets its own answer."""

    def answer(request: Received) -> Reply:
        raw = b'{"a": 1e2, "asked": ' + request.body + b"}"
        return Reply(raw, status=201, headers={"x-request-id": "r1", "x-ratelimit-tokens": "9"})

    with serving(answer) as server, ember_testing.cassette(path, record="new") as cassette:
        live = [library.post(f"{server.url}/v1?n=1", {"q": n}) for n in range(3)]
        assert len(cassette.recorded) == len(server.received) == 3
        assert {call.outcome for call in cassette.recorded} == {"complete"}
    with ember_testing.cassette(path) as cassette:
        played = [library.post(f"{GONE}/v1?n=1", {"q": n}) for n in (2, 0, 1)]
        assert len(cassette.played) == 3
    assert played == [live[2], live[0], live[1]]
    assert (live[0].status, live[0].headers["x-request-id"]) == (201, "r1")
    assert live[0].body.startswith(b'{"a": 1e2')


def test_recording_of_one_library_replays_to_every_other(library: Library, path: Path) -> None:
    """Calls recorded with httpx are replayed to every library, and vice versa."""
    httpx = LIBRARIES["httpx"]()
    with serving() as server, ember_testing.cassette(path, record="new"):
        assert httpx.post(server.url, {"q": 1}).json() == {"echo": {"q": 1}}
        assert library.post(server.url, {"q": 2}).json() == {"echo": {"q": 2}}
    with ember_testing.cassette(path, match_on=["method", "path", "body"]):
        assert library.post(GONE, {"q": 1}).json() == {"echo": {"q": 1}}
        assert httpx.post(GONE, {"q": 2}).json() == {"echo": {"q": 2}}


HIDDEN: list[dict[str, Any]] = [
    {"sessionId": KEY},
    {"list": [{"client_secret": [KEY, KEY + "x"]}]},
    {"go": f"https://a.example/f?n=1&sig={KEY}", "next": f"/f?session={KEY}"},
    {"dsn": f"see (postgres://app:{KEY}@db.example/f)"},
    {"arguments": json.dumps({"arguments": json.dumps({"password": KEY})})},
    {"cookies": {"sid": {"value": KEY}}, "userAccessToken": KEY},
]


@pytest.mark.parametrize("in_pieces", [False, True])
def test_credentials_are_redacted_and_distinguished(
    library: Library, path: Path, in_pieces: bool
) -> None:
    """They are redacted in the same length, in request and echo; another value is a miss."""

    def echoed(request: Received) -> Reply:
        body = request.body
        cut = [body[at : at + 7] for at in range(0, len(body), 7)]
        return Reply(pieces=cut) if in_pieces else Reply(body)

    with serving(echoed) as server, ember_testing.cassette(path, record="new"):
        live = [library.post(server.url, body).body for body in HIDDEN]
    assert KEY.encode() not in path.read_bytes()
    with ember_testing.cassette(path):
        played = [library.post(GONE, body).body for body in reversed(HIDDEN)][::-1]
    assert [len(body) for body in played] == [len(body) for body in live]
    assert [[*json.loads(body)] for body in played] == [[*body] for body in HIDDEN]
    for body in HIDDEN:
        other = json.loads(json.dumps(body).replace(KEY, KEY[:-1] + "0"))
        with pytest.raises(CassetteMiss), ember_testing.cassette(path):
            with suppress(Exception):
                library.post(GONE, other)


def test_identical_calls_from_threads(library: Library, path: Path) -> None:
    """Concurrent calls of threads are each recorded once and get their own answers."""
    with serving() as server, ember_testing.cassette(path, record="new") as cassette:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: library.post(server.url, {"q": n % 10}), range(20)))
        assert sorted(call.n for call in cassette.recorded) == [1] * 10 + [2] * 10
    with ember_testing.cassette(path), ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda n: library.post(GONE, {"q": n % 10}).json(), range(20))
        assert [each["echo"]["q"] for each in answers] == [n % 10 for n in range(20)]


def test_pieces_are_the_same_live_and_replayed(streaming: Library, path: Path) -> None:
    """A stream's pieces are the network's, live and replayed."""
    with serving(lambda _: Reply(pieces=SSE, pause=0.05)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            assert list(streaming.pieces(server.url)) == SSE
            assert cassette.recorded[0].outcome == "complete"
    with ember_testing.cassette(path) as cassette:
        assert list(streaming.pieces(GONE)) == SSE
        assert len(cassette.played) == 1


def test_stream_left_early_is_recorded_so_far(streaming: Library, path: Path) -> None:
    """A reader that stops after two pieces gets them; one that reads on gets an error."""
    with serving(lambda _: Reply(pieces=SSE, pause=0.1)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            stream = streaming.pieces(server.url)
            assert list(islice(stream, 2)) == SSE[:2]
            stream.close()  # type: ignore[attr-defined]  # a generator
            assert cassette.recorded[0].outcome == "closed"
    with ember_testing.cassette(path):
        stream = streaming.pieces(GONE)
        assert list(islice(stream, 2)) == SSE[:2]
        stream.close()  # type: ignore[attr-defined]  # a generator
    with pytest.raises(CassetteMiss, match="because its reader closed it there"):
        with ember_testing.cassette(path), suppress(BaseException):
            list(streaming.pieces(GONE))


def test_broken_stream_is_replayed_with_its_error(streaming: Library, path: Path) -> None:
    """The pieces up to the cut are replayed, then the library's own error is raised."""

    def broken(url: str) -> list[bytes]:
        found: list[bytes] = []
        with pytest.raises(streaming.errors):
            for piece in streaming.pieces(url):
                found.append(piece)
        return found

    with serving(lambda _: Reply(pieces=SSE[:3], pause=0.1, cut=True)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            assert broken(server.url) == SSE[:3]
            assert cassette.recorded[0].outcome == "cut"
    with ember_testing.cassette(path):
        assert broken(GONE) == SSE[:3]


def test_connection_errors_are_replayed(library: Library, path: Path) -> None:
    """Refused and reset connections fail again in the same way, without a connection."""
    with resetting() as url, ember_testing.cassette(path, record="new") as cassette:
        with pytest.raises(library.errors) as reset:
            library.post(url, {"q": "reset"})
        with pytest.raises(library.errors) as refused:
            library.post(GONE, {"q": "refused"})
        assert [call.outcome for call in cassette.recorded] == ["failed", "failed"]
    with ember_testing.cassette(path):
        for question, live in (("reset", reset), ("refused", refused)):
            with pytest.raises(library.errors) as played:
                library.post(GONE, {"q": question})
            assert type(played.value) is type(live.value)


def test_compressed_answer_is_decoded_by_the_library(library: Library, path: Path) -> None:
    """The library decodes the replayed answer; the file's text column holds plain text."""
    packed = gzip.compress(b'{"text": "plain to read"}')
    headers = {"content-encoding": "gzip"}

    def post(url: str) -> bytes:
        got = library.post(url, {})
        return got.body if got.body[:1] == b"{" else gzip.decompress(got.body)  # urllib leaves it

    with serving(lambda _: Reply(packed, headers=headers)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            assert json.loads(post(server.url)) == {"text": "plain to read"}
            assert cassette.recorded[0].response_body == '{"text": "plain to read"}'
    with ember_testing.cassette(path):
        assert json.loads(post(GONE)) == {"text": "plain to read"}


def test_cookies_and_empty_bodies(library: Library, path: Path) -> None:
    """A status without a body and repeated headers are replayed unchanged."""

    def answer(request: Received) -> Reply:
        return Reply(b"", status=204, headers={"set-cookie": "theme=dark; Path=/"})

    with serving(answer) as server, ember_testing.cassette(path, record="new"):
        live = library.post(server.url, {})
    with ember_testing.cassette(path):
        played = library.post(GONE, {})
    assert (played.status, played.body) == (live.status, live.body) == (204, b"")
    assert "set-cookie" in played.headers


def test_a_key_is_nowhere_in_the_file(library: Library, path: Path) -> None:
    """A key in a header and its echo are replaced; another key gets the same answer."""

    def leaky(request: Received) -> Reply:
        return Reply(json.dumps({"bad key": request.headers["authorization"]}).encode())

    with serving(leaky) as server, ember_testing.cassette(path, record="new"):
        live = library.post(server.url, {}, {"Authorization": f"Bearer {KEY}"})
        assert KEY in live.body.decode()
    assert KEY.encode() not in path.read_bytes()
    with ember_testing.cassette(path):
        played = library.post(GONE, {}, {"Authorization": "Bearer sk-another-key-of-ci-1"})
    assert len(played.body) == len(live.body)


def test_a_miss_is_not_swallowed(library: Library, path: Path) -> None:
    """It passes through the library's error handling, and is raised again at the end."""
    for swallowed in ((), (BaseException,)):
        with pytest.raises(CassetteMiss, match="there is no cassette"):
            with ember_testing.cassette(path), suppress(*swallowed):
                library.post(CHAT, ASKED)
    assert not path.exists()


def test_fake_answers_every_library(library: Library) -> None:
    """Whole and streamed answers, an error and a broken connection work without a network."""
    with ember_testing.fake_model() as fake:
        fake("gpt-4", "Paris", faults.rate_limit(retry_after=3), faults.reset(), "Rome")
        assert library.post(CHAT, ASKED).json()["choices"][0]["message"]["content"] == "Paris"
        refused = library.post(CHAT, ASKED)
        assert (refused.status, refused.headers["retry-after"]) == (429, "3")
        with pytest.raises(library.errors):
            library.post(CHAT, ASKED)
        streamed = library.post(CHAT, {**ASKED, "stream": True})
        assert streamed.headers["content-type"] == "text/event-stream"
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert [call.prompt for call in fake.calls] == ["Where is the Louvre?"] * 4


@pytest.mark.parametrize(
    "fault",
    [faults.timeout(), faults.timeout(connecting=True), faults.refused(), faults.cut(1)],
    ids=lambda fault: fault.kind,
)
def test_fault_raises_the_librarys_own_error(library: Library, fault: faults.Damage) -> None:
    """It is raised at once, and is the error that a real network causes."""
    with ember_testing.fake_model("gpt-4", fault), pytest.raises(library.errors):
        library.post(CHAT, {**ASKED, "stream": True})


def test_a_fault_over_a_recording(library: Library, path: Path) -> None:
    """The second call meets the fault, and the third gets its recording."""
    with serving() as server, ember_testing.cassette(path, record="new"):
        for n in range(2):
            library.post(server.url, {"q": n})
    with ember_testing.cassette(path, faults={2: faults.server_error()}):
        assert library.post(GONE, {"q": 0}).status == 200
        assert library.post(GONE, {"q": 1}).status == 500
        assert library.post(GONE, {"q": 1}).status == 200


def test_network_is_real_outside_a_block(library: Library, path: Path) -> None:
    """Outside a block, and to this machine if allowed, the network is real."""
    with serving() as server:
        library.post(server.url, {"q": 0})
        with ember_testing.cassette(path, allow_loopback=True):
            assert library.post(server.url, {"q": 1}).json() == {"echo": {"q": 1}}
        with ember_testing.fake_model(allow_loopback=True):
            assert library.post(server.url, {"q": 2}).json() == {"echo": {"q": 2}}
        with pytest.raises(NetworkBlocked), ember_testing.fake_model():
            library.post(server.url, {"q": 3})
        assert library.post(server.url, {"q": 4}).json() == {"echo": {"q": 4}}
        assert [request.json()["q"] for request in server.received] == [0, 1, 2, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="has no second loopback address by itself")
def test_each_loopback_address_is_this_machine(library: Library, path: Path) -> None:
    """127.0.0.2 is real if the network to this machine is; its port is no part of the request."""
    with serving(host="127.0.0.2") as server, ember_testing.cassette(path, record="new"):
        library.post(server.url, {"q": 0})
    with ember_testing.cassette(path):
        assert library.post("http://127.0.0.2:9", {"q": 0}).json() == {"echo": {"q": 0}}
    with serving(host="127.0.0.2") as server, ember_testing.cassette(path, allow_loopback=True):
        assert library.post(server.url, {"q": 1}).json() == {"echo": {"q": 1}}


def test_redirects_are_followed_in_a_replay(path: Path) -> None:
    """Each hop of a redirect is a recording."""
    requests = pytest.importorskip("requests", reason="in the extra dev")

    def answer(request: Received) -> Reply:
        if request.path == "/old":
            return Reply(b"", status=307, headers={"location": "/new"})
        return Reply(request.body)

    def follow(url: str) -> tuple[int, bytes]:
        response = requests.post(f"{url}/old", json={"q": 1}, timeout=5)
        return len(response.history), response.content

    with serving(answer) as server, ember_testing.cassette(path, record="new") as cassette:
        assert follow(server.url) == (1, b'{"q": 1}')
        assert [call.status for call in cassette.recorded] == [307, 200]
    with ember_testing.cassette(path):
        assert follow(GONE) == (1, b'{"q": 1}')


def test_retries_of_urllib3_are_recorded_as_calls(path: Path) -> None:
    """Every attempt is recorded; the replay retries as the recording did."""
    urllib3 = pytest.importorskip("urllib3", reason="in the extra dev")
    statuses = iter([503, 503, 200])

    def ask(url: str) -> int:
        retry = urllib3.Retry(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
        with urllib3.PoolManager(retries=retry) as pool:
            return int(pool.request("POST", url, json={}).status)

    with serving(lambda _: Reply(b"{}", status=next(statuses))) as server:
        with ember_testing.cassette(path, record="new", record_errors=True) as cassette:
            assert ask(server.url) == 200
            assert [call.status for call in cassette.recorded] == [503, 503, 200]
    with ember_testing.cassette(path) as cassette:
        assert ask(GONE) == 200
        assert len(cassette.played) == 3


def test_session_works_live_after_its_replay(path: Path) -> None:
    """A session that got replayed answers opens a real connection afterwards."""
    requests = pytest.importorskip("requests", reason="in the extra dev")
    with serving() as server, requests.Session() as session:
        with ember_testing.cassette(path, record="new"):
            session.post(server.url, json={"q": 1}, timeout=5)
            session.post(server.url, json={"q": 2}, timeout=5)
            assert server.connections == 1
        with ember_testing.cassette(path):
            for q in (1, 2):
                assert session.post(server.url, json={"q": q}, timeout=5).json()["echo"] == {"q": q}
        assert session.post(server.url, json={"q": 3}, timeout=5).json()["echo"] == {"q": 3}
        assert len(server.received) == 3


def test_aiohttp_session_works_live_after_its_replay(path: Path) -> None:
    """A session of aiohttp does so too, and its gathered calls each get their own answer."""
    aiohttp = pytest.importorskip("aiohttp", reason="in the extra dev")

    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def ask(url: str, q: int) -> int:
                async with session.post(url, json={"q": q}) as response:
                    return int((await response.json(content_type=None))["echo"]["q"])

            with ember_testing.cassette(path, record="new"):
                await asyncio.gather(*(ask(server.url, q) for q in range(30)))
            with ember_testing.cassette(path):
                order = [*reversed(range(30))]
                assert await asyncio.gather(*(ask(GONE, q) for q in order)) == order
            assert await ask(server.url, 99) == 99
        assert len(server.received) == 31

    with serving() as server:
        asyncio.run(main())


def test_uploads_in_pieces_are_matched_by_their_content(path: Path) -> None:
    """Bodies from generators and files are recorded and sent whole."""
    requests = pytest.importorskip("requests", reason="in the extra dev")
    aiohttp = pytest.importorskip("aiohttp", reason="in the extra dev")

    async def pieces() -> Any:
        yield b'{"q": '
        yield b'"awaited"}'

    async def awaited(url: str) -> bytes:
        async with aiohttp.ClientSession() as session, session.post(url, data=pieces()) as answer:
            body: bytes = await answer.read()
            return body

    def everything(url: str) -> list[bytes]:
        plain = requests.post(url, data=iter([b'{"q": ', b'"pieces"}']), timeout=5).content
        form = requests.post(url, files={"f": b"file"}, timeout=5).content
        return [plain, asyncio.run(awaited(url)), form[-9:]]

    with serving() as server, ember_testing.cassette(path, record="new"):
        live = everything(server.url)
        assert live[:2] == [b'{"echo": {"q": "pieces"}}', b'{"echo": {"q": "awaited"}}']
    with ember_testing.cassette(path):
        assert everything(GONE) == live


def test_aiohttp_without_an_expected_class_fails_at_its_call() -> None:
    """A block begins although a class is missing; only a call by aiohttp fails, and names it."""
    aiohttp = pytest.importorskip("aiohttp", reason="in the extra dev")
    code = f"""
        import asyncio
        import aiohttp
        import httpx
        import ember_testing

        del aiohttp.client_proto.ResponseHandler

        async def ask():
            async with aiohttp.ClientSession() as session, session.post({CHAT!r}, json={ASKED!r}):
                pass

        with ember_testing.fake_model("gpt-4", "Paris"):
            assert b"Paris" in httpx.post({CHAT!r}, json={ASKED!r}).content
            try:
                asyncio.run(ask())
            except RuntimeError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    missing = f"aiohttp {aiohttp.__version__} has no client_proto.ResponseHandler, "
    assert done.stdout.startswith(missing), done.stderr


def test_aiohttp_without_an_expected_method_fails_at_its_call(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a method that a replay needs is missing, a call fails at once and names it."""
    aiohttp = pytest.importorskip("aiohttp", reason="in the extra dev")
    client_proto = importlib.import_module("aiohttp.client_proto")

    async def call(url: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            status: int = answer.status
            return status

    with serving() as server, ember_testing.cassette(path, record="new"):
        assert asyncio.run(call(server.url)) == 200
    monkeypatch.delattr(client_proto.ResponseHandler, "_on_read_timeout")
    with ember_testing.cassette(path), pytest.raises(RuntimeError, match="_on_read_timeout"):
        asyncio.run(call(GONE))


def test_an_array_is_sent_as_its_bytes(path: Path) -> None:
    """http.client also accepts arrays as bodies: their bytes are sent and recorded."""
    body = array.array("H", [1, 2, 3])
    with serving(lambda request: Reply(request.body)) as server:
        with ember_testing.cassette(path, record="new"):
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("POST", "/", body)
            assert connection.getresponse().read() == body.tobytes()
            connection.close()


def test_library_imported_inside_a_block_is_patched(path: Path) -> None:
    """It is patched when it is imported; the toolkit does not import it."""
    code = f"""
        import sys
        import ember_testing

        def loaded():
            return {{"aiohttp", "urllib3", "requests"}} & {{*sys.modules}}

        with ember_testing.fake_model() as fake:
            assert not loaded(), loaded()
            fake("gpt-4", lambda call: "Paris")
            import requests
            answer = requests.post({CHAT!r}, json={ASKED!r})
            assert answer.json()["choices"][0]["message"]["content"] == "Paris"
            import asyncio
            import aiohttp

            async def ask():
                async with aiohttp.ClientSession() as session:
                    async with session.post({CHAT!r}, json={ASKED!r}) as answer:
                        return (await answer.json())["choices"][0]["message"]["content"]

            assert asyncio.run(ask()) == "Paris"
        assert not [each for each in sys.meta_path if "ember" in type(each).__module__]
    """
    pytest.importorskip("requests", reason="in the extra dev")
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SEAMS)
def test_methods_of_a_library_are_restored(name: str, path: Path) -> None:
    """A block leaves no patched method behind."""
    module = pytest.importorskip(name)
    owners: list[Any] = [module]
    owners += [each for each in vars(module).values() if isinstance(each, type)]
    if name == "aiohttp":
        owners.append(importlib.import_module("aiohttp.client_proto").ResponseHandler)
    before = [dict(vars(owner)) for owner in owners]
    with ember_testing.cassette(path):
        assert any(dict(vars(o)) != old for o, old in zip(owners, before, strict=True))
    assert all(dict(vars(o)) == old for o, old in zip(owners, before, strict=True))


ENDS = {
    "openai": b"data: [DONE]\n\n",
    "anthropic": b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    "responses": b'data: {"type":"response.completed","response":{"output":[]}}\r\n\r\n',
    "google": b'data: {"candidates": [{"finishReason": "STOP"}]}\r\n\r\n',
    "ollama": b'{"message": {"content": ""}, "done": true}\n',
}


@pytest.mark.parametrize("wire", ENDS)
def test_stream_left_after_its_last_event_is_complete(wire: str, path: Path) -> None:
    """The recording is complete, and replays to a client that reads to the end."""
    library = LIBRARIES["httpx"]()
    pieces = [b'data: {"a": 1}\n\n', ENDS[wire], b"\n"]
    with serving(lambda _: Reply(pieces=pieces, pause=0.05)) as server:
        with ember_testing.cassette(path, record="new") as cassette:
            stream = library.pieces(server.url)
            assert list(islice(stream, 2)) == pieces[:2]
            stream.close()  # type: ignore[attr-defined]  # a generator
            assert cassette.recorded[0].outcome == "complete"
    with ember_testing.cassette(path):
        assert list(library.pieces(GONE)) == pieces[:2]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a connection whose loop is gone
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_request_that_was_never_sent_is_not_recorded(name: str, path: Path) -> None:
    """A client used in a second event loop fails there; only its retry is recorded."""
    library: Any = pytest.importorskip(name)
    clients = [library.AsyncClient()]  # like a client cached by an application

    async def ask(url: str) -> Any:
        return await clients[0].post(url, json={"q": 1})

    with serving() as server, ember_testing.cassette(path, record="new") as cassette:
        assert asyncio.run(ask(server.url)).status_code == 200
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            asyncio.run(ask(server.url))
        assert LIBRARIES[name]().post(server.url, {"q": 1}).status == 200
        assert [call.outcome for call in cassette.recorded] == ["complete", "complete"]
    clients.clear()
    gc.collect()
    with ember_testing.cassette(path):
        for _ in range(2):
            assert LIBRARIES[name]().post(GONE, {"q": 1}).json() == {"echo": {"q": 1}}
