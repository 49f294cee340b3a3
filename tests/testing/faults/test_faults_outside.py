"""Faults as seen by the vendors' packages, and over real connections."""

from __future__ import annotations

import gzip
import itertools
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember_testing import Answer, FaultServer, fault_server
from ember_testing.faults import (
    authentication,
    context_length,
    cut,
    empty_body,
    garbage,
    not_found,
    overloaded,
    quota,
    rate_limit,
    refused,
    reset,
    server_error,
    slow,
    stall,
    timeout,
    wrong_content_type,
)
from ember_testing.wires import answer_response
from ember_testing.wires.answer import plausible_usage
from tests.loopback import reset as reset_connection
from tests.loopback import scripted

# What each vendor's package raises: the exception's name and its status.
PROVIDERS: dict[str, dict[Callable[[], Any], tuple[str, int | None]]] = {
    "openai": {
        rate_limit: ("RateLimitError", 429),
        quota: ("RateLimitError", 429),
        overloaded: ("InternalServerError", 503),
        server_error: ("InternalServerError", 500),
        authentication: ("AuthenticationError", 401),
        not_found: ("NotFoundError", 404),
        context_length: ("BadRequestError", 400),
        timeout: ("APITimeoutError", None),
        reset: ("APIConnectionError", None),
        refused: ("APIConnectionError", None),
    },
    "anthropic": {
        rate_limit: ("RateLimitError", 429),
        quota: ("PaymentRequiredError", 402),
        overloaded: ("OverloadedError", 529),
        server_error: ("InternalServerError", 500),
        authentication: ("AuthenticationError", 401),
        not_found: ("NotFoundError", 404),
        context_length: ("BadRequestError", 400),
        timeout: ("APITimeoutError", None),
        reset: ("APIConnectionError", None),
        refused: ("APIConnectionError", None),
    },
    "google": {
        rate_limit: ("ClientError", 429),
        quota: ("ClientError", 402),
        overloaded: ("ServerError", 503),
        server_error: ("ServerError", 500),
        authentication: ("ClientError", 400),
        not_found: ("ClientError", 404),
        context_length: ("ClientError", 400),
        timeout: ("ReadTimeout", None),
        reset: ("ReadError", None),
        refused: ("ReadError", None),
    },
}
# Damage to an answer, and the result in each package, whole and streamed: the name of an exception,
# or the returned text.
ANSWER = "One two three four five six seven."
DAMAGE: dict[str, tuple[Any, dict[str, tuple[str, str]]]] = {
    "cut": (
        cut(5, answer=ANSWER),
        {
            "openai": ("APIConnectionError", "APIConnectionError"),
            "anthropic": ("APIConnectionError", "RemoteProtocolError"),
            "google": ("RemoteProtocolError", "RemoteProtocolError"),
        },
    ),
    "cut in silence": (
        cut(5, silent=True, answer=ANSWER),
        {
            "openai": ("JSONDecodeError", "'One two three four'"),
            "anthropic": ("JSONDecodeError", "'One two three'"),
            "google": ("JSONDecodeError", "'One two three four five'"),
        },
    ),
    "stall": (
        stall(5, answer=ANSWER),
        {
            "openai": ("APITimeoutError", "APITimeoutError"),
            "anthropic": ("APITimeoutError", "ReadTimeout"),
            "google": ("ReadTimeout", "ReadTimeout"),
        },
    ),
    "garbage": (
        garbage(),
        {
            "openai": ("JSONDecodeError", "UnicodeDecodeError"),
            "anthropic": ("JSONDecodeError", "UnicodeDecodeError"),
            "google": ("JSONDecodeError", "UnknownApiResponseError"),
        },
    ),
    "empty_body": (
        empty_body(),
        {
            "openai": ("JSONDecodeError", "''"),
            "anthropic": ("JSONDecodeError", "''"),
            "google": ("'None'", "''"),
        },
    ),
    "wrong_content_type": (
        wrong_content_type(),
        {
            "openai": ("AttributeError", "''"),
            "anthropic": ("AttributeError", "''"),
            "google": ("JSONDecodeError", "UnknownApiResponseError"),
        },
    ),
}
CASES = [(vendor, fault) for vendor, faults in PROVIDERS.items() for fault in faults]
# The clients' timeouts in seconds: for answers that never come, and for all others.
SHORT, LONG = 0.3, 10.0


