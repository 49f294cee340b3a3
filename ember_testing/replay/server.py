"""A cassette as a local server, which forwards and records, or replays.

For clients that cannot be patched: other processes, other languages, clients with raw sockets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from ember_testing.exceptions import CassetteError, ReplayFailure
from ember_testing.patches import network
from ember_testing.patches.exchange import Answerer, Exchange, answer_of, sending
from ember_testing.patches.http_server import BrokenOff, http_server
from ember_testing.replay.cassette import Cassette, opened
from ember_testing.replay.session import Session
from ember_testing.wires.response import NetworkFailure, Request, Response

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from ember_testing.replay.settings import RecordMode

__all__ = ["CassetteServer", "cassette_server", "serving"]

# Headers of a single connection, which are not forwarded.
_OF_THE_CONNECTION = frozenset(
    [
        "connection", "content-length", "expect", "host", "keep-alive", "te", "transfer-encoding",
        "upgrade",
    ]
)  # fmt: skip
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class CassetteServer(Cassette):
    """A running server, and the calls replayed and recorded so far.

    Args:
        session: The session of the cassette.
        port: The port on which the server listens.
    """

    def __init__(self, session: Session, port: int) -> None:
        super().__init__(session)
        self.port = port

    def url(self, provider: str) -> str:
        """Return the server's base URL for a provider.

        Args:
            provider: A provider's name (`openai`, `anthropic`, `groq`), or the base URL of another
                server (`https://gateway.example/v1`).

        Raises:
            ValueError: It is neither.
        """
        from ember.providers.servers import SERVERS  # imported late: it loads Ember's providers

        base = SERVERS[provider].base_url if provider in SERVERS else provider
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(
                f"url({provider!r}): expected a provider's name, such as 'openai', or the base URL "
                "of its server"
            )
        return f"http://127.0.0.1:{self.port}/{parts.scheme}/{parts.netloc}{parts.path.rstrip('/')}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that point a child's clients at the server, such as `OPENAI_BASE_URL`.

        subprocess.run(command, env={**os.environ, **server.environment})
        """
        from ember.providers.servers import SERVERS  # imported late: it loads Ember's providers

        return {
            variable: self.url(name)
            for name, server in SERVERS.items()
            if server.base_url.startswith("https://")
            for variable in server.url_vars
        }


@contextmanager
def cassette_server(
    path: str | os.PathLike[str],
    record: RecordMode | None = None,
    *,
    port: int = 0,
    budget: float | None = None,
    **settings: Any,
) -> Generator[CassetteServer]:
    """Record or replay the calls that reach a server on this machine.

    with cassette_server("calls.sqlite", record="new") as server:
        subprocess.run(command, env={**os.environ, **server.environment})

    While recording, requests are forwarded to the provider with their keys, which are not recorded,
    and the answers are streamed back as they arrive. The process's own calls are not affected.

    Args:
        path: The cassette's file.
        record: None to replay only, `"new"` to record what is missing, `"all"` to record anew.
        port: The port to listen on; 0 for any free port.
        budget: US dollars that recording may cost.
        **settings: Arguments of `ember_testing.cassette`: `match_on`, `ignore`,
            `null_is_absent`, `redact`, `repeats`, `record_errors`, `timing`, `prices`, `faults`.

    Yields:
        The server, with `url(provider)` and `environment`.

    Raises:
        CassetteMiss: A request has no recording; the client got status 400 with the reason.
        CassetteError: The file cannot be read or written.
        ValueError: An argument has an invalid value.
    """
    with opened(Path(path), record, budget, settings) as session, serving(session, port) as server:
        yield server


@contextmanager
def serving(session: Session, port: int = 0) -> Generator[CassetteServer]:
    """Answer requests to a local port from a session; see `cassette_server`."""
    with (
        httpx.Client(timeout=_TIMEOUT, verify=session.record_mode is not None) as client,
        http_server(lambda request: _answer(session, client, request), port) as port,
        network.own_port(port),
    ):
        yield CassetteServer(session, port)


