"""A real HTTP server on 127.0.0.1 for tests, answering as it is told, piece by piece."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Reply:
    """What the server sends.

    Attributes:
        body: Sent with a content length; or
        pieces: each sent as one chunk of a chunked body.
        status: Of the response.
        headers: Added to the ones the server needs.
        pause: Seconds before each piece.
        delay: Seconds before the response's head.
        cut: Close the connection instead of ending the body.
    """

    body: bytes = b""
    pieces: Sequence[bytes] | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    delay: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class Received:
    """A request that reached the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


Answer = Callable[[Received], Reply]


def echo(request: Received) -> Reply:
    """Answers with the request's own body, so that every answer tells its question."""
    return Reply(b'{"echo": ' + (request.body or b"null") + b"}")


class Loopback:
    """A running server: `url`, all that it `received`, and how many connections it had.

    `connections` counts all that were ever accepted, `open` those that are now.
    """

    def __init__(self, server: _Server, received: list[Received]) -> None:
        self.port = server.server_port
        self.url = server.url
        self.received = received
        self._server = server

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._server.accepted

    @property
    def open(self) -> int:
        """How many connections have not been closed by either side."""
        return self._server.accepted - self._server.ended

    def settles_at(self, count: int, seconds: float = 5.0) -> bool:
        """Whether `open` comes to this number in time: the server learns late of what ends."""
        patience = time.monotonic() + seconds
        while self.open != count and time.monotonic() < patience:
            time.sleep(0.005)
        return self.open == count

    def drop_idle(self) -> None:
        """Close all connections, as a server does with those that are idle for long."""
        self._server.drop()
        assert self.settles_at(0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2048
    tls: ssl.SSLContext | None = None

    def __init__(
        self, host: str, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None
    ) -> None:
        self.accepted = self.ended = 0
        self.tls = tls
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        if "/" in host:
            self.address_family = socket.AF_UNIX
        elif ":" in host:
            self.address_family = socket.AF_INET6
        # http.server's types know TCP only.
        address: Any = host if "/" in host else (host, 0)
        super().__init__(address, handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self.accepted += 1
            self._connections.add(request)
        secured = None
        try:
            if self.tls is not None:
                secured = self.tls.wrap_socket(request, server_side=True)
            super().process_request_thread(secured or request, client_address)
        except (ssl.SSLError, OSError):
            request.close()  # a client that refuses the certificate
        finally:
            with self._lock:
                self.ended += 1
                self._connections.discard(request)

    def drop(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # its client has closed it just now
                    connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this machine's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        address: Any = self.socket.getsockname()
        self.server_address = address
        scheme = "https" if self.tls else "http"
        if isinstance(address, str):
            self.server_port = 0
            self.url = f"{scheme}+unix://{quote(address, safe='')}"
        else:
            host, self.server_port = address[:2]
            self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # What a subclass for one server sets.
    received: list[Received]
    answer: Answer

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if self.headers.get("transfer-encoding") == "chunked":
            body = self._chunked_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.command, self.path, headers, body)
        self.received.append(request)
        self._send(type(self).answer(request))

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST

    def _chunked_body(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.delay)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.pieces is None:
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
        else:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in reply.pieces:
                time.sleep(reply.pause)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            if not reply.cut:
                self.wfile.write(b"0\r\n\r\n")
        if reply.cut:
            self.close_connection = True


@contextmanager
def serving(
    answer: Answer = echo, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Generator[Loopback]:
    """Run a server in a thread of its own until the block ends.

    Args:
        answer: Gets each request, gives the reply.
        tls: With it, the server speaks https.
        host: This machine's address to listen at, or the path of a Unix socket.
    """

    class Handler(_Handler):
        disable_nagle_algorithm = "/" not in host  # a Unix socket has none

    Handler.received, Handler.answer = [], staticmethod(answer)
    server = _Server(host, Handler, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Loopback(server, Handler.received)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def scripted(script: Callable[[socket.socket], None]) -> Generator[str]:
    """A server below HTTP; yields its URL.

    Args:
        script: Gets each connection, in a thread of its own; the connection ends with it.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.02)
    over = threading.Event()
    threads: list[threading.Thread] = []

    def play(connection: socket.socket) -> None:
        # A client that has gone away is what some tests are about.
        with connection, suppress(OSError):
            connection.settimeout(5)
            script(connection)

    def run() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=play, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=run, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        accepting.join()
        for thread in threads:
            thread.join()
        listener.close()


def receive(connection: socket.socket) -> None:
    """Read a whole request: what is left unread makes the end of a connection a reset."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += _some(connection)


def _some(connection: socket.socket) -> bytes:
    if piece := connection.recv(65536):
        return piece
    raise ConnectionResetError("the client has gone away")


def reset(connection: socket.socket) -> None:
    """End a connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def resetting() -> Generator[str]:
    """A server that resets every connection before it answers; yields its URL."""

    def script(connection: socket.socket) -> None:
        receive(connection)
        reset(connection)

    with scripted(script) as url:
        yield url