def ask_openai(url: str, stream: bool = False, seconds: float = LONG) -> str:
    """Return the answer's text, using OpenAI's package."""
    openai = pytest.importorskip("openai", reason="in the extra dev")
    with openai.OpenAI(
        api_key="any", base_url=f"{url}/v1", max_retries=0, timeout=seconds
    ) as client:
        turns = [{"role": "user", "content": "hi"}]
        create = client.chat.completions.create
        if stream:
            chunks = create(model="gpt-4", messages=turns, stream=True)
            pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
            return "".join(pieces)
        return str(create(model="gpt-4", messages=turns).choices[0].message.content)


def ask_anthropic(url: str, stream: bool = False, seconds: float = LONG) -> str:
    """Return the answer's text, using Anthropic's package."""
    anthropic = pytest.importorskip("anthropic", reason="in the extra dev")
    with anthropic.Anthropic(api_key="any", base_url=url, max_retries=0, timeout=seconds) as client:
        turns = [{"role": "user", "content": "hi"}]
        asked = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": turns}
        if stream:
            with client.messages.stream(**asked) as events:
                return "".join(events.text_stream)
        return str(client.messages.create(**asked).content[0].text)


def ask_google(url: str, stream: bool = False, seconds: float = LONG) -> str:
    """Return the answer's text, using Google's package."""
    genai = pytest.importorskip("google.genai", reason="in the extra dev, from Python 3.11")
    options = {
        "base_url": url,
        "timeout": int(seconds * 1000),
        "retry_options": {"attempts": 1},
    }
    with genai.Client(api_key="any", http_options=options) as client:
        if stream:
            found = client.models.generate_content_stream(model="gemini-pro", contents="hi")
            return "".join(chunk.text or "" for chunk in found)
        return str(client.models.generate_content(model="gemini-pro", contents="hi").text)


ASK = {"openai": ask_openai, "anthropic": ask_anthropic, "google": ask_google}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the vendors' own packages
@pytest.mark.parametrize("vendor", ASK)
def test_a_vendors_package_reads_the_answers(vendor: str) -> None:
    """The vendor's package reads the server's answers, whole and streamed."""
    with fault_server() as server:
        server("*", "Paris", Answer(chunks=["Par", "is"]))
        assert ASK[vendor](server.url) == "Paris"
        assert ASK[vendor](server.url, True) == "Paris"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the vendors' own packages
