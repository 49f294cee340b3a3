"""The trust store, loaded when the first connection needs it."""

from __future__ import annotations

import os
import ssl
import sys
import threading

from ember.exceptions import ModelProviderError

__all__ = ["ssl_context"]

_Source = tuple[str | None, str | None]

_lock = threading.Lock()
_loaded: tuple[_Source, ssl.SSLContext] | None = None


def ssl_context() -> ssl.SSLContext:
    """Return the process's TLS context for the current environment.

    Loading the trust store takes 18 ms; a call over plain http, or one answered without a
    connection, does not need it.

    Raises:
        ModelProviderError: The certificates cannot be read.
    """
    global _loaded
    source = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    with _lock:
        if _loaded is None or _loaded[0] != source:
            _loaded = (source, _context(source))
        return _loaded[1]


def _context(source: _Source) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if sys.version_info >= (3, 13):
        # ssl.create_default_context sets these since 3.13.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    # As in httpx's create_ssl_context: the environment, else certifi's CA bundle.
    file, directory = source
    variable, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", directory)
    if not path:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
        return context
    try:
        context.load_verify_locations(file or None, None if file else path)
    except OSError as error:
        raise ModelProviderError(
            f"{variable}={path!r} cannot be read as trusted certificates in PEM: {error}"
        ) from error
    return context


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
