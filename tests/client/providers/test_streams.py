"""Streams: the answer does not depend on splits and framing, and a break is an error."""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.exceptions import EmberError, ProviderAPIError
from ember.models.routing import built_in
from tests.corpus import needs_corpus, player, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember.models.schemas import ChatResponse
    from tests.corpus import Row

# A short recorded stream for each wire, framing and ending in the corpus.
RECORDED = {
    "chat": "01abc5f4daf3cb18",
    "chat, comments": "2d4db68d702e74e2",
    "chat, list content": "1a5444bce3f06192",
    "chat, an error after text": "dae397479d351057",
    "chat, event: error": "15a0c0f1583ffbce",
    "chat, an error in a chunk with text": "53d3d729f791f6fe",
    "anthropic": "006ab8b8996b8c80",
    "anthropic, tools": "03b05d6874f7bf11",
    "google, CRLF": "03886841a4267898",
    "google, an array": "02b0523d881a7026",
    "google, an error": "a9dbbfbf58914705",
    "responses": "0313b7f3b102c93e",
    "responses, no event lines": "54b0d53415d241c0",
}


def read(wire: str, pieces: list[bytes], status: int = 200) -> dict[str, Any]:
    """The result of a stream with these pieces, from the code behind the public functions."""
    streamed = built_in(wire).stream("hi", "m", api_key="sk-of-a-test", base_url="https://x.test")
    text: list[str] = []
    error: ProviderAPIError | None = None
    try:
        for chunk in streamed.read(status, {}, pieces):
            text.append(chunk.text)
    except ProviderAPIError as raised:
        error = raised
    answer = streamed.answer()
    return {
        "chunks": "".join(text),
        "text": answer.text,
        "usage": answer.usage,
        "finish": answer.finish_reason,
        "calls": answer.tool_calls,
        "reasoning": answer.reasoning,
        "error": error and (str(error), error.error_type, error.context.get("partial_text")),
    }


def wire_of(row: Row) -> str:
    """Ember's provider for a row's wire."""
    return {
        "openai.chat": "openai",
        "openai.responses": "openai-responses",
        "anthropic.messages": "anthropic",
        "google.generate": "google",
    }[row["wire"]]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """The pieces of a body, split at these positions."""
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


@needs_corpus
@pytest.mark.parametrize("kind", RECORDED)
@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.integers(0, 1 << 20), max_size=30))
def test_recording_reads_the_same_however_it_is_split(kind: str, places: list[int]) -> None:
    """A recorded stream gives the same answer, wherever and however often it is split."""
    row = rows()[RECORDED[kind]]
    body = row["response_body"].encode()
    whole = read(wire_of(row), [body], row["status"])
    assert read(wire_of(row), cut(body, places), row["status"]) == whole


@functools.cache
def whole(identity: str) -> dict[str, Any]:
    """The result of a recorded stream in one piece, read once for all framings."""
    row = rows()[identity]
    return read(wire_of(row), [row["response_body"].encode().replace(b"\r\n", b"\n")])


REFRAMED: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda body: body.replace(b"\n", b"\r\n"),
    "CR": lambda body: body.replace(b"\n", b"\r"),
    "BOM": lambda body: b"\xef\xbb\xbf" + body,
    "blank lines first": lambda body: b"\n\r\n\n" + body,
    "comments": lambda body: body.replace(b"\n\n", b"\n\n: keep-alive\n:\n\n"),
    "id and retry": lambda body: body.replace(b"\ndata:", b"\nid: 5\nretry: 10\ndata:"),
    "data without a space": lambda body: body.replace(b"\ndata: ", b"\ndata:"),
    "empty data": lambda body: body.replace(b"\n\n", b"\n\ndata:\n\n"),
    "an end without a blank line": lambda body: body.rstrip(b"\n"),
    "cut in sevens": lambda body: body,
}