@pytest.mark.parametrize(
    ("vendor", "fault"), CASES, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_vendors_package_sees_its_own_error(vendor: str, fault: Callable[[], Any]) -> None:
    """Each fault raises the matching exception of the vendor's package, with its status."""
    name, status = PROVIDERS[vendor][fault]
    with fault_server() as server:
        server("*", fault())
        with pytest.raises(Exception) as caught:
            ASK[vendor](server.url, seconds=SHORT if fault is timeout else LONG)
    assert type(caught.value).__name__ == name
    code = getattr(caught.value, "status_code", None) or getattr(caught.value, "code", None)
    assert status is None or code == status


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the vendors' own packages
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("vendor", ASK)
def test_vendors_package_raises_on_a_damaged_answer(vendor: str, damage: str, stream: bool) -> None:
    """For a damaged answer the vendor's package raises, or returns only a part of the text."""
    fault, outcomes = DAMAGE[damage]
    with fault_server() as server:
        server("*", fault)
        try:
            outcome = repr(ASK[vendor](server.url, stream, SHORT if damage == "stall" else LONG))
        except Exception as error:
            outcome = type(error).__name__
    assert outcome == outcomes[vendor][stream]


# --- Ember over a real connection ----------------------------------------------------------------


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Send the three vendors' calls to a URL."""
    for name in ("OPENAI", "ANTHROPIC", "GOOGLE"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-of-a-test")

    def aim(url: str) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url)

    return aim


MODELS = {"openai": "gpt-4", "openai-responses": "o3-pro", "anthropic": "claude-3-opus",
          "google": "gemini-pro"}  # fmt: skip
TEXT = "Zażółć gęślą jaźń, 東京 \U0001f5fc und \u2028 mehr."


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.parametrize(
    ("fault", "error_type"),
    [
        (rate_limit(retry_after=3), "rate_limit"),
        (cut(6), "incomplete_stream"),
        (cut(6, silent=True), "incomplete_stream"),
        (stall(6), "timeout"),
        (overloaded(after_chunks=6), "overloaded"),
    ],
    ids=["rate_limit", "cut", "cut in silence", "stall", "error inside"],
)
def test_fault_over_a_connection_raises_the_same_error_as_a_fake(
    wire: str, fault: Any, error_type: str, at: Callable[[str], None]
) -> None:
    """A fault over a real connection raises the same error in Ember as in a fake."""
    with fault_server() as server:
        at(server.url)
        server("*", fault)
        pieces: list[str] = []
        with pytest.raises(ProviderAPIError) as caught:
            seconds = SHORT if error_type == "timeout" else LONG
            for chunk in models.stream(MODELS[wire], "hi", timeout=seconds):
                pieces.append(chunk.text)
    assert caught.value.error_type == error_type
    assert caught.value.context.get("partial_text", "") == "".join(pieces)
    assert bool(pieces) == (error_type != "rate_limit")
    assert caught.value.retry_after == (3 if error_type == "rate_limit" else None)


def wire_bytes(wire: str, stream: bool = True) -> bytes:
    """Return the bytes of an answer on a wire."""
    answer = Answer(TEXT)
    return answer_response(wire, "m", answer, plausible_usage("hi", answer), 1, stream=stream).body


def read_request(connection: socket.socket) -> None:
    """Read all of a request: unread bytes would turn the close of the connection into a reset."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


def served_raw(head: str, pieces: list[bytes], pause: float = 0.0, first: float = 0.0) -> Any:
    """Run a server that sends exactly these bytes and closes the connection."""

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_request(connection)
        time.sleep(first)
        connection.sendall(head.encode())
        for piece in pieces:
            time.sleep(pause)
            connection.sendall(piece)

    return scripted(script)


HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"


@pytest.mark.parametrize("wire", MODELS)
def test_chunks_split_inside_a_character_or_line_are_joined(
    wire: str, at: Callable[[str], None]
) -> None:
    """Chunks that end inside a UTF-8 character or inside an SSE line are joined correctly."""
    body = wire_bytes(wire)
    inside_character = body.index("東".encode()) + 1
    inside_field = body.index(b"data:") + 2
    edges = sorted({0, inside_field, inside_character, len(body)})
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    with served_raw(f"{HEAD}\r\n", pieces, pause=0.02) as url:
        at(url)
        with models.stream(MODELS[wire], "hi") as stream:
            assert "".join(chunk.text for chunk in stream) == TEXT


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", MODELS)
def test_compressed_answer_is_read(wire: str, stream: bool, at: Callable[[str], None]) -> None:
    """A compressed answer, split inside the compressed data, is read like a plain one."""
    packed = gzip.compress(wire_bytes(wire, stream))
    head = f"{HEAD}content-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    with served_raw(head, [packed[:15], packed[15:]], pause=0.02) as url:
        at(url)
        if stream:
            with models.stream(MODELS[wire], "hi") as pieces:
                assert "".join(chunk.text for chunk in pieces) == TEXT
        else:
            assert models(MODELS[wire], "hi").text == TEXT


def test_late_answer_is_complete_or_a_timeout(at: Callable[[str], None]) -> None:
    """A late answer is complete within the timeout, and a timeout error beyond it."""
    with served_raw(f"{HEAD}\r\n", [wire_bytes("openai")], first=0.3) as url:
        at(url)
        with models.stream("gpt-4", "hi", timeout=5) as stream:
            assert "".join(chunk.text for chunk in stream) == TEXT
        with pytest.raises(ProviderAPIError, match="no answer in time") as caught:
            models("gpt-4", "hi", timeout={"read": 0.05})
        assert caught.value.error_type == "timeout"


def test_reset_before_the_headers_is_retryable(at: Callable[[str], None]) -> None:
    """A connection reset before the headers is a retryable error."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        reset_connection(connection)

    with scripted(script) as url:
        at(url)
        with pytest.raises(ProviderAPIError) as caught:
            models("claude-3-opus", "hi")
    assert caught.value.error_type == "connection"
    assert caught.value.retryable


def test_slow_answer_is_sent_with_its_pauses(at: Callable[[str], None]) -> None:
    """The server sends a slow answer chunk by chunk, with its pauses."""
    with fault_server() as server:
        assert isinstance(server, FaultServer)
        at(server.url)
        server("gpt-4", slow(0.02, answer=Answer(chunks=["a", "b"])))
        started = time.monotonic()
        with models.stream("gpt-4", "hi") as stream:
            assert "".join(chunk.text for chunk in stream) == "ab"
        assert time.monotonic() - started > 0.08


def test_unanswered_call_gets_status_501(at: Callable[[str], None]) -> None:
    """A call without an answer gets status 501 and is listed among the failures."""
    with fault_server() as server:
        at(server.url)
        with pytest.raises(ProviderAPIError, match="501"):
            models("gpt-4", "hi")
        assert "nothing is set up" in str(server.failures[0])
