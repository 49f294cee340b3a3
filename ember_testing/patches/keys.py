"""Placeholders for the keys that a replayed or faked call need not have.

A recording is made with a key and replayed where there is none: in CI, on a colleague's machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["PLACEHOLDER", "lend", "take_back"]

PLACEHOLDER = "no-key-is-needed-for-this"


def lend() -> Mapping[str, str]:
    """Set the providers' key variables that are not set.

    Returns:
        What was set, for `take_back`.
    """
    # This is done with every test: asking os.environ for a name that it lacks costs an exception.
    present = set(os.environ)
    lent = {
        names[-1]: PLACEHOLDER
        for names in _variables()
        if present.isdisjoint(names) or not any(os.environ.get(name) for name in names)
    }
    os.environ.update(lent)
    return lent


@lru_cache(maxsize=1)
def _variables() -> tuple[tuple[str, ...], ...]:
    """The names under which each provider looks for its key."""
    from ember.providers.servers import SERVERS  # late: loads the client

    return tuple(tuple(server.key_vars) for server in SERVERS.values() if server.key_vars)


def take_back(lent: Mapping[str, str]) -> None:
    """Unset what `lend` set, unless somebody has set it anew meanwhile."""
    for name, value in lent.items():
        if os.environ.get(name) == value:
            del os.environ[name]