@needs_corpus
@pytest.mark.parametrize("frame", REFRAMED.values(), ids=REFRAMED)
def test_every_recorded_stream_reads_the_same_in_other_framings(
    frame: Callable[[bytes], bytes],
) -> None:
    """A recorded stream gives the same answer in any other framing."""
    compared = 0
    for row in rows().values():
        if row["sse"] and row["status"] == 200 and row["response_body"]:
            body = row["response_body"].encode().replace(b"\r\n", b"\n")
            same = frame(body)
            pieces = cut(same, list(range(0, len(same), 7 if same is body else 4096)))
            assert read(wire_of(row), pieces) == whole(row["id"]), row["id"]
            compared += 1
    assert compared > 500


@needs_corpus
@pytest.mark.parametrize("kind", RECORDED)
def test_recording_reads_the_same_byte_by_byte(kind: str) -> None:
    """A recorded stream that arrives byte by byte reads the same as in one piece."""
    row = rows()[RECORDED[kind]]
    body = row["response_body"].encode()
    with player() as played:
        whole = played.play(row)
        played.load_pieces(row, [body[i : i + 1] for i in range(len(body))])
        single = played.ask(row)
    assert outcome(single) == outcome(whole)


def outcome(result: ChatResponse | EmberError) -> tuple[Any, ...]:
    """The compared fields of a response or an error."""
    if isinstance(result, EmberError):
        return str(result), result.context.get("partial_text"), result.context.get("usage")
    usage = {name: value for name, value in result.usage.as_dict().items() if name != "cost"}
    return result.text, usage, result.finish_reason, result.tool_calls, result.message


@needs_corpus
@pytest.mark.parametrize("kind", RECORDED)
def test_recording_cut_at_any_byte_is_incomplete_or_whole(kind: str) -> None:
    """A stream cut anywhere is incomplete_stream, or whole if its end marker had arrived."""
    row = rows()[RECORDED[kind]]
    body = row["response_body"].encode()
    whole = read(wire_of(row), [body], row["status"])
    step = max(1, len(body) // 400)
    for end in range(0, len(body), step):
        got = read(wire_of(row), [body[:end]], row["status"])
        assert whole["text"].startswith(got["text"]), end
        if got["error"] is None:
            assert got["text"] == whole["text"], end
        elif got["error"][1] == "incomplete_stream":
            assert got["error"][2] == got["text"] == got["chunks"], end
        else:
            # The same error as for the whole stream, or its type was not yet known.
            assert (whole["error"] and got["error"][1] == whole["error"][1]) or not got["text"], end


# --- framing -----------------------------------------------------------------------------------


def chat_events(*contents: str) -> list[str]:
    """The JSON texts of a chat stream with these pieces."""
    deltas = [{"choices": [{"index": 0, "delta": {"content": content}}]} for content in contents]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return [json.dumps(event, ensure_ascii=False) for event in (*deltas, end, usage)]


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(
    contents=st.lists(texts, min_size=1, max_size=5),
    ends=st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=1, max_size=20),
    noise=st.lists(
        st.sampled_from(["", ": comment", ":", "event: ping", "id: 7", "retry: 10"]), max_size=20
    ),
    space=st.booleans(),
    bom=st.booleans(),
    places=st.lists(st.integers(0, 1 << 16), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_any_framing_of_the_standard_reads_the_same(
    contents: list[str],
    ends: list[str],
    noise: list[str],
    space: bool,
    bom: bool,
    places: list[int],
) -> None:
    """CR, LF, CRLF, BOM, comments, unused fields, raw U+2028 and U+0085: the text is the same."""
    line_ends = _cycle(ends)
    noises = _cycle(noise or [""])
    out = "\ufeff" if bom else ""
    for data in (*chat_events(*contents), "[DONE]"):
        if comment := next(noises):
            out += comment + next(line_ends)
        out += f"data:{' ' if space else ''}{data}" + next(line_ends)
        # A lone CR followed by LF would be a single line end.
        out += "\n\n"
    got = read("openai", cut(out.encode(), places))
    assert got["error"] is None
    assert got["text"] == got["chunks"] == "".join(contents)
    assert got["usage"].total_tokens == 5


def _cycle(values: list[str]) -> Iterator[str]:
    while True:
        yield from values


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("no blank line at the end", "data: {0}\n\ndata: {1}\n\ndata: {2}\n"),
        ("no line end at the end", "data: {0}\n\ndata: {1}\n\ndata: {2}"),
        (
            "data in several lines",
            'data: {{"choices":\ndata: [{{"index": 0, "delta": '
            '{{"content":\ndata:  "é\u2028"}}}}]}}\n\ndata: {1}\n\ndata: {2}\n\n',
        ),
        ("blank lines at the beginning", "\n\n\r\n\ndata: {0}\n\ndata: {1}\n\ndata: {2}\n\n"),
        ("an event without data", "event: ping\n\ndata: {0}\n\ndata: {1}\n\ndata: {2}\n\n"),
        ("an empty data field", "data:\n\ndata: {0}\n\ndata: {1}\n\ndata: {2}\n\n"),
        ("[DONE] twice", "data: {0}\n\ndata: {1}\n\ndata: {2}\n\ndata: [DONE]\n\ndata: [DONE]\n\n"),
        ("[DONE] with spaces", "data: {0}\n\ndata: {1}\n\ndata: {2}\n\ndata:  [DONE] \n\n"),
        ("a keep-alive", ": keepalive\n\n:\n\ndata: {0}\n\ndata: {1}\n\ndata: {2}\n\n"),
        (
            "events that are no objects",
            "data: 7\n\ndata: []\n\ndata: null\n\ndata: {0}\n\ndata: "
            '"x"\n\ndata: {1}\n\ndata: {2}\n\n',
        ),
        ("a JSON array", "[{0},\n{1}\n,{2}]"),
        ("a JSON array with a comma at its end", "[{0},{1},{2},]"),
        ("JSON objects one a line", "{0}\n{1}\n{2}\n"),
    ],
)
def test_framing_variants_of_real_servers_read_the_same(name: str, body: str) -> None:
    """Framing variants of real servers, valid or not, do not change the answer."""
    events = chat_events("é\u2028")
    got = read("openai", [body.format(*events).encode()])
    assert got["error"] is None, name
    assert (got["text"], got["finish"]) == ("é\u2028", "stop")
    assert got["usage"].total_tokens == 5


