"""Network failures of every kind, produced with real sockets on this machine."""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.transport import send as transport
from tests.loopback import Received, Reply, receive, reset, scripted, serving
from tests.ways import ALL, KEY, PLAIN, STREAMED, completion, events

Way = Callable[..., str]
every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)
plain_ways = pytest.mark.parametrize("way", PLAIN.values(), ids=PLAIN)
streamed_ways = pytest.mark.parametrize("way", STREAMED.values(), ids=STREAMED)

# httpx leaves its generators to the garbage collector if a body ends early, and trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

EVENT = events("Once", " upon")[0]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n"


def failure(way: Way, url: str, **params: Any) -> ProviderAPIError:
    """The error of a call, which shows no key and can be pickled."""
    with pytest.raises(ProviderAPIError) as caught:
        way(url, **params)
    check_fit(caught.value)
    return caught.value


def check_fit(error: ProviderAPIError | ModelProviderError) -> None:
    """Check that no key is in an error, its pickle or its causes, and that the cause is pickled."""
    texts = [str(error), repr(error), repr(error.context), repr(pickle.dumps(error))]
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), repr(cause), repr(vars(cause))]
        request = getattr(cause, "_request", None)
        if request is not None:
            texts += [repr(request.headers.raw), str(request.url), repr(request.content)]
        cause = cause.__cause__ or cause.__context__
    assert not [text for text in texts if KEY in text]
    thawed = pickle.loads(pickle.dumps(error))
    assert str(thawed) == str(error)
    assert thawed.context == error.context
    assert type(thawed.__cause__) is type(error.__cause__)


# --- connecting ---------------------------------------------------------------------------------


@every_way
def test_refused_connection(way: Way) -> None:
    """A port without a listener is a connection error that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert error.retryable
    assert error.context["provider"] == "openai"
    assert error.context["model"] == "gpt-4"
    assert not error.context["in_stream"]
    assert f"{url}/v1/chat/completions" in str(error)
    assert "is the server up" in str(error)
    assert isinstance(error.__cause__, httpx.ConnectError)


@every_way
def test_unknown_host(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that does not resolve is a connection error."""

    def unknown(*args: object, **kwargs: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(way, "http://api.invalid")
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert "http://api.invalid/v1" in str(error)
    assert "not known" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer for a full queue")
@every_way
def test_connection_not_accepted(way: Way) -> None:
    """A server too busy to accept is a timeout in the connect phase, after the connect timeout."""
    with socket.socket() as listener, contextlib.ExitStack() as filling:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = filling.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        error = failure(way, url, timeout={"connect": 0.1, "read": 30})
    assert (error.error_type, error.context["phase"]) == ("timeout", "connect")
    assert error.retryable
    assert "timeout=" in str(error)
    assert isinstance(error.__cause__, httpx.ConnectTimeout)


@every_way
def test_handshake_not_answered(way: Way) -> None:
    """A TLS handshake without an answer is a timeout in the connect phase."""

    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with scripted(silent) as url:
        secure = url.replace("http:", "https:")
        error = failure(way, secure, timeout={"connect": 0.1, "read": 30})
    assert (error.error_type, error.context["phase"]) == ("timeout", "connect")


@every_way
@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1", "127.0.0.1:80", "http://", "http://[::1", "http://a\0b", "http://a/\0",
        "http+unix://", "http+unix://x\0y", "http+unix://x%00y", "http+unix://\0x",
    ],
)  # fmt: skip
def test_invalid_address(way: Way, url: str) -> None:
    """An invalid address is a set-up error that shows it and the remedy."""
    with pytest.raises(ModelProviderError, match="base_url=") as caught:
        way(url)
    assert repr(url)[1:-1] in str(caught.value)
    check_fit(caught.value)


def test_host_label_too_long_for_dns() -> None:
    """A host with a label too long for DNS is a set-up error that shows it."""
    with pytest.raises(ModelProviderError, match=r"a{64}.*base_url="):
        PLAIN["call"](f"http://{'a' * 64}.invalid")


@plain_ways
@pytest.mark.parametrize("key", [f"{KEY} ", f"{KEY}\nx: y", f"{KEY}\N{SNOWMAN}"])
def test_key_that_is_no_header_value(way: Way, key: str) -> None:
    """A key with a blank, a line break or a non-ASCII character is refused and not shown."""
    with serving() as server:
        with pytest.raises(ModelProviderError, match="header") as caught:
            way(server.url, api_key=key)
        assert not server.received
    check_fit(caught.value)


