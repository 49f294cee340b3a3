"""HTTP/1.1: writing requests, and reading responses however their bytes are split."""

from __future__ import annotations

import itertools
import time

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.transport.http1 import ResponseParser, request_head

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"4;x\r\nhell\r\n1\r\no\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.0 200 OK\nx: y\n\nhello",
)


@given(data=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(1, 200), max_size=12))
def test_response_reads_the_same_however_it_is_split(data: bytes, cuts: list[int]) -> None:
    """Status and body do not depend on how the network splits the bytes."""
    response, body = ResponseParser(), b""
    places = sorted({min(place, len(data)) for place in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        body += b"".join(response.feed(data[start:end]))
    if not response.complete:
        body += b"".join(response.feed(b""))  # the body ends with the connection
    assert (response.status, body, response.complete) == (200, b"hello", True)
    assert response.reusable is not data.startswith(b"HTTP/1.0")


@pytest.mark.parametrize("data", ANSWERS[:2])
def test_response_that_ends_early_is_an_error(data: bytes) -> None:
    """A connection closed within the head, a chunk or the body is an error."""
    for length in range(len(data)):
        response = ResponseParser()
        with pytest.raises(httpcore.RemoteProtocolError):
            for piece in (data[:length], b"") if length else (b"",):
                response.feed(piece)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 50_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\r\n\r\n",
    ],
    ids=["header", "headers", "chunk-extension", "trailer", "protocol", "blank-lines"],
)
@pytest.mark.parametrize("size", [1, 100_000], ids=["bytes", "pieces"])
def test_endless_invalid_response_is_an_error_in_linear_time(data: bytes, size: int) -> None:
    """Endless or invalid data outside the body is an error in linear time, before its end."""
    response, started = ResponseParser(), time.process_time()
    with pytest.raises(httpcore.RemoteProtocolError):
        for at in range(0, len(data), size):
            response.feed(data[at : at + size])
    assert time.process_time() - started < 2


def test_bytes_after_a_response_close_the_connection() -> None:
    """Bytes that follow a response are not read as the next one."""
    response = ResponseParser()
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"
    assert list(response.feed(data)) == [b"ok"]
    assert response.complete
    assert not response.reusable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"a b", b"c"),
        (b"", b"c"),
        (b"x", b"a\r\ny: b"),
        (b"x", b"a\nb"),
        (b"x", b" a"),
        (b"x", b"\0"),
    ],
)
def test_invalid_header_is_refused_and_not_shown(name: bytes, value: bytes) -> None:
    """A header that is invalid, or would become two, is refused; no message shows it."""
    with pytest.raises(httpcore.LocalProtocolError, match="a header is not valid HTTP"):
        request_head(b"POST", b"/v1", [(b"host", b"h"), (name, value)])
    assert (
        request_head(b"POST", b"/v1", [(b"Host", b"h")]) == b"POST /v1 HTTP/1.1\r\nHost: h\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: Close, x\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n", False),
    ],
    ids=["kept", "closed", "HTTP/1.0"],
)
def test_connection_that_the_server_closes_is_not_reused(head: bytes, reusable: bool) -> None:
    """A whole response leaves its connection reusable unless the server announces its end."""
    response = ResponseParser()
    assert b"".join(response.feed(head + b"\r\nok")) == b"ok"
    assert (response.complete, response.reusable) == (True, reusable)


def test_chunks_are_passed_on_as_they_were_sent() -> None:
    """Chunks are not joined, since recordings keep the chunks of a stream."""
    response = ResponseParser()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert list(response.feed(head + b"2\r\nab\r\n1\r\nc\r\n3\r\nde")) == [b"ab", b"c", b"de"]
    assert list(response.feed(b"f\r\n0\r\n\r\n")) == [b"f"]
    assert response.complete
