"""The size of a cassette: each byte of an answer is stored once."""

# ruff: noqa: SIM117 - the server outlives the cassettes
from __future__ import annotations

import gzip
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing.cassettes.file import CassetteFile
from ember_testing.wires import body as bodies
from tests.loopback import Received, Reply, serving

CALLS = 200
GONE = "http://127.0.0.1:1"


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows that any SQLite client reads from the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def words(chance: random.Random, size: int) -> str:
    """Return random text of `size` characters."""
    text = " ".join("".join(chance.choices("aeinrst", k=5)) for _ in range(size // 6 + 1))
    return text[:size]


def chat(content: str) -> bytes:
    """Return a whole answer of the chat wire."""
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 400, "completion_tokens": 300, "total_tokens": 700}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"model": "gpt-4o-mini", "choices": choices, "usage": usage}).encode()


def streamed(content: str, pieces: int) -> list[bytes]:
    """Return the same answer as a stream."""
    size = -(-len(content) // (pieces - 1))
    cut = [content[at : at + size] for at in range(0, len(content), size)]
    deltas = [{"choices": [{"index": 0, "delta": {"content": each}}]} for each in cut]
    return [*(f"data: {json.dumps(each)}\n\n".encode() for each in deltas), b"data: [DONE]\n\n"]


@pytest.mark.parametrize("pieces", [1, 20])
def test_cassette_is_about_as_large_as_its_bodies(
    tmp_path: Path, pieces: int, figures: Callable[[str], None]
) -> None:
    """Calls of 2 KB each way, whole and in 20 pieces, take at most 1.15 times their bytes."""
    chance = random.Random(3)
    path = tmp_path / "c.sqlite"

    def answer(_: Received) -> Reply:
        if pieces == 1:
            return Reply(chat(words(chance, chance.randrange(1600, 2100))))
        return Reply(pieces=streamed(words(chance, chance.randrange(800, 1200)), pieces))

    def asked(number: int) -> dict[str, object]:
        content = f"{number} {words(chance, chance.randrange(1700, 2200))}"
        messages = [{"role": "user", "content": content}]
        return {"model": "gpt-4o-mini", "messages": messages, "stream": pieces > 1}

    with (
        serving(answer) as server,
        ember_testing.cassette(path, record="new") as cassette,
        httpx.Client(verify=False) as sender,
    ):
        for number in range(CALLS):
            sender.post(f"{server.url}/v1/chat/completions", json=asked(number))
        content_size = sum(len(bodies.as_bytes(call.body)) for call in cassette.recorded)
        content_size += sum(len(bodies.as_bytes(call.response_body)) for call in cassette.recorded)
    ((headers,),) = rows(
        path, "select sum(length(request_headers) + length(response_headers)) from calls"
    )
    assert isinstance(headers, int)
    ratio = path.stat().st_size / (content_size + headers)
    figures(f"{CALLS} calls of 2 KB each way in {pieces} pieces: {ratio:.3f} times their bytes")
    assert content_size > CALLS * 3_500
    assert ratio <= 1.15


def test_a_cassette_of_one_call_is_small(tmp_path: Path, figures: Callable[[str], None]) -> None:
    """A cassette of one call has at most 16 KB."""
    path = tmp_path / "c.sqlite"
    with serving(lambda _: Reply(chat("Paris"))) as server:
        with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as sender:
            sender.post(f"{server.url}/v1/chat/completions", json={"model": "gpt-4o-mini"})
    figures(f"a cassette of one call: {path.stat().st_size:,} bytes")
    assert path.stat().st_size <= 16 * 1024


def test_binary_data_is_stored_once(tmp_path: Path) -> None:
    """100 KB of binary data take about 100 KB, and replay with the same piece boundaries."""
    path = tmp_path / "c.sqlite"
    sound = random.Random(1).randbytes(100_000)
    pieces = [sound[:30_000], sound[30_000:30_001], sound[30_001:]]
    with serving(lambda _: Reply(pieces=pieces, pause=0.01)) as server:
        for url, record in ((server.url, "new"), (GONE, None)):
            with (
                ember_testing.cassette(path, record=record),  # type: ignore[arg-type]  # both modes
                httpx.Client(verify=False) as sender,
                sender.stream("POST", f"{url}/v1/audio/speech", json={"input": "hi"}) as response,
            ):
                got = list(response.iter_raw())
                assert b"".join(got) == sound
                if record is None:
                    assert [len(each) for each in got] == [
                        size for (size,) in rows(path, "select length(data) from chunks order by i")
                    ]
    assert path.stat().st_size <= 115_000


def test_text_is_readable_in_any_client(tmp_path: Path) -> None:
    """Bodies are text, and `transcript` shows the text of whole and of streamed answers."""
    path = tmp_path / "c.sqlite"
    content = 'She said "no\\n"\ndata: 1\r\n' + words(random.Random(2), 200) + " ünd 🔥"
    answers = [Reply(chat(content)), Reply(pieces=streamed(content, 9))]
    with serving(lambda _: answers.pop(0)) as server:
        with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as sender:
            for stream in (False, True):
                body = {"model": "gpt-4o-mini", "messages": [], "stream": stream}
                sender.post(f"{server.url}/v1/chat/completions", json=body)
    assert (
        rows(path, "select typeof(request_body), typeof(response_body) from calls")
        == [("text", "text")] * 2
    )
    assert rows(path, "select answer from transcript") == [(content,)] * 2
    assert rows(path, "select text is null, text_at from calls") == [
        (1, "$.choices[0].message.content"),
        (1, "$.choices[0].delta.content"),
    ]
    with CassetteFile(path) as file:
        assert [row["text"] for row in file.rows([1, 2])] == [content] * 2


def test_answer_is_replayed_decoded_where_its_decoder_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the decoder the decoded body is replayed; with it, the bytes as received."""
    path = tmp_path / "c.sqlite"
    packed = gzip.compress(b'{"answer": "Paris"}' * 20)
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    with serving(lambda _: Reply(packed, headers=headers)) as server:
        with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as sender:
            assert sender.post(server.url, json={}).text == '{"answer": "Paris"}' * 20
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        with sender.stream("POST", GONE, json={}) as response:
            assert b"".join(response.iter_raw()) == packed
    monkeypatch.setattr("httpx._models.SUPPORTED_DECODERS", {})
    monkeypatch.setattr("ember_testing.cassettes.rows._readable", set())
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        response = sender.post(GONE, json={})
    assert response.text == '{"answer": "Paris"}' * 20
    assert "content-encoding" not in response.headers
    assert response.headers["content-length"] == str(len(response.content))
