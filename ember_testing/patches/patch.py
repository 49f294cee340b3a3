"""Replace an attribute of another library temporarily, and restore it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patch", "uninstall_paused"]

_ABSENT: Any = object()


class Patch:
    """A replaced attribute.

    Another patch of the same attribute that ends later may keep or restore the replacement. So a
    replacement must call the original, and do nothing else while this patch is not in force.

    Args:
        owner: The module or class.
        name: The attribute's name.
        replacement: Takes the original and returns its replacement; called with each `install`.
    """

    def __init__(self, owner: Any, name: str, replacement: Callable[[Any], Any]) -> None:
        self.in_force = False
        self._owner = owner
        self._name = name
        self._replacement = replacement
        # Replacements and what they replaced. An earlier one stays in the list as long as another
        # library's patch lies over it.
        self._layers: list[tuple[Any, Any]] = []

    def install(self) -> None:
        """Replace the attribute, unless it is replaced already."""
        if self.in_force:
            return
        if not (self._layers and self._layers[-1][0] is self._present()):  # not paused
            self.uninstall()
            before = self._present()
            ours = self._replacement(getattr(self._owner, self._name))
            setattr(self._owner, self._name, ours)
            self._layers.append((ours, before))
        _paused.discard(self)
        self.in_force = True

    def uninstall(self, *, pause: bool = False) -> None:
        """Restore the original, unless the attribute has been replaced again meanwhile.

        Args:
            pause: Leave the replacement until `install` or `uninstall_paused`; it does nothing.
        """
        self.in_force = False
        if pause:
            _paused.add(self)
            return
        _paused.discard(self)
        while layer := next((each for each in self._layers if each[0] is self._present()), None):
            self._layers.remove(layer)
            if layer[1] is _ABSENT:  # the attribute was inherited
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, layer[1])

    def _present(self) -> Any:
        attributes: dict[str, Any] = self._owner.__dict__
        return attributes.get(self._name, _ABSENT)


_paused: set[Patch] = set()


def uninstall_paused() -> None:
    """Uninstall each patch that is paused."""
    for patch in [*_paused]:
        patch.uninstall()
