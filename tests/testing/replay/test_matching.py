"""Matching a request to recordings, and explaining a miss: pure functions."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_testing
from ember_testing import CassetteMiss
from ember_testing.replay.miss import differences, nearest, random_leaves
from ember_testing.replay.request import Request, key
from ember_testing.replay.settings import Rules

JSON_HEADERS = (("content-type", "application/json"),)
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/gemini-x:generateContent"
URL = "https://api.openai.com/v1/chat/completions"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def asking(body: Any, url: str = URL, method: str = "POST") -> Request:
    """Return a request with a JSON body."""
    return Request(method, url, JSON_HEADERS, json.dumps(body).encode())


def chat(prompt: str, **more: Any) -> Request:
    """Return a chat request."""
    return asking({"model": "gpt-4", "messages": [{"role": "user", "content": prompt}], **more})


@settings(max_examples=60, deadline=None)
@given(body=st.dictionaries(st.text(max_size=5), values, min_size=2, max_size=5))
def test_key_order_and_white_space_do_not_count(body: dict[str, Any]) -> None:
    """A JSON value has the same key however it is written."""
    backwards = dict(reversed(list(body.items())))
    other = Request("post", URL, JSON_HEADERS, json.dumps(backwards, indent=2).encode())
    assert key(asking(body)) == key(other)


@settings(max_examples=60, deadline=None)
@given(left=values, right=values)
def test_different_json_values_have_different_keys(left: Any, right: Any) -> None:
    """Two bodies share a key only when they are the same JSON value."""
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (key(asking({"v": left})) == key(asking({"v": right}))) is same


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (b'{"t": 1}', b'{"t": 1.0}', False),
        (b'{"t": 1e2}', b'{"t": 100}', False),
        (b'{"t": 1e400}', b'{"t": 1e500}', False),
        (b'{"t": 1e400}', b'{"t":1e400}', True),
        (b'{"t": -0}', b'{"t": 0}', False),
        (b'{"t": 1.10}', b'{"t": "1.10"}', False),
        (b'{"t": 1.5}', b'{"t": {"\\u0000number": "1.5"}}', False),
        (b'{"t": 1, "t": 2}', b'{"t": 2}', False),
        (b'{"t": 1, "t": 2}', b'{"t": 2, "t": 1}', False),
        (b'{"a": [{"t": 1, "t": 2}]}', b'{"a":[{"t":1,"t":2}]}', True),
        (b'{"t": null}', b"{}", False),
        (b'{"t": "\\xff"}', b'{"t": "\xff"}', False),
        (b"\xff", b"\\xff", False),
        (b"\xff", b"\xfe", False),
        (b'{"t": 0.1}', b'{"t": 0.2}', False),
        (b'{"t": 1}', b'{"t": "1"}', False),
        (b'{"t": 12345678901234567890}', b'{"t": 12345678901234567891}', False),
        ('{"t": "é"}'.encode(), b'{"t": "\\u00e9"}', True),
        (b"plain", b"plain ", False),
        (b"{not json", b"{not json", True),
        (b'{"t": \xff}', b'{"t": \xfe}', False),
    ],
)
def test_bodies_compare_by_value(left: bytes, right: bytes, same: bool) -> None:
    """Numbers compare as written, strings by character, with all keys; other bodies by bytes."""
    keys = {key(Request("POST", URL, JSON_HEADERS, body)) for body in (left, right)}
    assert (len(keys) == 1) is same


def test_a_body_nested_too_deep_to_walk_is_compared_by_bytes() -> None:
    """A hundred thousand brackets do not end the comparison with a RecursionError."""
    deep = b"[" * 100_000
    assert key(Request("POST", URL, JSON_HEADERS, deep)) != key(
        Request("POST", URL, JSON_HEADERS, deep + b"[")
    )


def test_a_multipart_boundary_does_not_count() -> None:
    """An upload matches although its boundary is random."""
    requests = [
        Request(
            "POST",
            URL,
            (("Content-Type", f"multipart/form-data; boundary={boundary}"),),
            f'--{boundary}\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n'.encode(),
        )
        for boundary in ("abc123", "def456")
    ]
    assert key(requests[0]) == key(requests[1])


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("https://a.com/v1?x=1&y=2", "https://a.com/v1?y=2&x=1", True),
        ("https://a.com/v1?x=1", "https://a.com/v1?x=2", False),
        ("https://a.com/v1", "https://b.com/v1", False),
        ("https://a.com/v1", "https://a.com/v2", False),
        ("https://a.com/v1", "https://a.com:443/v1", True),
        ("https://a.com/v1", "https://a.com:8443/v1", False),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:9002/v1", True),
        ("http://localhost:8001/v1", "http://localhost:9002/v1", True),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8001/v2", False),
        ("https://a.com/v1?x=%ff", "https://a.com/v1?x=%fe", False),
        ("https://a.com/v1?x=%41+b", "https://a.com/v1?x=A%20b", True),
        ("https://a.com/v1?x=1&x=2", "https://a.com/v1?x=2&x=1", False),
        ("https://a.com/v1?x=1&x=2&y=3", "https://a.com/v1?y=3&x=1&x=2", True),
        ("https://a.com/v1?x", "https://a.com/v1?x=", False),
        ("https://a.com/v1?key=alpha", "https://a.com/v1?key=beta", False),
        (f"{GOOGLE}?key=alpha-alpha", f"{GOOGLE}?key=beta-beta", True),
        (f"{GOOGLE}?key=alpha&alt=sse", f"{GOOGLE}?key=alpha&alt=json", False),
        ("https://x.openai.azure.com/a?api-key=1", "https://x.openai.azure.com/a?api-key=2", True),
    ],
)
def test_urls_compare_in_canonical_form(left: str, right: str, same: bool) -> None:
    """All but the order of parameters and a loopback server's port is compared."""
    assert (key(asking({}, left)) == key(asking({}, right))) is same


