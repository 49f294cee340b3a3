"""A local proxy that refuses requests of child processes, with the reason, or forwards them.

It runs in one thread, which is stopped while the process forks: Python 3.12 warns of a fork in a
process with several threads, and locks copied while held would never be released.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 5.0  # seconds for a client's request line
_PATIENCE_TO_CONNECT = 60.0  # seconds to reach a host: the client has its own limit
_LONGEST_HEAD = 64 * 1024


class Proxy:
    """A proxy that decides for each request whether to forward it.

    Args:
        refuse: Takes the requested host and port; returns the reason for refusing the request, or
            None to forward it.
    """

    def __init__(self, refuse: Callable[[str, int], str | None]) -> None:
        self._refuse = refuse
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self.is_parents = False  # whether the parent process listens, not this one
        self.port = 0

    def start(self) -> int:
        """Listen, on the same port as before if it is free, and return the port.

        A forked process uses its parent's port if the parent was listening at the fork.
        """
        if self.is_parents:
            return self.port
        if self._listener is None:
            self._listener = _listening(self.port)
            self.port = int(self._listener.getsockname()[1])
        if self._thread is None:
            self._wake = socket.socketpair()
            self._thread = threading.Thread(
                target=self._serve,
                args=(self._listener, self._wake[0]),
                name="ember-proxy",
                daemon=True,
            )
            self._thread.start()
        return self.port

    def pause(self) -> bool:
        """End the thread and return whether it ran; new connections wait until `start`."""
        thread, self._thread = self._thread, None
        if thread is None or self._wake is None:
            return False
        self._wake[1].send(b"x")
        thread.join()
        for end in self._wake:
            end.close()
        self._wake = None
        return True

    def stop(self) -> None:
        """Stop listening."""
        self.pause()
        self._close()
        self.is_parents = False

    def abandon(self) -> None:
        """Close what a forked child has inherited; its parent goes on serving the port."""
        self.is_parents = self.is_parents or self._listener is not None
        self._close()

    def _close(self) -> None:
        self._thread = self._wake = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _serve(self, listener: socket.socket, wake: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if listener in ready:
                    with contextlib.suppress(OSError):
                        self._answer(listener.accept()[0])
                elif wake in ready:
                    return

    def _answer(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(client.close)
            client.settimeout(_PATIENCE)
            head = _head(client)
            if head is None:
                return
            method, target, rest = head
            host, port = _destination(method, target)
            reason = self._refuse(host, port)
            if reason is None:
                stack.pop_all()
                threading.Thread(
                    target=_relay,
                    args=(client, host, port, method, target, rest),
                    name="ember-proxy-relay",
                    daemon=True,
                ).start()
                return
            client.sendall(_refusal(403, reason))


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:  # the port has been taken meanwhile
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _head(client: socket.socket) -> tuple[str, str, bytes] | None:
    """Return method, target and all bytes after the request line; None if not a request."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece or len(data) > _LONGEST_HEAD:
            return None
        data += piece
    line, _, rest = data.partition(b"\r\n")
    words = line.decode("latin-1").split(" ")
    return (words[0], words[1], rest) if len(words) == 3 else None


def _destination(method: str, target: str) -> tuple[str, int]:
    parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.hostname or target, port or (443 if parts.scheme == "https" else 80)


def _refusal(status: int, reason: str) -> bytes:
    body = (reason + "\n").encode()
    # Of a refused CONNECT, clients show the reason phrase but not the body.
    words = reason.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
    return (
        f"HTTP/1.1 {status} {words}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode() + body


def _relay(
    client: socket.socket, host: str, port: int, method: str, target: str, rest: bytes
) -> None:
    """Forward an allowed request, one per connection."""
    fields, _, begun = (b"\r\n" + rest).partition(b"\r\n\r\n")
    with client, contextlib.suppress(OSError):
        try:
            server = socket.create_connection((host, port), timeout=_PATIENCE_TO_CONNECT)
        except OSError as error:
            client.sendall(_refusal(502, f"{host}:{port} cannot be reached: {error}"))
            return
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                server.sendall(begun)
            else:
                server.sendall(_forwarded(method, target, fields) + begun)
            _pump(client, server)


def _forwarded(method: str, target: str, fields: bytes) -> bytes:
    """Return the head of a request in the form that the origin server expects."""
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    between = (b"proxy-", b"connection:")
    lines = [line for line in fields.split(b"\r\n") if line]
    remaining = [line for line in lines if not line.lower().startswith(between)]
    head = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"Connection: close", *remaining]
    return b"\r\n".join(head) + b"\r\n\r\n"


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Forward data in both directions until both sides have ended."""
    one.settimeout(None)
    other.settimeout(None)
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while selector.get_map():
            for key, _ in selector.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if data:
                    target.sendall(data)
                else:  # the other side may still send
                    selector.unregister(source)
                    target.shutdown(socket.SHUT_WR)