def _answer(session: Session, client: httpx.Client, request: Request) -> Response:
    url = _url_of(request.url)
    if url is None:
        return _refusal(
            f"{request.url!r} names no provider: ask .../https/api.openai.com/v1/..., as "
            "server.url('openai') gives it"
        )
    request = request._replace(url=url)
    try:
        answer = answer_of([Answerer(_is_any, session.answer)], request)
    except (ReplayFailure, CassetteError) as failure:  # raised again when the server ends
        return _refusal(str(failure))
    assert answer is not None  # a session always answers
    if isinstance(answer, Exchange):
        answer = _forwarded(client, request, answer)
    return _with_redirect_here(answer, request.url)


def _is_any(url: str) -> bool:
    return True


def _url_of(target: str) -> str | None:
    """Return the provider's URL from a request's target: `/https/api.openai.com/v1/models`."""
    _, scheme, place = [*target.split("/", 2), "", ""][:3]
    return f"{scheme}://{place}" if scheme in ("http", "https") and place else None


def _with_redirect_here(response: Response, url: str) -> Response:
    """Return the response with a redirect within the provider pointed at this server.

    A redirect to another host is kept: clients send no key to another host, but would send it here.
    """
    if response.status is None or not 300 <= response.status < 400:
        return response
    headers: list[tuple[str, str]] = []
    for name, value in response.headers:
        whole = urljoin(url, value)
        within = urlsplit(whole)[:2] == urlsplit(url)[:2]
        here = f"/{whole.replace('://', '/', 1)}"
        headers.append((name, here if within and name.lower() == "location" else value))
    return response._replace(headers=tuple(headers))


def _refusal(message: str) -> Response:
    """Return an error that clients show and do not retry."""
    body = json.dumps({"error": {"message": message, "type": "ember_cassette", "code": None}})
    return Response(400, (("content-type", "application/json"),), [body.encode()])


def _forwarded(client: httpx.Client, request: Request, exchange: Exchange) -> Response:
    """Forward a request and return the provider's answer as it arrives."""
    headers = [pair for pair in request.headers if pair[0].lower() not in _OF_THE_CONNECTION]
    try:
        # Keep other cassettes of the process from seeing this request.
        with sending(request.method, request.url):
            sent = httpx.Request(request.method, request.url, headers=headers, content=request.body)
            response = client.send(sent, stream=True)
    except httpx.TransportError as error:
        broken = NetworkFailure(type(error).__name__, str(error))
        exchange.finish("failed", broken)
        return Response(None, end=broken)
    pairs = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers.raw)
    exchange.head(response.status_code, pairs, response.http_version, response.reason_phrase)
    passed_on = tuple(pair for pair in pairs if pair[0].lower() not in ("connection", "keep-alive"))
    bodiless = request.method == "HEAD" or response.status_code in (204, 304)
    if bodiless or response.headers.get("content-length") == "0":  # the response is complete
        exchange.finish("complete")
        response.close()
        return Response(response.status_code, passed_on, reason=response.reason_phrase)
    pieces: Any = _pieces(response, exchange)  # an iterator is enough here
    return Response(response.status_code, passed_on, pieces, reason=response.reason_phrase)


def _pieces(response: httpx.Response, exchange: Exchange) -> Iterator[bytes]:
    length, received = response.headers.get("content-length"), 0
    try:
        for piece in response.iter_raw():
            exchange.piece(piece)
            received += len(piece)
            if length == str(received):  # this piece completes the body
                exchange.finish("complete")
            yield piece
        exchange.finish("complete")
    except httpx.TransportError as error:
        broken = NetworkFailure(type(error).__name__, str(error))
        exchange.finish("cut", broken)
        raise BrokenOff(broken) from error
    finally:  # the client may have disconnected
        exchange.finish("closed")
        response.close()
