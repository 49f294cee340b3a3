"""Settings for the tests of the documentation."""

import pytest

# A project of its own, which `test_tutorial.py` runs as its users would.
collect_ignore = ["triage"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker of pytest-recording, which a guide shows what to do with."""
    config.addinivalue_line("markers", "vcr: of pytest-recording")
