"""The provider of the benchmarks: answers at once, in a process of its own, on 127.0.0.1.

    python server.py [CERTIFICATE KEY]

It prints its port and serves until its stdin is closed; with a certificate it speaks https. It is
one loop over `select.poll`, so that what is measured is the client and not the server.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys

CHUNKS = 500

_USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


def _response(kind: str, body: bytes) -> bytes:
    # As many headers as OpenAI sends.
    more = "".join(
        f"x-ratelimit-{limit}-{what}: 10000\r\n"
        for limit in ("limit", "remaining", "reset")
        for what in ("requests", "tokens")
    )
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-request-id: req_1\r\n"
        "openai-version: 2020-10-01\r\nopenai-processing-ms: 5\r\n"
        f"set-cookie: __cf_bm=abc; path=/; HttpOnly\r\n{more}"
    ).encode() + body


def _whole(value: object) -> bytes:
    body = json.dumps(value).encode()
    return _response("application/json", b"content-length: %d\r\n\r\n%b" % (len(body), body))


def _chat() -> bytes:
    message = {"role": "assistant", "content": "Hello! How may I help?"}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _whole(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "gpt-4-0613",
            "choices": [choice],
            "usage": _USAGE,
        }
    )


def _message() -> bytes:
    return _whole(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-opus-20240229",
            "content": [{"type": "text", "text": "Hello! How may I help?"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 12},
        }
    )


def _stream() -> list[bytes]:
    """The pieces of a streamed answer, five events each, as they come over a real network."""

    def event(delta: dict[str, str], **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        value = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "gpt-4-0613",
            "choices": [choice | more],
        }
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    usage = {"id": "chatcmpl-1", "model": "gpt-4-0613", "choices": [], "usage": _USAGE}
    events = [event({"content": f" word{n}"}) for n in range(CHUNKS)]
    events.append(event({}, finish_reason="stop"))
    events.append(b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n")
    head = _response("text/event-stream", b"transfer-encoding: chunked\r\n\r\n")
    chunks = [b"%x\r\n%b\r\n" % (len(e), e) for e in events]
    packets = [b"".join(chunks[at : at + 5]) for at in range(0, len(chunks), 5)]
    return [head + packets[0], *packets[1:], b"0\r\n\r\n"]


CHAT, MESSAGE, STREAM = _chat(), _message(), _stream()


class Connection:
    """One client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""

    def serve(self) -> bool:
        """Read what is there, and answer each request that is complete; False at the end."""
        try:
            data = self.sock.recv(65536)
            while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                data += self.sock.recv(65536)
        except OSError:
            return False
        if not data:
            return False
        self._received += data
        while True:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return True
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                return True
            body, self._received = rest[:length], rest[length:]
            if b'"stream":true' in body.replace(b" ", b""):
                for piece in STREAM:
                    self.sock.sendall(piece)
            else:
                self.sock.sendall(MESSAGE if b"/messages" in head.partition(b"\r\n")[0] else CHAT)


def main() -> None:
    """Serve until stdin is closed."""
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*sys.argv[1:3])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
    connections: dict[int, Connection] = {}
    while True:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                return
            if number == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True)
                connections[sock.fileno()] = Connection(sock)
                poll.register(sock, select.POLLIN)
            elif not connections[number].serve():
                poll.unregister(number)
                connections.pop(number).sock.close()


if __name__ == "__main__":
    main()
