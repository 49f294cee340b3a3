"""TLS contexts that are built when they are first used.

`httpx.Client()` calls `ssl.create_default_context(cafile=...)`, which spends 18 ms on certificates
that a replay never uses. During a replay that public function returns a stand-in, which remains
correct after the test: it accepts and refuses the same certificates as an ordinary context.
"""

from __future__ import annotations

import os
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ember_testing.patches.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable

_LOCK = threading.Lock()


class LateContext:
    """Stands for a context, which is built when one of its attributes is used.

    Args:
        build: Returns the context.
    """

    def __init__(self, build: Callable[[], ssl.SSLContext]) -> None:
        vars(self).update(_build=build, _context=None)

    @property  # type: ignore[misc]  # it may be read only: isinstance does so
    def __class__(self) -> type[ssl.SSLContext]:  # type: ignore[override]  # as above
        return ssl.SSLContext

    def __getattr__(self, name: str) -> Any:
        return getattr(self._built(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._built(), name, value)

    def _built(self) -> ssl.SSLContext:
        state = vars(self)
        with _LOCK:
            if state["_context"] is None:
                state["_context"] = state["_build"]()
        context: ssl.SSLContext = state["_context"]
        return context


def _late(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """Return a `create_default_context` that returns a stand-in for clients only."""

    def create_default_context(
        purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
        *,
        cafile: Any = None,
        capath: Any = None,
        cadata: Any = None,
    ) -> ssl.SSLContext:
        build = partial(create, purpose, cafile=cafile, capath=capath, cadata=cadata)
        late = purpose == ssl.Purpose.SERVER_AUTH and not cadata and (cafile or capath)
        if not late or not PATCH.in_force:
            return build()
        if cafile:  # what cannot be read is an error at once
            os.close(os.open(cafile, os.O_RDONLY))  # blockbuster refuses os.access in event loops
        return cast("ssl.SSLContext", LateContext(build))

    return create_default_context


PATCH = Patch(ssl, "create_default_context", _late)
"""While installed, `ssl.create_default_context` returns stand-ins."""
