"""Limits on large bodies, which are read in linear time."""

from __future__ import annotations

import gzip
import itertools
import json
import time
import zlib
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.transport.send import ContentDecoder
from tests.loopback import Received, Reply, serving
from tests.ways import ALL, completion, events

Way = Callable[..., str]
every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)

MiB = 1024 * 1024


def answering(encode: Callable[[bytes], bytes], encoding: str) -> Callable[[Received], Reply]:
    """A server whose answers, whole or streamed, have a content encoding."""

    def answer(received: Received) -> Reply:
        streamed = received.json().get("stream")
        body = b"".join(events("Hello!")) if streamed else json.dumps(completion()).encode()
        return Reply(encode(body), headers={"content-encoding": encoding})

    return answer


def raw_deflate(body: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    return zlib.compress(body)[2:-4]


@every_way
@pytest.mark.parametrize(
    ("encode", "encoding"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, " X-GZIP"),
        (zlib.compress, "deflate"),
        (raw_deflate, "deflate"),
        (bytes, "identity"),
        (bytes, "utf-8"),
    ],
)
def test_accepted_content_encodings_are_decoded(
    way: Way, encode: Callable[[bytes], bytes], encoding: str
) -> None:
    """The encodings that Ember accepts are decoded; an unknown name is ignored."""
    with serving(answering(encode, encoding)) as server:
        assert way(server.url) == "Hello!"


@every_way
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_other_content_encodings_are_a_bad_response(way: Way, encoding: str) -> None:
    """Another encoding, or several, is a bad response whose message names it."""
    with (
        serving(answering(bytes, encoding)) as server,
        pytest.raises(ProviderAPIError, match=encoding) as caught,
    ):
        way(server.url)
    assert (caught.value.error_type, caught.value.retryable) == ("bad_response", False)


@every_way
def test_body_above_the_size_limit_is_refused(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable limits the decoded size; the error for a larger body names the variable."""
    with serving(answering(gzip.compress, "gzip")) as server:
        monkeypatch.setenv("EMBER_MAX_BODY_BYTES", "1000")
        assert way(server.url) == "Hello!"
        monkeypatch.setenv("EMBER_MAX_BODY_BYTES", "200")
        with pytest.raises(ProviderAPIError, match="EMBER_MAX_BODY_BYTES allows 200 ") as caught:
            way(server.url)
        assert server.settles_at(0)
    assert (caught.value.error_type, caught.value.retryable) == ("bad_response", False)


def test_malformed_size_limit_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is not a number is an error that names the variable."""
    monkeypatch.setenv("EMBER_MAX_BODY_BYTES", "big")
    with serving() as server, pytest.raises(ModelProviderError, match="EMBER_MAX_BODY_BYTES='big'"):
        ALL["call"](server.url)


def bomb(size: int, character: bytes) -> bytes:
    """A gzip stream that decodes to one character again and again."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = character * MiB
    return b"".join([*(packer.compress(block) for _ in range(size // MiB)), packer.flush()])


@every_way
def test_gzip_bomb_stops_at_the_limit(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding a small body to a large one stops at the limit."""
    monkeypatch.setenv("EMBER_MAX_BODY_BYTES", str(8 * MiB))
    reply = Reply(bomb(64 * MiB, b"0"), headers={"content-encoding": "gzip"})
    with serving(lambda _: reply) as server, pytest.raises(ProviderAPIError) as caught:
        way(server.url)
    assert caught.value.error_type == "bad_response"


def test_gzip_bomb_stops_at_the_default_limit() -> None:
    """The default limit is 128 MiB."""
    reply = Reply(bomb(160 * MiB, b"0"), headers={"content-encoding": "gzip"})
    with serving(lambda _: reply) as server, pytest.raises(ProviderAPIError, match="134217728"):
        ALL["call"](server.url)


HOSTILE = {
    "a line": b"data: " + b"x" * MiB,
    "an event": b"data: " + b"[" * MiB + b"\n\n",
    "arrays": b"[" * MiB,
    "objects": b'{"a":' * (MiB // 16),
    "arrays in an object": b'{"a":' + b"[" * MiB,
    "many objects": b"[" + b"{}," * (MiB // 16),
    "an open string": b'"' + b'\\"' * MiB,
    "blanks": b" " * MiB,
}


@pytest.mark.parametrize("way", [ALL["call"], ALL["stream"], ALL["stream-asyncio"]])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_invalid_bodies_take_linear_time(way: Way, body: bytes) -> None:
    """A megabyte of invalid data is an error within seconds."""
    with serving(lambda _: Reply(body)) as server:
        started = time.process_time()
        with pytest.raises(ProviderAPIError) as caught:
            way(server.url)
        spent = time.process_time() - started
    assert caught.value.error_type in ("bad_response", "incomplete_stream")
    assert len(str(caught.value)) < 1000
    assert spent < 2, f"{spent:.1f} s"  # quadratic work would take minutes


@pytest.mark.parametrize("way", [ALL["stream"], ALL["stream-asyncio"]])
def test_event_of_16_megabytes_is_read(way: Way) -> None:
    """An event of 16 MB, such as one with an image, is an answer like any other."""
    (event,) = events("x" * 16 * MiB)[:1]
    with serving(lambda _: Reply(event + b"".join(events("!")))) as server:
        assert len(way(server.url)) == 16 * MiB + 1


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5), st.booleans())
def test_body_decodes_the_same_however_it_is_split(body: bytes, cuts: list[int], raw: bool) -> None:
    """A body decodes to the original, however it is split."""
    encoded = raw_deflate(body) if raw else gzip.compress(body)
    decoder = ContentDecoder({"content-encoding": "deflate" if raw else "gzip"})
    places = [0, *sorted(cuts), len(encoded)]
    pieces = [encoded[start:end] for start, end in itertools.pairwise(places)]
    assert b"".join(b"".join(decoder.feed(piece)) for piece in pieces) == body


def test_decoded_pieces_are_bounded() -> None:
    """A piece that decodes to far more than its size is decoded in steps."""
    decoder = ContentDecoder({"content-encoding": "gzip"})
    pieces = decoder.feed(bomb(20 * MiB, b"a"))
    assert sum(map(len, pieces)) == 20 * MiB
    assert max(map(len, pieces)) <= MiB
    with pytest.raises(httpx.DecodingError):
        ContentDecoder({"content-encoding": "gzip"}).feed(b"none")
