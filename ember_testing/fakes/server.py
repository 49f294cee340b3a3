"""A provider on this machine that fails as it is told: for clients that no fake reaches.

What `fake_model` answers inside the process, this answers over a real connection: to the vendors'
SDKs, to another process, to another language.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ember_testing.exceptions import ReplayFailure
from ember_testing.fakes.model import FakeModel
from ember_testing.wires.exchange import read_request
from ember_testing.wires.response import Broken, Request, Response

__all__ = ["FaultServer", "fault_server"]

_STALLED_SECONDS = 30.0


class _Ended(Exception):
    """The response breaks off here."""


class FaultServer(FakeModel):
    """A running server; answers are set up as `fake_model`'s are, and calls are kept.

    Attributes:
        url: `http://127.0.0.1:PORT`. OpenAI's clients want `/v1` behind it.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


@contextmanager
def fault_server() -> Generator[FaultServer]:
    """Run a server of OpenAI's, Anthropic's and Google's wires until the block ends.

    with fault_server() as server:
        server("gpt-5.6-sol", rate_limit(retry_after=1), "Paris")
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")

    `timeout` and `stall` hold the connection until the client gives up; `refused` cannot be told
    from `reset`, for something has to listen. A call that nothing answers gets status 501.
    """
    over = threading.Event()

    class Handler(_Handler):
        ended = over

    server = _Server(("127.0.0.1", 0), Handler)
    models = Handler.models = FaultServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield models
    finally:
        models._put_back()  # pyright: ignore[reportPrivateUsage] - of this room
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this machine's name.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what faults are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ended: threading.Event
    models: FaultServer

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_POST(self) -> None:
        """Answer a call."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = tuple(self.headers.items())
        request = Request("POST", f"{self.models.url}{self.path}", headers, body)
        asked = read_request(request.url, body)
        response = Response(501)
        if asked is not None:
            with suppress(ReplayFailure):  # kept in `failures`
                response = self.models.respond(asked, request) or response
        self._send(response)

    def _send(self, response: Response) -> None:
        if response.status is None:
            self._break(response)
            return
        self.send_response(response.status)
        for name, value in response.headers:
            if name.lower() not in ("content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with suppress(_Ended):
            for pause, piece in response.timed_pieces(None, _Ended):
                self.ended.wait(pause)
                if piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        self._break(response)

    def _break(self, response: Response) -> None:
        self.close_connection = True
        error = response.end.error if isinstance(response.end, Broken) else ""
        if error.endswith("Timeout"):
            self.ended.wait(_STALLED_SECONDS)
        elif error != "RemoteProtocolError":
            # A reset rather than an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