PRETTY = """{
  "error": {
    "code": 503,
    "message": "The model is overloaded.",
    "status": "UNAVAILABLE",%s
    "details": []
  }
}"""


@pytest.mark.parametrize(
    ("wire", "error", "kind"),
    [
        ("google", PRETTY % "", "overloaded"),
        ("google", f"[{PRETTY % ''}]", "overloaded"),
        ("google", (PRETTY % "").replace('"details": []', '"x": 1,'), "overloaded"),
        ("google", "[" + (PRETTY % "").replace("\n", "\r\n") + "\r\n]\r\n", "overloaded"),
        ("google", f"data: {json.dumps(json.loads(PRETTY % ''))}", "overloaded"),
        ("openai", 'error: {"code":500,"message":"broke","type":"server_error"}\n\ndata: [DONE]',
         "server"),
        ("openai", 'data: {"error":{"message":"broke","type":"server_error"}}\n\ndata: [DONE]',
         "server"),
        ("google", f"data: [{json.dumps(json.loads(PRETTY % ''))}]", "overloaded"),
        ("openai", 'data: {"object":"error","message":"x","type":"rate_limited","code":"1300"}',
         "rate_limit"),
        ("openai", 'data: {"error":{"message":"x","code":"RateLimitReached"}}', "rate_limit"),
        ("openai", 'data: {"error":"broke"}\n\ndata: [DONE]', "unknown"),
        ("openai", 'data: {"error":{"message":"Compute error."},"message":"Compute error."}',
         "unknown"),
        ("openai", 'event: error\ndata: {"error":{"message":"x","code":"rate_limit_exceeded"}}',
         "rate_limit"),
        ("openai", 'data: {"error":{"message":"x","type":"y","param":"z","code":"w"},'
         '"status_code":429}', "rate_limit"),
        ("openai", 'data: {"x_groq":{"id":"r","error":"stopped early"},"choices":[]}', "unknown"),
        ("openai-responses", 'data: {"type":"error","code":"rate_limit_exceeded","message":"slow",'
         '"param":null,"sequence_number":3}', "rate_limit"),
        ("openai-responses", 'data: {"type":"response.failed","response":{"status":"failed",'
         '"error":{"code":"server_error","message":"x"}}}', "server"),
        ("openai-responses", 'data: {"type":"response.failed","response":{"status":"failed",'
         '"error":null}}', "unknown"),
        ("anthropic", 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
         '"message":"Overloaded"}}', "overloaded"),
        ("anthropic", 'data: {"type":"error","error":{"type":"api_error","message":"x"}}',
         "server"),
        ("anthropic", 'data: {"type":"error","error":{"type":"invalid_request_error",'
         '"message":"prompt is too long: 210000 tokens > 200000 maximum"}}', "context_length"),
        ("openai", 'data: {"error":{"message":"Your credit balance is too low","type":'
         '"invalid_request_error","code":null}}', "quota"),
        ("openai", 'data: {"error":{"message":"rate limit","type":"invalid_request_error"}}',
         "invalid_request"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [False, True])
def test_error_inside_a_200_stream(wire: str, error: str, kind: str, first: bool) -> None:
    """An error after text, or as the first event, raises its own type and keeps the text."""
    begun = "" if first else BEGUN[wire] + "\n\n"
    for at in (0, 1):
        body = f"{begun}{error}\n\n".encode()
        got = read(wire, cut(body, list(range(0, len(body) * at, 3))))
        assert got["error"] is not None
        assert got["error"][1] == kind
        assert got["error"][2] == got["chunks"] == ("" if first else "so far")


BEGUN = {
    "openai": 'data: {"choices":[{"index":0,"delta":{"content":"so far"}}]}',
    "openai-responses": 'data: {"type":"response.output_text.delta","delta":"so far"}',
    "anthropic": 'data: {"type":"content_block_delta","index":0,"delta":'
    '{"type":"text_delta","text":"so far"}}',
    "google": 'data: {"candidates":[{"content":{"parts":[{"text":"so far"}]}}]}',
}


@pytest.mark.parametrize("wire", BEGUN)
def test_stream_without_its_end_marker(wire: str) -> None:
    """A stream without its end marker is incomplete_stream, with its text in the context."""
    got = read(wire, [BEGUN[wire].encode() + b"\n\n"])
    assert got["error"] is not None
    assert got["error"][1:] == ("incomplete_stream", "so far")


def test_incomplete_stream_has_the_usage_received() -> None:
    """Usage received before the break is in context['usage'], and the error is not retryable."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9}, "content": []}}
    body = f"data: {json.dumps(start)}\n\n{BEGUN['anthropic']}\n\n".encode()
    streamed = built_in("anthropic").stream("hi", "m", api_key="sk-of-a-test")
    with pytest.raises(ProviderAPIError) as caught:
        list(streamed.read(200, {"request-id": "req_1"}, [body]))
    assert caught.value.context["usage"]["prompt_tokens"] == 9
    assert caught.value.context["request_id"] == "req_1"
    assert caught.value.retryable is False


@pytest.mark.parametrize("body", ["", "\n\n", ": only a comment\n\n", "[]"])
def test_empty_stream_is_incomplete(body: str) -> None:
    """An empty 200 stream is an incomplete answer, and may be retried."""
    got = read("openai", [body.encode()])
    assert got["error"] is not None
    assert got["error"][1:] == ("incomplete_stream", "")


@pytest.mark.parametrize("body", ["<html>hi</html>", '{"ok": true}', "data: {\"ok\": true}\n\n",
                                  "data: not json\n\n", "hello"])  # fmt: skip
@pytest.mark.parametrize("wire", BEGUN)
def test_stream_of_another_format_is_a_bad_response(wire: str, body: str) -> None:
    """A 200 stream with nothing in the wire's format is bad_response, not incomplete."""
    got = read(wire, [body.encode()])
    assert got["error"] is not None
    assert got["error"][1] == "bad_response"
