"""The seam: answerers are asked about each request before a library sends it.

Each HTTP library has a module here that replaces public methods of its classes. (A ContextVar would
be invisible to pool threads, which would then reach the network.) A library is patched at once if
it is loaded, else when it is imported; it is never imported for this. When the last answerer is
removed, all patches are undone, or paused if another follows soon.
"""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from ember_testing.patches.exchange import Answerer, answerers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from ember_testing.patches.patch import Patch

__all__ = ["RECORDED", "SEAMS", "install", "is_asked_last", "remove"]

# By the module with the classes: our module that patches them, and the library's usual name.
SEAMS = {
    "httpx": ("seam_httpx", "httpx"),
    "httpx2": ("seam_httpx", "httpx2"),
    "http.client": ("seam_http_client", "http.client (urllib)"),
    "httplib2": ("seam_http_client", "httplib2"),
    "urllib3.connection": ("seam_http_client", "urllib3 (requests, botocore)"),
    "aiohttp": ("seam_aiohttp", "aiohttp"),
}
RECORDED = ", ".join(users for _, users in SEAMS.values())
"""The libraries whose calls are recorded, replayed and faked, for messages."""

_change = threading.RLock()
_patches: dict[str, tuple[ModuleType, Sequence[Patch]]] = {}  # with the patched module


def install(answerer: Answerer, *, first: bool = False) -> None:
    """Add an answerer.

    Args:
        answerer: The answerer to ask from now on.
        first: Whether to ask it before the others rather than after them.
    """
    with _change:
        if not answerers:
            # Not at the front: others (pyfakefs) remove the first entry as their own.
            finders: list[Any] = sys.meta_path
            at = finders.index(PathFinder) if PathFinder in finders else len(finders)
            finders.insert(at, _finder)
            for name in SEAMS:
                if name in sys.modules:
                    _patch_library(name)
        answerers.insert(0 if first else len(answerers), answerer)


def remove(answerer: Answerer, *, pause: bool = False) -> None:
    """Remove an answerer.

    Args:
        answerer: The answerer.
        pause: Whether the patches are paused: another answerer follows soon.
    """
    with _change:
        answerers.remove(answerer)
        if not answerers:
            if _finder in sys.meta_path:
                sys.meta_path.remove(_finder)
            for _, patches in _patches.values():
                for patch in patches:
                    patch.uninstall(pause=pause)


def is_asked_last(answerer: Answerer) -> bool:
    """Return whether this answerer is the last: a request that it does not answer is sent."""
    return answerers[-1:] == [answerer]


def _patch_library(name: str) -> None:
    library = sys.modules[name]
    known, patches = _patches.get(name, (None, ()))
    if known is not library:  # or it has been imported again
        for patch in patches:
            patch.uninstall()
        seam: Any = importlib.import_module(f"ember_testing.patches.{SEAMS[name][0]}")
        patches = seam.Seam(library).patches
        _patches[name] = library, patches
    for patch in patches:
        patch.install()


class _Finder:
    """Patches a library that is imported while there are answerers."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a library's module as usual, and patch it once it is loaded."""
        if name not in SEAMS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            with _change:
                if answerers:
                    _patch_library(name)

        loader.exec_module = exec_module
        return spec


_finder = _Finder()
