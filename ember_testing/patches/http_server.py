"""A small local HTTP server that answers each request with a `Response`.

It serves fakes and recordings over a real connection, to other processes, other languages, and
clients that no seam reaches.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeAlias

from ember_testing.exceptions import ReplayFailure
from ember_testing.patches.http_bytes import response_bytes
from ember_testing.wires.response import HeaderValue, NetworkFailure, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Answer", "BrokenOff", "http_server"]

_STALLED_SECONDS = 30.0

# Takes the request, whose URL is only the path; returns the response.
Answer: TypeAlias = "Callable[[Request], Response]"


@contextmanager
def http_server(answer: Answer, port: int = 0) -> Generator[int]:
    """Run a server until the block ends.

    A timeout holds the connection until the client gives up. A connection cannot be refused while
    the server listens, so it is reset instead.

    Args:
        answer: Called for each request in its own thread; the URL is the request's target.
        port: Port on 127.0.0.1; 0 for any free one.

    Yields:
        The port.
    """
    over = threading.Event()
    # One class per server, because http.server creates the instances.
    handler = type("Handler", (_Handler,), {"over": over, "answer": staticmethod(answer)})
    server = _Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up this machine's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: faults make clients disconnect."""


class BrokenOff(Exception):
    """The response ends here with a fault."""

    def __init__(self, broken: NetworkFailure) -> None:
        self.broken = broken


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    over: threading.Event
    answer: Answer

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _respond(self) -> None:
        headers = tuple((name, HeaderValue(value)) for name, value in self.headers.items())
        request = Request(self.command, self.path, headers, self._body())
        try:
            response = self.answer(request)
            if response.status is not None:
                self.log_request(response.status)
            self._send(response)
        except BrokenOff as end:
            self._break(end.broken.error)
        except ReplayFailure:  # already reported to the server's owner
            self._break("")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _respond

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("transfer-encoding") or "").lower():
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _send(self, response: Response) -> None:
        close: Any = getattr(response.pieces, "close", None)
        try:
            for pause, data in response_bytes(response, None, BrokenOff):
                self.over.wait(pause)
                self.wfile.write(data)
                self.wfile.flush()
                if self.command == "HEAD":
                    break
        except OSError:  # the client has disconnected
            self.close_connection = True
        finally:
            if close is not None:
                close()
        if dict(response.headers).get("connection", "").lower() == "close":
            self.close_connection = True

    def _break(self, error: str) -> None:
        self.close_connection = True
        if error.endswith("Timeout"):
            self.over.wait(_STALLED_SECONDS)
        elif error != "RemoteProtocolError":
            with suppress(OSError):  # reset the connection instead of closing it normally
                lingers = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
            self.connection.close()
