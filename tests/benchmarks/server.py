"""The provider of the benchmarks: answers at once, in a process of its own, on 127.0.0.1.

Run as `python server.py`; it prints its port and serves until its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

CHUNKS = 500

_USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


def _answer() -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "gpt-4-0613",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello! How may I help?"},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    ).encode()
    # As many headers as OpenAI sends.
    more = "".join(
        f"x-ratelimit-{kind}-{what}: 10000\r\n"
        for kind in ("limit", "remaining", "reset")
        for what in ("requests", "tokens")
    )
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n"
        "openai-version: 2020-10-01\r\nopenai-processing-ms: 5\r\n"
        f"set-cookie: __cf_bm=abc; path=/; HttpOnly\r\n{more}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _stream() -> list[bytes]:
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
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return [head, *(b"%x\r\n%b\r\n" % (len(e), e) for e in events), b"0\r\n\r\n"]


ANSWER, STREAM = _answer(), _stream()


class Provider(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while True:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
            body, self._received = rest[:length], rest[length:]
            if b'"stream":true' in body.replace(b" ", b""):
                # Several events a packet, as they come over a real network.
                for at in range(0, len(STREAM), 5):
                    self._transport.write(b"".join(STREAM[at : at + 5]))
            else:
                self._transport.write(ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
