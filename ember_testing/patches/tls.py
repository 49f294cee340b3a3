"""TLS contexts that load their trust store with their first handshake.

`httpx.Client()` calls `ssl.create_default_context(cafile=...)`, which spends 18 ms on certificates
that a replay never looks at. While one is active, that public function hands out a context with all
its usual settings whose certificates are loaded when somebody shakes hands. Such a context stays
right when it outlives the test: it refuses and trusts what an ordinary one does.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LOCK = threading.Lock()
_create = ssl.create_default_context
_COPIED = ("options", "verify_flags", "minimum_version", "maximum_version", "keylog_filename")


class LateTrust(ssl.SSLContext):
    """A client's context that knows where its trust store is, and loads it when it is needed."""

    _places: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, cafile: Any, capath: Any) -> LateTrust:
        """A context with these certificates, as `ssl.create_default_context` would make it.

        Args:
            cafile: File of certificates.
            capath: Folder of them.

        Raises:
            OSError: The file cannot be read.
        """
        if cafile is not None:
            os.close(os.open(cafile, os.O_RDONLY))
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        template = _template()
        for name in _COPIED:
            if getattr(context, name, None) != (value := getattr(template, name, None)):
                setattr(context, name, value)
        context._places = (cafile, capath)
        return context

    def _load(self) -> None:
        with _LOCK:
            if self._places is not None:
                self.load_verify_locations(*self._places)
                self._places = None

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """See `ssl.SSLContext`."""
        self._load()
        return super().wrap_socket(*arguments, **named)

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext`."""
        self._load()
        return super().wrap_bio(*arguments, **named)

    def cert_store_stats(self) -> dict[str, int]:
        """See `ssl.SSLContext`."""
        self._load()
        return super().cert_store_stats()

    def get_ca_certs(self, binary_form: bool = False) -> Any:
        """See `ssl.SSLContext`."""
        self._load()
        return super().get_ca_certs(binary_form)


@lru_cache(maxsize=1)
def _template() -> ssl.SSLContext:
    """What this Python sets by default; without certificates, and never connected with."""
    return _create(capath="/nonexistent")


def _late(
    purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
    *,
    cafile: Any = None,
    capath: Any = None,
    cadata: Any = None,
) -> ssl.SSLContext:
    if purpose != ssl.Purpose.SERVER_AUTH or cadata or not (cafile or capath):
        return _create(purpose, cafile=cafile, capath=capath, cadata=cadata)
    return LateTrust.of(cafile, capath)


def put_in() -> None:
    """Hand out late contexts from now on."""
    global _create
    current: Callable[..., ssl.SSLContext] = ssl.create_default_context
    if current is not _late:
        _create = current
        ssl.create_default_context = _late


def take_out() -> None:
    """Hand out ordinary ones again, unless somebody has replaced ours meanwhile."""
    if ssl.create_default_context is _late:
        ssl.create_default_context = _create