@plain_ways
def test_address_with_a_password(way: Way) -> None:
    """User and password in a base URL do not appear in an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(way, f"http://ember:{KEY}@127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port}/v1" in str(error)


# --- TLS ----------------------------------------------------------------------------------------


def answering(received: Received) -> Reply:
    """Answer with or without streaming, as requested."""
    if received.json().get("stream"):
        return Reply(pieces=events("Hello!"))
    return Reply(json.dumps(completion()).encode())


@every_way
def test_untrusted_certificate(way: Way, server_tls: ssl.SSLContext) -> None:
    """An untrusted certificate is refused, and the error is not retryable."""
    with serving(answering, server_tls) as server:
        error = failure(way, server.url)
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert not error.retryable
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert "SSL_CERT_FILE" in str(error)
    assert server.received == []


@every_way
def test_trusted_certificate(
    way: Way, server_tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE makes a private certificate trusted for the next connection."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(answering, server_tls) as server:
        assert way(server.url) == "Hello!"


def test_calls_in_a_row_share_one_handshake(
    server_tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls in a row share one TLS connection."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(answering, server_tls) as server:
        for _ in range(3):
            PLAIN["call"](server.url)
        assert (server.connections, len(server.received)) == (1, 3)


@plain_ways
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_ca_bundle(
    way: Way,
    server_tls: ssl.SSLContext,
    tmp_path: Path,
    content: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SSL_CERT_FILE naming a missing or a wrong file is a set-up error; no socket is opened."""
    path = tmp_path / "trusted.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with serving(answering, server_tls) as server:
        with pytest.raises(ModelProviderError, match=r"SSL_CERT_FILE=.*trusted\.pem"):
            way(server.url)
        assert server.connections == 0  # the error came before connecting


@every_way
def test_server_without_tls(way: Way) -> None:
    """https:// to a server that speaks plain http is a connection error, not a crash."""
    with serving(answering) as server:
        error = failure(way, server.url.replace("http:", "https:"))
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert "base_url=" in str(error)


# --- the answer ---------------------------------------------------------------------------------


@every_way
def test_reset_before_headers(way: Way) -> None:
    """A connection that is reset before any answer is a connection error."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        reset(connection)

    with scripted(script) as url:
        error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("connection", "read")
    assert error.retryable
    assert isinstance(error.__cause__, httpx.ReadError)


@every_way
def test_closed_before_headers(way: Way) -> None:
    """A connection that is closed before any answer is a connection error."""
    with scripted(receive) as url:
        error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("connection", "read")
    assert isinstance(error.__cause__, httpx.RemoteProtocolError)


@plain_ways
@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
def test_broken_off_answer(way: Way, end: Callable[[socket.socket], None]) -> None:
    """An answer that breaks off in its body is a connection error."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{"id":')
        end(connection)

    with scripted(script) as url:
        error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("connection", "read")
    assert error.retryable
    assert not error.context["in_stream"]


@streamed_ways
@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
def test_broken_off_stream(way: Way, end: Callable[[socket.socket], None]) -> None:
    """A stream that breaks off keeps its text; whether to retry is up to the caller."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(STREAM_HEAD + EVENT)
        time.sleep(0.05)  # a reset overtakes what the client has not read yet
        end(connection)

    with scripted(script) as url:
        error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("incomplete_stream", "stream")
    assert error.context["in_stream"]
    assert error.context["partial_text"] == "Once"
    assert not error.retryable


@every_way
def test_not_http(way: Way) -> None:
    """A server that does not speak HTTP is a connection error that shows what it sent."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(b"220 mail.example ESMTP\r\n\r\n")

    with scripted(script) as url:
        error = failure(way, url)
    assert (error.error_type, error.context["phase"]) == ("connection", "read")
    assert "ESMTP" in str(error)


@every_way
def test_not_json(way: Way) -> None:
    """A 200 that is a web page is a bad response that shows its beginning."""
    page = Reply(b"<html>Welcome to the wifi</html>", headers={"content-type": "text/html"})
    with serving(lambda received: page) as server:
        error = failure(way, server.url)
    assert error.error_type == "bad_response"
    assert error.context["status_code"] == 200
    assert not error.retryable
    assert "Welcome to the wifi" in str(error)
    assert "base_url=" in str(error)


