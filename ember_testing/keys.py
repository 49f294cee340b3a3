"""Placeholders for the keys that a replayed or faked call need not have.

A recording is made with a key and replayed where there is none: in CI, on a colleague's machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["PLACEHOLDER", "lend", "take_back"]

PLACEHOLDER = "no-key-is-needed-for-this"


def lend() -> Mapping[str, str]:
    """Set the providers' key variables that are not set.

    Returns:
        What was set, for `take_back`.
    """
    from ember.models.providers.compatible import WIRES  # late: it is all of Ember

    lent: dict[str, str] = {}
    for wire in WIRES.values():
        names = wire.server.key_vars
        if names and not any(os.environ.get(name) for name in names):
            lent[names[-1]] = PLACEHOLDER
    os.environ.update(lent)
    return lent


def take_back(lent: Mapping[str, str]) -> None:
    """Unset what `lend` set, unless somebody has set it anew meanwhile."""
    for name, value in lent.items():
        if os.environ.get(name) == value:
            del os.environ[name]