def test_match_on_and_ignore_choose_what_is_compared() -> None:
    """`match_on` leaves parts out or adds a header; `ignore` leaves out paths of the body."""
    left = chat("hello", metadata={"run_id": "1", "user": "u"})
    right = chat("hello", metadata={"run_id": "2", "user": "u"})
    assert key(left) != key(right)
    for path in ("metadata.run_id", "$.metadata.run_id", "*.run_id", "metadata"):
        assert key(left, Rules(ignore=(path,))) == key(right, Rules(ignore=(path,)))
    assert key(left, Rules(ignore=("metadata.user",))) != key(right)
    assert key(left, Rules(("method", "url"))) == key(chat("other"), Rules(("method", "url")))

    by_index = Rules(ignore=("messages[0].content",))
    assert key(chat("a"), by_index) == key(chat("b"), by_index)
    beta = left._replace(headers=(*JSON_HEADERS, ("Anthropic-Beta", "x")))
    with_header = Rules(("body", "header:anthropic-beta"))
    assert key(left) == key(beta)
    assert key(left, with_header) != key(beta, with_header)
    port = Rules(("port",))
    assert key(asking({}, "http://localhost:1"), port) != key(
        asking({}, "http://localhost:2"), port
    )

    awkward = Rules(ignore=("metadata['run.id']", '["metadata"]["other"]'))
    varying = [chat("a", metadata={"run.id": i, "other": i}) for i in range(2)]
    assert key(varying[0], awkward) == key(varying[1], awkward)
    assert key(varying[0], awkward) == key(chat("a", metadata={}), awkward)


@pytest.mark.parametrize("path", ["", "$", "a..b", "a[-1]", "a[b]", "a.", "a[?(@.b)]"])
def test_invalid_ignored_path_is_refused(path: str) -> None:
    """An invalid path is refused: it would ignore nothing, and the request would not be found."""
    with pytest.raises(ValueError, match=r"ignore=.*: expected a path into"):
        Rules(ignore=(path,))


