"""Placeholders for the API keys that a replayed or faked call does not need.

A recording is made with a key and replayed without one: in CI, on a colleague's machine.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

from ember_testing.patches import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PLACEHOLDER",
    "missing",
    "providers",
    "restore_placeholders",
    "restore_variables",
    "set_placeholders",
    "set_variables",
]

PLACEHOLDER = "no-key-is-needed-for-this"

# Variables that the vendors' packages read in addition to those of Ember's table of servers; if
# they are unset, the packages raise before anything is sent.
_OF_PACKAGES = {
    "AI21_API_KEY": PLACEHOLDER,
    "COHERE_API_KEY": PLACEHOLDER,
    "CO_API_KEY": PLACEHOLDER,
    "DASHSCOPE_API_KEY": PLACEHOLDER,
    "HF_TOKEN": f"hf_{PLACEHOLDER}",  # a token without hf_ is sent directly to another host
    "PORTKEY_API_KEY": PLACEHOLDER,
    "REPLICATE_API_TOKEN": PLACEHOLDER,
    "VOYAGE_API_KEY": PLACEHOLDER,
    "ZAI_API_KEY": PLACEHOLDER,
    # An id and a secret, of which the package makes a token.
    "ZHIPUAI_API_KEY": PLACEHOLDER.replace("-", ".", 1),
}
# Where botocore finds credentials without the network, and the two variables that it needs.
_OF_AWS = ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
_AWS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), PLACEHOLDER)

_change = threading.RLock()
# By variable: its owners and their values, of which the last is in force; and the original value.
_set: dict[str, list[tuple[object, str]]] = {}
_before: dict[str, str | None] = {}
_placeholders: dict[str, str] = {}  # all that were ever set
# The version of the environment in which no placeholder of this owner was missing.
_complete: tuple[object, object] = (None, None)


def set_variables(owner: object, values: Mapping[str, str]) -> None:
    """Set variables until `restore_variables`.

    Args:
        owner: Identifies the caller; several owners may set one variable and end in any order.
        values: Values by name; another owner's value takes precedence over a placeholder.
    """
    with _change:
        present = set(os.environ)  # looking up a missing name costs an exception
        for name, value in values.items():
            if name not in _set:
                _before[name] = os.environ[name] if name in present else None
            owners = _set.setdefault(name, [])
            if owners and value == PLACEHOLDER:
                owners.insert(0, (owner, value))
            else:
                owners.append((owner, value))
                os.environ[name] = value


def restore_variables(owner: object) -> None:
    """Restore the variables that an owner has set, except those changed meanwhile."""
    global _complete
    with _change:
        _complete = (None, None)
        for name in _names_of(owner):
            _restore(owner, name)


def _names_of(owner: object) -> list[str]:
    return [name for name, owners in _set.items() if any(each is owner for each, _ in owners)]


def _restore(owner: object, name: str) -> None:
    in_force = _set[name][-1][1]
    left = _set[name] = [each for each in _set[name] if each[0] is not owner]
    value = left[-1][1] if left else _before[name]
    if os.environ.get(name) == in_force:
        if value is None:
            del os.environ[name]
        elif value != in_force:
            os.environ[name] = value
    if not left:
        del _set[name], _before[name]


def set_placeholders(owner: object) -> None:
    """Set a placeholder for each missing key until `restore_placeholders`.

    Where the owner's placeholders are still set from the test before, only what has changed is
    written: setting and deleting all of them would take longer than a replayed call.
    """
    global _complete
    version = environment.version()
    with _change, environment.placeholders_only():
        if version is not None and (version, owner) == _complete:
            return
        for name in _names_of(owner):
            if os.environ.get(name) != _set[name][-1][1]:  # changed by a test
                _restore(owner, name)
        values, present = _missing(version), _names_of(owner)
        for name in present:
            if name not in values:
                _restore(owner, name)
        added = {name: values[name] for name in values.keys() - present}
        _placeholders.update(added)
        set_variables(owner, added)
        _complete = version, owner


def restore_placeholders(owner: object) -> None:
    """Restore the variables that `set_placeholders` has set."""
    with _change:
        with environment.placeholders_only():
            restore_variables(owner)
        # A fixture of a wider scope may have found a placeholder, and restored it at its end.
        for name in _placeholders.keys() & set(os.environ):
            if name not in _set and os.environ[name] == _placeholders[name]:
                del os.environ[name]


_last_missing: tuple[object, Mapping[str, str]] = (None, {})


def _missing(version: object) -> Mapping[str, str]:
    """Return what `missing` does, which was the same when the environment had this version."""
    global _last_missing
    known, found = _last_missing
    if version is None or version != known:
        found = missing()
        _last_missing = version, found
    return found


def missing() -> Mapping[str, str]:
    """Return placeholders for providers without a key; those set here already do not count."""
    # Looking up a missing name in os.environ costs an exception.
    present = set(os.environ)

    def is_set(name: str) -> bool:
        return bool(_before[name] if name in _set else name in present and os.environ[name])

    found = {names[-1]: PLACEHOLDER for names in providers() if not any(map(is_set, names))}
    found |= {name: value for name, value in _OF_PACKAGES.items() if not is_set(name)}
    return found if any(map(is_set, _OF_AWS)) or _has_files_of_aws() else {**found, **_AWS}


def _has_files_of_aws() -> bool:
    """Return whether botocore finds a file of credentials: a test may use other AWS services."""
    names = (
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        ("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    # This runs with every test, and pathlib takes several times as long.
    exists, expanded = os.path.exists, os.path.expanduser
    return any(exists(expanded(os.environ.get(name) or usual)) for name, usual in names)


@lru_cache(maxsize=1)
def providers() -> tuple[tuple[str, ...], ...]:
    """Return the names of each provider's key variables."""
    from ember.providers.servers import SERVERS  # late: loads the client

    return tuple(tuple(server.key_vars) for server in SERVERS.values() if server.key_vars)
