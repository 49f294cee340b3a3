"""HTTP/1.1 as Ember reads it: what h11 reads it reads the same, and what h11 refuses it refuses."""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

import h11
import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.transport.http1 import Answer, request_head


class Read(NamedTuple):
    """What was read of an answer."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    reusable: bool


def compared(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers without those that frame the body, which h11 writes in its own way."""
    framing = (b"content-length", b"transfer-encoding")
    return [(name, value) for name, value in headers if name.lower() not in framing]


def by_ember(pieces: list[bytes]) -> Read | None:
    """The answer as Ember reads it; None where it refuses it."""
    answer, body = Answer(), b""
    try:
        for piece in (*pieces, b""):
            if not answer.complete:
                body += b"".join(answer.feed(piece))
    except httpcore.RemoteProtocolError:
        return None
    if answer.status is None or not answer.complete:
        return None
    return Read(answer.status, answer.reason, compared(answer.headers), body, answer.reusable)


def by_h11(pieces: list[bytes]) -> Read | None:
    """The answer as h11 reads it; None where it refuses it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100 * 1024)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    response, body = None, b""
    waiting = [*pieces, b""]
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(waiting.pop(0))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                return None
    except h11.RemoteProtocolError:
        return None
    if response is None:
        return None
    reusable = connection.their_state is h11.DONE and connection.trailing_data == (b"", False)
    headers = compared(response.headers.raw_items())
    return Read(response.status_code, response.reason, headers, body, reusable)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The bytes in pieces, none of them empty."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 2000), max_size=12)
HEADERS = st.lists(
    st.sampled_from([
        b"content-type: text/plain", b"Connection: close", b"connection: Keep-Alive", b"x:",
        b"x: \t a  b ", b"x: first\r\n  folded", b"x: \xe9", b"Content-Length: 5",
        b"content-length: 3, 3",
        b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked", b"set-cookie: a=b; c",
    ]),
    max_size=5,
)  # fmt: skip
STATUS = st.sampled_from([
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 Not  Found",
    b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 ", b"HTTP/1.1 500 \xe9",
])  # fmt: skip
BODIES = st.sampled_from([
    b"", b"abc", b"hello", b"hello, world", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n",
    b"3;ext=1\r\nabc\r\n00A \r\n0123456789\r\n0\r\nx: y\r\n\r\n", b"3\r\nab",
    b"3\r\nabcd\r\n0\r\n\r\n", b"2\r\n\r\n\r\n0\r\n\r\nmore", b"g\r\n",
])  # fmt: skip
BEFORE = st.sampled_from([
    b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3,
])  # fmt: skip


@given(before=BEFORE, status=STATUS, headers=HEADERS, body=BODIES, cuts=CUTS)
def test_answers_are_read_as_h11_reads_them(
    before: bytes, status: bytes, headers: list[bytes], body: bytes, cuts: list[int]
) -> None:
    """Each way to frame a body, right or wrong, in whatever pieces it comes."""
    pieces = cut(before + b"\r\n".join([status, *headers, b"", b""]) + body, cuts)
    assert by_ember(pieces) == by_h11(pieces)


RIGHT = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5;x\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.0 200 OK\nx: y\n\nhello",
)


@given(
    data=st.sampled_from(RIGHT),
    place=st.integers(0, 200),
    length=st.integers(0, 3),
    put=st.sampled_from([b"", b"\0", b"\n", b"\r", b"\r\n", b" ", b":", b"0", b"9", b"\xff", b";"]),
    cuts=CUTS,
)
def test_damaged_answers_are_refused_where_h11_refuses_them(
    data: bytes, place: int, length: int, put: bytes, cuts: list[int]
) -> None:
    """Bytes left out, put in or replaced: no answer is read out of what h11 takes for none."""
    place %= len(data)
    damaged = data[:place] + put + data[place + length :]
    mine, theirs = by_ember(cut(damaged, cuts)), by_h11(cut(damaged, cuts))
    # A lone line feed inside a chunked body is refused by Ember in any version of h11.
    assert mine == theirs or (mine is None and b"chunked" in data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 50_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\r\n\r\n",
    ],
    ids=["header", "headers", "chunk-extension", "trailer", "protocol", "ssh", "blank-lines"],
)
@pytest.mark.parametrize("size", [1, 100_000], ids=["bytes", "pieces"])
def test_what_is_no_answer_ends_before_the_server_does(data: bytes, size: int) -> None:
    """What is not the body has a bound, which is reached in linear time; the end need not come."""
    answer, started = Answer(), time.process_time()
    with pytest.raises(httpcore.RemoteProtocolError):
        for at in range(0, len(data), size):
            answer.feed(data[at : at + size])
    assert time.process_time() - started < 2


def test_bytes_after_an_answer_cost_the_connection() -> None:
    """What follows an answer unasked is not taken for the next one."""
    answer = Answer()
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"
    assert list(answer.feed(data)) == [b"ok"]
    assert answer.complete
    assert not answer.reusable


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
def test_headers_that_cannot_be_sent(name: bytes, value: bytes) -> None:
    """A header that is not valid HTTP, or would become two, is refused; no message shows it."""
    with pytest.raises(httpcore.LocalProtocolError, match="a header is not valid HTTP"):
        request_head(b"POST", b"/v1", [(b"host", b"h"), (name, value)])
    assert (
        request_head(b"POST", b"/v1", [(b"Host", b"h")]) == b"POST /v1 HTTP/1.1\r\nHost: h\r\n\r\n"
    )


def test_chunks_are_passed_on_as_they_were_sent() -> None:
    """A recording keeps the chunks of a stream, and so they are not joined."""
    answer = Answer()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert list(answer.feed(head + b"2\r\nab\r\n1\r\nc\r\n3\r\nde")) == [b"ab", b"c", b"de"]
    assert list(answer.feed(b"f\r\n0\r\n\r\n")) == [b"f"]
    assert answer.complete