@pytest.mark.parametrize("match_on", [("bodyy",), (), ("header:",)])
def test_unknown_part_in_match_on_is_refused(match_on: tuple[str, ...]) -> None:
    """A misspelt part is an error that lists the valid ones."""
    with pytest.raises(ValueError, match="match_on="):
        Rules(match_on)


def test_the_nearest_recording_is_the_one_that_differs_least() -> None:
    """Of many similar recordings the one with a single changed word is named, wherever it is."""
    stored = [(i, chat(f"Tell me about the number {i} and its uses in detail")) for i in range(50)]
    stored.append((50, chat("What is the capital of France?", temperature=0.7)))
    stored.append((51, chat("Something else", temperature=0.2)))
    stored.append((52, asking({"input": "What is the capital of Spain?"}, "https://a.com/embed")))
    request = chat("What is the capital of Spain?", temperature=0.7)
    found = nearest(request, stored)
    assert found is not None
    assert found[0] == 50
    assert differences(found[1], request) == [
        '! messages[0].content: recorded "What is the capital of France?", '
        'now "What is the capital of Spain?"'
    ]
    assert nearest(request, []) is None


def test_explanation_names_only_compared_parts() -> None:
    """Parts that are not compared affect neither the nearest recording nor the explanation."""
    rules = Rules(("method", "host", "body", "header:x-team"), ("metadata.run_id",))

    def asked(content: str, run: str, path: str, team: str) -> Request:
        request = chat(content, metadata={"run_id": run})
        headers = (*JSON_HEADERS, ("X-Team", team))
        return request._replace(url=f"https://a.com/{path}", headers=headers)

    stored = [(1, asked("b", "1", "x", "red")), (2, asked("a", "2", "y", "blue"))]
    new_request = asked("a", "1", "x", "red")
    assert nearest(new_request, stored, rules) == stored[1]
    assert differences(stored[1][1], new_request, rules=rules) == [
        '! header:x-team: recorded "blue", now "red"'
    ]
    secure = chat("a")._replace(url="https://a.com/v1")
    plain = secure._replace(url="http://a.com/v1")
    assert differences(plain, secure) == ['! scheme: recorded "http", now "https"']


def test_differences_are_named_by_leaf_and_shortened() -> None:
    """Added, missing and changed leaves are named; long texts are cut to where they differ."""
    long = "word " * 400
    old = chat(long + "old end", temperature=0.2, seed=1)
    new = chat(long + "new end", top_p=0.5, seed=1)
    lines = differences(old, new)
    assert lines[1:] == [
        "- temperature: 0.2  (only in the recording)",
        "+ top_p: 0.5  (not in the recording)",
    ]
    assert "old end" in lines[0]
    assert "new end" in lines[0]
    assert len(lines[0]) < 200
    many = differences(asking({f"k{i}": i for i in range(30)}), asking([]))
    assert many[0] == "- k0: 0  (only in the recording)"
    assert many[8:] == ["  and 23 more"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"prompt_cache_key": uuid.UUID(int=1)}, {"prompt_cache_key": uuid.UUID(int=2)}, True),
        ({"id": "run_3f9a1c77b2d84e10"}, {"id": "run_90bb2ac1d7e3f455"}, True),
        ({"user": {"ids": [uuid.UUID(int=1)]}}, {"user": {"ids": [uuid.UUID(int=2)]}}, True),
        ({"id": uuid.UUID(int=1), "top": 1}, {"id": uuid.UUID(int=2), "top": 2}, False),
        ({"id": uuid.UUID(int=1)}, {}, False),
        ({"model": "gpt-4"}, {"model": "gpt-5"}, False),
        ({"text": f"job {uuid.UUID(int=1)}"}, {"text": f"job {uuid.UUID(int=2)}"}, False),
        ({"id": "9f86d081884c7d659a2feaa0"}, {"id": "60303ae22b998861bce3b28f"}, True),
        ({"id": "01JDQ8V5T3N6ZC0M9YRX2KWEHA"}, {"id": "01JDQ8V9GQ4F7B1D8SPT6XJMVC"}, True),
        ({"at": "2026-11-27T16:37:44.120Z"}, {"at": "2026-11-28T09:00:01.007Z"}, True),
        ({"at": "2026-11-27 16:37"}, {"at": "2026-11-28 09:00"}, True),
        ({"at": 1795797464}, {"at": 1795797999}, True),
        ({"at": 1795797464.25}, {"at": 1795797999.5}, True),
        ({"seed": 7}, {"seed": 8}, False),
        ({"max": 20000}, {"max": 30000}, False),
        ({"url": f"/jobs/{uuid.UUID(int=1)}/in"}, {"url": f"/jobs/{uuid.UUID(int=2)}/in"}, True),
        ({"url": f"/jobs/{uuid.UUID(int=1)}/in"}, {"url": f"/jobs/{uuid.UUID(int=2)}/out"}, False),
    ],
)  # fmt: skip
def test_random_ids_are_offered_as_ignored_paths(old: Any, new: Any, expected: bool) -> None:
    """Paths are offered only if every difference is a random id on both sides, never a prompt."""
    bodies = [json.loads(json.dumps(each, default=str)) for each in (old, new)]
    found = random_leaves(chat("hi", **bodies[0]), chat("hi", **bodies[1]))
    assert bool(found) == expected


