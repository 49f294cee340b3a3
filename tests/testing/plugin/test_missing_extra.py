"""Ember without its extra `testing`: one line says what to install."""

from __future__ import annotations

import pytest

from tests.loopback import serving

WITHOUT = """
import sys
for name in ("respx", "hypothesis", "sqlite_utils", "click", "yaml"):
    sys.modules[name] = None  # an import of it fails as if it were not installed
"""
TESTS = """
import httpx, pytest, ember_testing

def test_fixture(fake_model): pass

def test_block():
    with ember_testing.fake_model(): pass

def test_server():
    with ember_testing.fault_server(): pass

def test_strategies():
    from ember_testing import strategies

@pytest.mark.ember_replay
def test_recorded(no_sleep, cassette): assert httpx.get({url!r}).json() == {{"echo": None}}
"""
LINE = "{} needs {}, of the extra `testing`: pip install 'ember-models[testing]'"


@pytest.mark.slow
def test_missing_extra_is_named_in_one_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fakes, faults and strategies name the command; recording and replay need only httpx."""
    pytester.makeconftest(WITHOUT)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugin = ("-q", "-p", "ember_testing.plugin")
    with serving() as server:
        pytester.makepyfile(test_it=TESTS.format(url=server.url))
        recorded = pytester.runpytest_subprocess(*plugin, "--ember-record", "-k", "recorded")
        recorded.assert_outcomes(passed=1, deselected=4)
        result = pytester.runpytest_subprocess(*plugin, "--tb=short")
        assert len(server.received) == 1
    result.assert_outcomes(passed=1, failed=3, errors=1)
    text = result.stdout.str()
    for feature, package in (
        ("the fixture fake_model", "respx"),
        ("fake_model", "respx"),
        ("fault_server", "respx"),
        ("ember_testing.strategies", "hypothesis"),
    ):
        assert LINE.format(feature, package) in text
    assert "No module named" not in text
    assert "import_module" not in text  # no traceback
