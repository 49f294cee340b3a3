"""Modules that read a key when they are imported: clients made at module level.

A replay needs no key, but the vendors' packages refuse to make a client without one. A module whose
import fails is imported once more, with placeholders for the keys that are missing. They are not
set for other modules: a test may ask at import whether there is a key, to be skipped without one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from ember_testing.plugin.options import folder_of

if TYPE_CHECKING:
    from collections.abc import Generator

_retries = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, trylast=True)  # inside the hook that captures output
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Import the first conftest modules, again with placeholders if that fails."""
    try:
        return (yield)
    except Exception:
        if not _replays(early_config):
            raise
        with _placeholders(), suppress(Exception):
            early_config.pytest_load_initial_conftests(early_config)
            return None
        raise


def collected_with_placeholders(collector: pytest.Collector) -> pytest.CollectReport | None:
    """Collect a module again that could not be imported; None if that does not help."""
    config = collector.config
    if config.stash.get(_retries, False) or not _replays(config):
        return None
    config.stash[_retries] = True
    try:
        with _placeholders():
            report: pytest.CollectReport = collector.ihook.pytest_make_collect_report(
                collector=collector
            )
    finally:
        config.stash[_retries] = False
    return report if report.passed else None


def _replays(config: pytest.Config) -> bool:
    """Return whether the run replays the project's recordings; options are not complete yet."""
    option: str | None = config.known_args_namespace.ember_record
    mode = option or os.environ.get("EMBER_RECORD") or "none"
    return mode == "none" and folder_of(config).is_dir()


@contextmanager
def _placeholders() -> Generator[None]:
    from ember_testing.patches import keys  # late: loads the client

    owner = object()
    keys.set_variables(owner, keys.missing())
    try:
        yield
    finally:
        keys.restore_variables(owner)
