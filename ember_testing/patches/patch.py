"""One attribute of somebody else's code, replaced for a while and put back as it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patch"]

_ABSENT: Any = object()


class Patch:
    """A replaced attribute.

    Somebody who patches it as well, and ends later, may keep what stands here or bring it back: so
    a replacement goes on calling what it replaced, and does nothing else while the patch is out.

    Args:
        owner: The module or class.
        name: Of the attribute.
        replacement: Gets what stands there, gives what takes its place; asked with each `put_in`.

    Attributes:
        in_force: Whether it is put in.
    """

    def __init__(self, owner: Any, name: str, replacement: Callable[[Any], Any]) -> None:
        self.in_force = False
        self._owner = owner
        self._name = name
        self._replacement = replacement
        # What was put in, and what stood there before: of earlier blocks as well, as long as
        # somebody else's patch stands above it.
        self._layers: list[tuple[Any, Any]] = []

    def put_in(self) -> None:
        """Replace the attribute, unless it is replaced already."""
        if not self.in_force:
            self.take_out()
            before = self._present()
            ours = self._replacement(getattr(self._owner, self._name))
            setattr(self._owner, self._name, ours)
            self._layers.append((ours, before))
            self.in_force = True

    def take_out(self) -> None:
        """Put back what was there, unless somebody has replaced ours: then that stays."""
        self.in_force = False
        while layer := next((each for each in self._layers if each[0] is self._present()), None):
            self._layers.remove(layer)
            if layer[1] is _ABSENT:  # it was inherited
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, layer[1])

    def _present(self) -> Any:
        attributes: dict[str, Any] = self._owner.__dict__
        return attributes.get(self._name, _ABSENT)