@every_way
def test_broken_gzip(way: Way) -> None:
    """A body whose content encoding is broken is a bad response."""
    headers = {"content-encoding": "gzip"}
    with serving(lambda received: Reply(b"no gzip at all", headers=headers)) as server:
        error = failure(way, server.url)
    assert error.error_type == "bad_response"
    assert not error.retryable
    assert isinstance(error.__cause__, httpx.DecodingError)


@every_way
def test_gzip(way: Way) -> None:
    """A compressed answer is read."""

    def compressed(received: Received) -> Reply:
        plain = answering(received)
        body = plain.body or b"".join(plain.pieces or ())
        return Reply(gzip.compress(body), headers={"content-encoding": "gzip"})

    with serving(compressed) as server:
        assert way(server.url) == "Hello!"


# --- timeouts -----------------------------------------------------------------------------------


@every_way
def test_read_timeout(way: Way) -> None:
    """A server that does not answer is a timeout in the read phase."""
    with serving(lambda received: Reply(delay=0.3)) as server:
        error = failure(way, server.url, timeout={"read": 0.1})
    assert (error.error_type, error.context["phase"]) == ("timeout", "read")
    assert error.retryable
    assert isinstance(error.__cause__, httpx.ReadTimeout)


@streamed_ways
def test_stream_that_stalls(way: Way) -> None:
    """A stream that stalls after some text is a timeout in the stream phase, with that text."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(STREAM_HEAD + EVENT)
        connection.recv(1)

    with scripted(script) as url:
        error = failure(way, url, timeout={"read": 0.1})
    assert (error.error_type, error.context["phase"]) == ("timeout", "stream")
    assert error.context["partial_text"] == "Once"
    assert not error.retryable


@every_way
def test_write_timeout(way: Way) -> None:
    """A server that does not take the request is a timeout in the write phase."""

    def deaf(connection: socket.socket) -> None:
        time.sleep(0.25)

    with scripted(deaf) as url:
        error = failure(way, url, prompt="x" * 20_000_000, timeout={"read": 0.1})
    assert (error.error_type, error.context["phase"]) == ("timeout", "write")
    assert isinstance(error.__cause__, httpx.WriteTimeout)


@plain_ways
def test_total_timeout(way: Way) -> None:
    """An answer that arrives slowly ends at the total timeout, though each single wait is short."""
    dripping = Reply(pieces=[b" "] * 200, pause=0.02)
    with serving(lambda received: dripping) as server:
        error = failure(way, server.url, timeout={"read": 30, "total": 0.5})
        assert server.settles_at(0)
    assert (error.error_type, error.context["phase"]) == ("timeout", "read")
    assert error.retryable
    assert "0.5 s" in str(error)


@every_way
@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 10**400])
def test_timeout_too_large_for_a_socket_is_no_limit(way: Way, seconds: float) -> None:
    """A timeout too large for a socket means no limit, and raises no OverflowError."""
    answer = Reply(json.dumps(completion()).encode())
    stream = Reply(pieces=events("Hello!"))
    with serving(lambda received: stream if b'"stream"' in received.body else answer) as server:
        assert way(server.url, timeout=seconds) == "Hello!"
        assert way(server.url, timeout={"connect": seconds, "read": seconds}) == "Hello!"


@plain_ways
def test_single_number_limits_the_whole_call(way: Way) -> None:
    """A single number limits the whole call."""
    with serving(lambda received: Reply(pieces=[b" "] * 50, pause=0.02)) as server:
        error = failure(way, server.url, timeout=0.1)
    assert error.error_type == "timeout"


# --- proxies ------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that sets a proxy variable; none are set otherwise."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return lambda name, value: monkeypatch.setenv(name, value)


@every_way
def test_proxy_is_used(way: Way, proxy: Callable[[str, str], None]) -> None:
    """HTTP_PROXY is used for a host that only the proxy can reach."""
    with serving(answering) as server:
        host = f"http://api{server.port}.invalid"  # one without an idle connection
        proxy("HTTP_PROXY", server.url)
        assert way(host) == "Hello!"
        assert server.received[0].path == f"{host}/v1/chat/completions"


@every_way
def test_no_proxy(way: Way, proxy: Callable[[str, str], None]) -> None:
    """NO_PROXY bypasses a proxy that would refuse."""
    with serving(answering) as server:
        proxy("ALL_PROXY", "http://127.0.0.1:9")
        proxy("NO_PROXY", "example.com,127.0.0.1")
        assert way(server.url) == "Hello!"


@every_way
@pytest.mark.parametrize(
    ("status", "retryable"), [(b"407 Proxy Authentication Required", False), (b"503 Busy", True)]
)
def test_refusing_proxy(
    way: Way, status: bytes, retryable: bool, proxy: Callable[[str, str], None]
) -> None:
    """The error names a proxy that refuses to connect, without its password."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")

    with scripted(refuse) as url:
        proxy("HTTPS_PROXY", url.replace("http://", f"http://ember:{KEY}@"))
        error = failure(way, "https://api.invalid")
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert error.retryable is retryable
    assert status.decode() in str(error)
    assert f"through the proxy {url}" in str(error)
    assert "HTTPS_PROXY" in str(error)
    assert isinstance(error.__cause__, httpx.ProxyError)


