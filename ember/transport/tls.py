"""The trust store: a TLS context that costs nothing before it is needed."""

from __future__ import annotations

import os
import ssl
import sys
import threading
from typing import Any

from ember.exceptions import ModelProviderError

__all__ = ["trusted"]


class _LateTrust(ssl.SSLContext):
    """A client's TLS context that reads the trust store at its first handshake.

    Reading it takes 18 ms, which a call over plain http, or one that is answered without a
    connection, need not pay.
    """

    def __init__(self, protocol: int, source: tuple[str | None, str | None]) -> None:
        super().__init__()
        self.source = source
        self._lock = threading.Lock()
        self._loaded = False
        if sys.version_info >= (3, 13):
            # What ssl.create_default_context adds from this version on.
            self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Read the trust store, then wrap the socket."""
        self._load()
        return super().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Read the trust store, then wrap the two buffers."""
        self._load()
        return super().wrap_bio(*args, **kwargs)

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            # As httpx does (its create_ssl_context): the environment, else certifi's bundle.
            file, directory = self.source
            if file:
                self._load_from("SSL_CERT_FILE", file, cafile=file)
            elif directory:
                self._load_from("SSL_CERT_DIR", directory, capath=directory)
            else:
                import certifi

                self.load_verify_locations(cafile=certifi.where())
            self._loaded = True

    def _load_from(self, variable: str, path: str, **where: str) -> None:
        try:
            self.load_verify_locations(**where)
        except OSError as error:
            raise ModelProviderError(
                f"{variable}={path!r} cannot be read as trusted certificates in PEM: {error}"
            ) from error


_tls: _LateTrust | None = None


def trusted() -> ssl.SSLContext:
    """The process's TLS context, for what the environment names now.

    Raises:
        ModelProviderError: At its first handshake, if the file of certificates cannot be read.
    """
    global _tls
    source = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    tls = _tls
    if tls is None or tls.source != source:
        _tls = tls = _LateTrust(ssl.PROTOCOL_TLS_CLIENT, source)
    return tls


def _start_afresh() -> None:
    global _tls
    _tls = None  # another thread of the parent may have held its lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