@pytest.mark.parametrize("name", ["trace.id", "a[0]", "it's", "$id", "query", "re:x", ""])
@pytest.mark.parametrize("at_top", [True, False])
def test_offered_path_ignores_a_key_of_any_name(name: str, at_top: bool) -> None:
    """The offered path ignores this key and no other."""
    ids = [{name: {"id": str(uuid.UUID(int=n))}} for n in (1, 2)]
    old, new = (chat("hi", **(each if at_top else {"metadata": each})) for each in ids)
    paths = random_leaves(old, new)
    assert bool(paths) == (name != "")  # no path can express this name
    if paths:
        rules = Rules(ignore=tuple(paths))
        assert differences(old, new, rules=rules) == []
        assert differences(old, chat("hi", metadata={"other": 1}), rules=rules)


def test_no_path_is_offered_for_duplicate_keys() -> None:
    """No path can name a duplicate key."""
    text = '{{"a": "{0}", "a": "{0}"}}'
    old, new = (Request("POST", URL, (), text.format(uuid.UUID(int=n)).encode()) for n in (1, 2))
    assert differences(old, new)
    assert random_leaves(old, new) == []


def test_random_query_parameter_is_offered_as_an_ignored_path() -> None:
    """It is offered in the syntax of `ignore=`, which cannot name an id in the URL's path."""
    old, new = (asking({}, f"{URL}?rid={uuid.UUID(int=n)}") for n in (1, 2))
    assert random_leaves(old, new) == ["query.rid"]
    old, new = (asking({}, f"{URL}/{uuid.UUID(int=n)}") for n in (1, 2))
    assert random_leaves(old, new) == []


@pytest.mark.parametrize(
    ("url", "offered"),
    [
        ("https://telemetry.example/v1/traces", True),
        ("https://api.openai.com/v1/responses", False),
        ("http://127.0.0.1:1/v1", False),
    ],
)
def test_miss_at_an_unknown_host_suggests_ignore_hosts(
    url: str, offered: bool, tmp_path: Path
) -> None:
    """The miss suggests `ignore_hosts=`: libraries make side calls to other hosts."""
    with (
        pytest.raises(CassetteMiss) as miss,
        ember_testing.cassette(tmp_path / "c.sqlite"),
    ):
        httpx.post(url, json={"q": 1})
    assert ("ignore_hosts=['telemetry.example']" in str(miss.value)) == offered
