"""Cassettes for the tests of the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.loopback import serving
from tests.testing.chat import chat
from tests.testing.cli.command import record


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a cassette of two calls, once."""
    with serving(chat) as server:
        return record(
            tmp_path_factory.mktemp("recording") / "a.sqlite", server.url, "Paris", "Rome"
        )


@pytest.fixture
def cassette(recording: Path, tmp_path: Path) -> Path:
    """Copy that cassette to the test's own folder."""
    return Path(shutil.copy(recording, tmp_path))
