"""Proxies and the handshakes that open a connection through them, without I/O.

A handshake is a generator: it yields bytes to send, possibly b"", and receives the bytes read.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias

import httpcore
import httpx

from ember.exceptions import ModelProviderError
from ember.transport.environment import proxy_for, without_user
from ember.transport.http1 import Headers, ResponseParser, request_head

__all__ = ["Handshake", "Proxy", "proxy_of"]

Handshake: TypeAlias = Generator[bytes, bytes, None]

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
# RFC 1928, section 6.
_SOCKS_REPLIES = (
    "succeeded", "general failure", "not allowed by its rules", "network unreachable",
    "host unreachable", "connection refused", "time to live expired", "command not supported",
    "address type not supported",
)  # fmt: skip


class Proxy(NamedTuple):
    """A proxy from the environment.

    Args:
        scheme: `http`, `https`, `socks5` or `socks5h`; the last two are the same here: the proxy
            resolves host names.
        host: The proxy's host.
        port: The proxy's port.
        credentials: User name and password, or None.
    """

    scheme: str
    host: str
    port: int
    credentials: tuple[bytes, bytes] | None

    def handshake(self, origin: httpcore.Origin) -> Handshake | None:
        """Return the handshake that opens a tunnel to a server; None if the proxy forwards."""
        host, port = origin.host, origin.port
        if self.scheme.startswith("socks"):
            return _socks5(host, port, self.credentials)
        if origin.scheme == b"https":
            return _tunnel(b"%b:%d" % (_bracketed(host), port), self._headers())
        return None

    def forwarded(self, url: httpcore.URL, headers: Headers) -> tuple[bytes, Headers]:
        """Return the target and the headers of a request that the proxy forwards."""
        port = b"" if url.port is None else b":%d" % url.port
        target = b"%b://%b%b%b" % (url.scheme, _bracketed(url.host), port, url.target)
        return target, [*self._headers(), *headers]

    def _headers(self) -> Headers:
        if self.credentials is None:
            return []
        encoded = base64.b64encode(b"%b:%b" % self.credentials)
        return [(b"proxy-authorization", b"Basic " + encoded)]


def proxy_of(origin: httpcore.Origin) -> Proxy | None:
    """Return the proxy for a server from the environment.

    Raises:
        ModelProviderError: The proxy's URL is invalid or its kind unsupported.
    """
    scheme, host = origin.scheme.decode("ascii"), origin.host.decode("ascii")
    address = proxy_for(httpx.URL(scheme=scheme, host=host, port=origin.port))
    if address is None:
        return None
    try:
        proxy = httpx.Proxy(address)
        if not proxy.url.host:
            raise ValueError("it names no host")
    except (ValueError, httpx.InvalidURL) as error:
        raise ModelProviderError(
            f"the proxy {without_user(address)!r} cannot be used: {error}. "
            f"{scheme.upper()}_PROXY or ALL_PROXY names it; NO_PROXY={host} goes past it"
        ) from error
    kind = proxy.url.scheme
    return Proxy(kind, proxy.url.host, proxy.url.port or _PORTS[kind], proxy.raw_auth)


def _bracketed(host: bytes) -> bytes:
    return b"[%b]" % host if b":" in host else host


def _tunnel(target: bytes, headers: Headers) -> Handshake:
    response = ResponseParser()
    send = request_head(b"CONNECT", target, [(b"host", target), (b"accept", b"*/*"), *headers])
    while response.status is None:
        response.feed((yield send))
        send = b""
    if not 200 <= response.status < 300:
        reason = response.reason.decode("ascii", "ignore")
        raise httpcore.ProxyError(f"{response.status} {reason}")


def _socks5(host: bytes, port: int, credentials: tuple[bytes, bytes] | None) -> Handshake:
    """Connect as in RFC 1928, with RFC 1929 for a user name and a password."""
    received = bytearray()

    def exchange(send: bytes, count: int) -> Generator[bytes, bytes, bytes]:
        while len(received) < count:
            data = yield send
            if not data:
                raise httpcore.ProxyError("it closed the connection")
            received.extend(data)
            send = b""
        response = bytes(received[:count])
        del received[:count]
        return response

    method = 0 if credentials is None else 2
    if (yield from exchange(bytes([5, 1, method]), 2)) != bytes([5, method]):
        wants = "no password" if credentials else "a user name and password, or another method"
        raise httpcore.ProxyError(f"it is no SOCKS5 proxy, or it wants {wants}")
    if credentials is not None:
        if max(map(len, credentials)) > 255:
            raise httpcore.ProxyError("its user name or password is longer than 255 bytes")
        name, password = (bytes([len(part)]) + part for part in credentials)
        if (yield from exchange(b"\x01" + name + password, 2))[1]:
            raise httpcore.ProxyError("it refuses the user name or the password")
    to = b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big")
    _, reply, _, address_type, first = yield from exchange(to, 5)
    if reply:
        known = reply < len(_SOCKS_REPLIES)
        why = _SOCKS_REPLIES[reply] if known else f"its reply is {reply}"
        raise httpcore.ProxyError(f"it could not connect: {why}")
    yield from exchange(
        b"", {1: 3, 4: 15}.get(address_type, first) + 2
    )  # the address it connected from


def _socks_address(host: bytes) -> bytes:
    try:
        address: Any = ipaddress.ip_address(host.decode("ascii"))
    except ValueError:
        if len(host) > 255:
            raise httpcore.ProxyError("a host's name is longer than 255 bytes") from None
        return b"\x03" + bytes([len(host)]) + host
    return bytes([1 if address.version == 4 else 4]) + bytes(address.packed)
