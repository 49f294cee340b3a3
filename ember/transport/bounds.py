"""Limits set by the environment: the size of a response body and idle connections."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import httpx

from ember.exceptions import ModelProviderError

__all__ = ["BodyTooLong", "ContentDecoder", "IdleLimits", "idle_limits"]

# More than any provider sends: a response with several large images has about 50 MB.
_MAX_BODY_BYTES = 128 * 1024 * 1024
# A small piece can decode to a thousand times its size; at most this much is decoded at once.
_PIECE_BYTES = 1024 * 1024
# The window size that makes zlib expect a gzip header.
_GZIP = 16 + zlib.MAX_WBITS


class IdleLimits(NamedTuple):
    """Limits on idle connections.

    Args:
        seconds: How long each is kept.
        connections: How many are kept per origin.
    """

    seconds: float
    connections: float


def idle_limits() -> IdleLimits:
    """Return the limits that the environment sets now.

    Raises:
        ModelProviderError: A variable is not a number of 0 or more.
    """
    # Most load balancers close an idle connection after 60 s or more; with httpx's default of 5 s
    # a program that calls rarely would open a new one each time.
    seconds = _number("EMBER_KEEPALIVE_SECONDS", 30.0)
    return IdleLimits(seconds, _number("EMBER_MAX_IDLE_CONNECTIONS", _half_of_descriptors()))


def _half_of_descriptors() -> float:
    """Return half the number of files that the process may open.

    A program that made a thousand calls at once gets all its connections back, and room to open
    files while they are idle.
    """
    try:
        import resource  # Unix only
    except ImportError:
        return math.inf
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if most == resource.RLIM_INFINITY else float(most // 2)


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise ModelProviderError(
            f"{variable}={text!r} is not a number of 0 or more, such as {default:g}",
            {"variable": variable},
        )
    return value


class BodyTooLong(httpx.TransportError):
    """A body longer than `EMBER_MAX_BODY_BYTES` allows."""


class ContentDecoder:
    """An incremental decoder for the content encoding of one body, with a length limit.

    Unknown encodings, such as `utf-8`, are ignored, as in httpx.

    Args:
        headers: The response's headers, with names in lower case.

    Raises:
        httpx.DecodingError: The body has several encodings, or one that was not requested.
        ModelProviderError: `EMBER_MAX_BODY_BYTES` is not a number of 0 or more.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._most: float = _MAX_BODY_BYTES
        if "EMBER_MAX_BODY_BYTES" in os.environ:
            self._most = _number("EMBER_MAX_BODY_BYTES", _MAX_BODY_BYTES)
        self._length = 0
        self._inflater = None
        self._header = b""  # the zlib header of "deflate", which some servers omit
        self._encoding = encoding = headers.get("content-encoding", "").strip().lower()
        if encoding in ("br", "zstd", "compress") or "," in encoding:
            raise httpx.DecodingError(f"content-encoding {encoding!r} was not asked for")
        if encoding in ("gzip", "x-gzip"):
            self._inflater = zlib.decompressobj(_GZIP)

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Decode a piece of the body.

        Raises:
            BodyTooLong: The decoded body exceeds the limit.
            httpx.DecodingError: The encoded data is invalid.
        """
        if self._inflater is None:
            if self._encoding != "deflate":
                self._length += len(data)
                if self._length > self._most:
                    raise self._too_long()
                return (data,)
            data = self._header = self._header + data
            if len(data) < 2:
                return ()
            has_header = data[0] % 16 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._inflater.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise httpx.DecodingError(str(error)) from error
            self._length += len(piece)
            if self._length > self._most:
                raise self._too_long()
            if piece:
                pieces.append(piece)
            data = self._inflater.unconsumed_tail
            if not data and len(piece) < _PIECE_BYTES:
                return pieces

    def _too_long(self) -> BodyTooLong:
        return BodyTooLong(f"EMBER_MAX_BODY_BYTES allows {self._most:.0f} bytes, decoded")
