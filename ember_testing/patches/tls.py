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

from ember_testing.patches.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable

_LOCK = threading.Lock()
_COPIED = ("options", "verify_flags", "minimum_version", "maximum_version", "keylog_filename")


def _loading(name: str) -> Any:
    """A method of a context that loads the trust store before it does what it does."""
    inherited = getattr(ssl.SSLContext, name)

    def method(self: LateTrust, *arguments: Any, **named: Any) -> Any:
        self.load()
        return inherited(self, *arguments, **named)

    return method


class LateTrust(ssl.SSLContext):
    """A client's context that knows where its trust store is, and loads it when it is needed."""

    _places: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, cafile: Any, capath: Any, template: ssl.SSLContext) -> LateTrust:
        """A context with these certificates, as `ssl.create_default_context` would make it.

        Args:
            cafile: File of certificates.
            capath: Folder of them.
            template: Has the settings.

        Raises:
            OSError: The file cannot be read.
        """
        if cafile is not None:
            os.close(os.open(cafile, os.O_RDONLY))
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        for name in _COPIED:
            if getattr(context, name, None) != (value := getattr(template, name, None)):
                setattr(context, name, value)
        context._places = (cafile, capath)
        return context

    def load(self) -> None:
        """Load the trust store, once."""
        with _LOCK:
            if self._places is not None:
                self.load_verify_locations(*self._places)
                self._places = None

    wrap_socket = _loading("wrap_socket")
    wrap_bio = _loading("wrap_bio")
    cert_store_stats = _loading("cert_store_stats")
    get_ca_certs = _loading("get_ca_certs")


@lru_cache(maxsize=1)
def _template(create: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
    """What this Python sets by default; without certificates, and never connected with."""
    return create(capath="/nonexistent")


def _late(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """A `create_default_context` that makes clients' contexts late, and no others."""

    def create_default_context(
        purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
        *,
        cafile: Any = None,
        capath: Any = None,
        cadata: Any = None,
    ) -> ssl.SSLContext:
        late = purpose == ssl.Purpose.SERVER_AUTH and not cadata and (cafile or capath)
        if not late or not _patch.in_force:
            return create(purpose, cafile=cafile, capath=capath, cadata=cadata)
        return LateTrust.of(cafile, capath, _template(create))

    return create_default_context


_patch = Patch(ssl, "create_default_context", _late)


def put_in() -> None:
    """Hand out late contexts from now on."""
    _patch.put_in()


def take_out() -> None:
    """Hand out ordinary ones again."""
    _patch.take_out()
