"""Parsing server-sent events by the HTML standard, with a few extensions."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.providers.sse import Event, EventDecoder


def events(*pieces: bytes) -> list[Event]:
    """The events of a body in these pieces."""
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.finish()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [("", "a"), ("", "b")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", "a"), ("", "b")]),
        (b"data: a\ndata: b\ndata\ndata:\n\n", [("", "a\nb\n\n")]),
        (b"data:a\n\ndata:  b\n\n", [("", "a"), ("", " b")]),
        (b"data: a\r\rdata: b\r\n\r\n", [("", "a"), ("", "b")]),
        (b"data: a\r\ndata: b\r\n\r\n", [("", "a\nb")]),
        (b"data: a\rdata: b\n\n", [("", "a\nb")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
        (b": c\n:\nid: 1\nretry: 2\ndata: a\n\n", [("", "a")]),
        (b"event: ping\n\ndata: a\n\n", [("", "a")]),
        (b"data: a", [("", "a")]),
        (b"data: a\n", [("", "a")]),
        ("data: \u2028\x85\x0b\x0c\n\n".encode(), [("", "\u2028\x85\x0b\x0c")]),
        (b"data: \xff\n\n", [("", "\ufffd")]),
        (b'[{"a": "]}"},\n{"b": [{}]}]', [("", '{"a": "]}"}'), ("", '{"b": [{}]}')]),
        (b'  {"a": "\\"}"}', [("", '{"a": "\\"}"}')]),
        (b'data: a\n\n{\n"b": 1\n}\ndata: c\n\n', [("", "a"), ("", '{\n"b": 1\n}'), ("", "c")]),
        (b'data: a\n\nerror: {"b":1}\n\ndata: c\n\n', [("", "a"), ("error", '{"b":1}'), ("", "c")]),
        (b"", []),
        (b"\n\n", []),
        (b"data\n", [("", "")]),
    ],
)
def test_body_has_these_events_in_one_piece_and_byte_by_byte(
    body: bytes, expected: list[tuple[str, str]]
) -> None:
    """Each body has these events, in one piece and byte by byte."""
    assert events(body) == expected
    assert events(*(body[i : i + 1] for i in range(len(body)))) == expected


def test_event_inside_raw_json_is_a_part_of_it() -> None:
    """Inside raw JSON a piece that looks like an event is none."""
    assert events(b'data: a\n\n{"b": [\n', b"data: c\n\n", b"]}\n") == [
        ("", "a"),
        ("", '{"b": [\ndata: c\n\n]}'),
    ]


def test_stray_bytes_are_kept() -> None:
    """The beginning of text that is neither an event nor JSON is kept, to be shown."""
    decoder = EventDecoder()
    assert decoder.feed(b"<html>\n" + b"x" * 10_000) + decoder.finish() == []
    assert decoder.stray.startswith(b"<html>\n")
    assert len(decoder.stray) <= 2000


@given(body=st.binary(), cuts=st.lists(st.integers(0, 200)))
def test_any_bytes_give_the_same_events_however_split(body: bytes, cuts: list[int]) -> None:
    """No bytes raise an exception, and the result does not depend on how they are split."""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert events(*pieces) == events(body)


@given(
    lines=st.lists(
        st.sampled_from([b"data: a", b"data:", b"event: e", b":", b"", b"{", b"}", b'"', b"[", b"]",
                         b"error: {", b"x", b"\xef\xbb\xbf", b"\\"]), max_size=30),
    ends=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 200)),
)  # fmt: skip
def test_any_lines_give_the_same_events_however_split(
    lines: list[bytes], ends: list[bytes], cuts: list[int]
) -> None:
    """Lines of every kind and ending give the same events, however they are split."""
    body = b"".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert events(*pieces) == events(body)


@pytest.mark.parametrize("body", [b"data: " + b"x" * 4_000_000, b'{"a": "' + b"x" * 4_000_000])
def test_long_event_in_small_pieces_takes_linear_time(body: bytes) -> None:
    """An event in many small pieces takes linear time."""
    started = time.process_time()
    pieces = [body[at : at + 200] for at in range(0, len(body), 200)]
    events(*pieces)
    assert time.process_time() - started < 5
