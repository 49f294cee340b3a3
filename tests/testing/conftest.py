"""Fixtures for the tests of the toolkit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ember_testing.cassettes import used
from ember_testing.cli import prune
from ember_testing.replay import cassette as standalone
from ember_testing.replay import orphans

# Imported here, because each run of `run` below unloads the modules that it imports first.
LOADED = (orphans, prune, standalone, used)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place for a cassette."""
    return tmp_path / "c.sqlite"


@pytest.fixture
def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Writes a test module and runs pytest on it in this process, with Ember's plugin alone."""
    monkeypatch.delenv("EMBER_RECORD", raising=False)
    # Other plugins take longer to load than all of this. That Ember's is found through its entry
    # point is proven by a test that runs a process of its own.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(module: str | None = None, *arguments: str, **options: bool) -> pytest.RunResult:
        if module is not None:
            pytester.makepyfile(test_it=module)
        return pytester.runpytest(
            "-q", "-p", "no:cacheprovider", "-p", "ember_testing.plugin", *arguments, **options
        )

    return run