@plain_ways
def test_unreachable_proxy(way: Way, proxy: Callable[[str, str], None]) -> None:
    """If the proxy is down, the error names the proxy as well as the provider."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    proxy("ALL_PROXY", address)
    error = failure(way, "http://unreachable.invalid")
    assert (error.error_type, error.context["phase"]) == ("connection", "connect")
    assert f"through the proxy http://{address}" in str(error)


@plain_ways
@pytest.mark.parametrize("address", ["gopher://127.0.0.1:70", "socks4://127.0.0.1:1080"])
def test_proxy_of_an_unsupported_kind(
    way: Way, address: str, proxy: Callable[[str, str], None]
) -> None:
    """A proxy of an unsupported kind is a set-up error that shows it."""
    proxy("ALL_PROXY", address)
    with pytest.raises(ModelProviderError, match=address) as caught:
        way("http://impossible.invalid")
    assert "ALL_PROXY" in str(caught.value)
    check_fit(caught.value)


# --- the table ----------------------------------------------------------------------------------


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield a class and all its subclasses."""
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


# Abstract, or raised by features that Ember does not use: raise_for_status, redirects.
NOT_RAISED = {
    httpx.RequestError, httpx.TransportError, httpx.TimeoutException, httpx.NetworkError,
    httpx.ProtocolError, httpx.TooManyRedirects,
}  # fmt: skip
REQUEST_ERRORS = sorted(
    (kind for kind in subclasses(httpx.RequestError) if kind.__module__.startswith("httpx")),
    key=lambda kind: kind.__name__,
)


def test_httpx_error_classes_are_found() -> None:
    """The walk finds httpx's errors, so that the next test is not vacuous."""
    assert len(REQUEST_ERRORS) >= 19
    assert set(REQUEST_ERRORS) >= NOT_RAISED


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in REQUEST_ERRORS if kind not in NOT_RAISED])
def test_every_httpx_error_is_mapped(
    kind: type[httpx.RequestError], streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error that a request can raise is mapped to a type other than `unknown`."""

    def broken(self: object, request: httpx.Request) -> NoReturn:
        raise kind("broken", request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", broken)
    way = (STREAMED if streamed else PLAIN)["stream" if streamed else "call"]
    with pytest.raises((ProviderAPIError, ModelProviderError)) as caught:
        way("http://127.0.0.1:9")
    check_fit(caught.value)
    assert isinstance(caught.value.__cause__, kind)
    if isinstance(caught.value, ProviderAPIError):
        assert caught.value.error_type in ("timeout", "connection", "bad_response")
        assert caught.value.context["phase"] in ("connect", "write", "read")
    else:
        assert kind in (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


def test_error_while_closing_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a response is closed is mapped as well."""

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Generator[bytes]:
            yield json.dumps(completion()).encode()

        def close(self) -> NoReturn:
            raise httpx.CloseError("broken")

    def answered(self: object, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Broken())

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answered)
    error = failure(PLAIN["call"], "http://127.0.0.1:9")
    assert (error.error_type, error.context["phase"]) == ("connection", "read")
    request = transport.Request(
        "http://127.0.0.1:9/", {}, b"", transport.Timeout(), "openai", "gpt-4"
    )
    with (
        pytest.raises(ProviderAPIError, match="while closing"),
        transport.StreamedResponse(request),
    ):
        pass  # left before the body is read
