"""TLS contexts that are built when they are used, and load their trust store with a handshake.

`httpx.Client()` calls `ssl.create_default_context(cafile=...)`, which spends 18 ms on certificates
that a replay never uses. During a replay that public function returns a stand-in for a context with
all the usual settings that loads its certificates with the first handshake. It remains correct
after the test: it accepts and refuses the same certificates as an ordinary one.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from ember_testing.patches.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable

_LOCK = threading.Lock()
_COPIED = ("options", "verify_flags", "minimum_version", "maximum_version", "keylog_filename")


def _loading(name: str) -> Any:
    """Wrap a method of a context so that it loads the trust store first."""
    inherited = getattr(ssl.SSLContext, name)

    def method(self: LateTrust, *arguments: Any, **named: Any) -> Any:
        self.load()
        return inherited(self, *arguments, **named)

    return method


class LateTrust(ssl.SSLContext):
    """A client's TLS context that loads its trust store when it is needed."""

    _places: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, cafile: Any, capath: Any, template: ssl.SSLContext) -> LateTrust:
        """Return a context like that of `ssl.create_default_context` with these certificates.

        Args:
            cafile: File of certificates.
            capath: Folder of certificates.
            template: The context to copy the settings from.

        """
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


class LateContext:
    """Stands for a `LateTrust`, which is built when an attribute is used: that takes 0.1 ms.

    Args:
        build: Returns the context.
    """

    def __init__(self, build: Callable[[], LateTrust]) -> None:
        vars(self).update(_build=build, _context=None)

    @property  # type: ignore[misc]  # it may be read only: isinstance does so
    def __class__(self) -> type[LateTrust]:  # type: ignore[override]  # as above
        return LateTrust

    def __getattr__(self, name: str) -> Any:
        return getattr(self._built(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._built(), name, value)

    def _built(self) -> LateTrust:
        state = vars(self)
        with _LOCK:
            if state["_context"] is None:
                state["_context"] = state["_build"]()
        context: LateTrust = state["_context"]
        return context


@lru_cache(maxsize=1)
def _template(create: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
    """Return a context with this Python's defaults and no certificates; never used to connect."""
    return create(capath="/nonexistent")


def _late(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """Return a `create_default_context` that returns a stand-in for clients only."""

    def create_default_context(
        purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
        *,
        cafile: Any = None,
        capath: Any = None,
        cadata: Any = None,
    ) -> ssl.SSLContext:
        late = purpose == ssl.Purpose.SERVER_AUTH and not cadata and (cafile or capath)
        # What cannot be read is an error at once.
        readable = cafile is None or os.access(cafile, os.R_OK)
        if not (late and readable and _patch.in_force):
            return create(purpose, cafile=cafile, capath=capath, cadata=cadata)
        build = partial(LateTrust.of, cafile, capath, _template(create))
        return cast("ssl.SSLContext", LateContext(build))

    return create_default_context


_patch = Patch(ssl, "create_default_context", _late)


def install() -> None:
    """Return stand-ins from `ssl.create_default_context` from now on."""
    _patch.install()


def uninstall(*, pause: bool = False) -> None:
    """Return ordinary contexts again; `pause` as in `Patch.uninstall`."""
    _patch.uninstall(pause=pause)
