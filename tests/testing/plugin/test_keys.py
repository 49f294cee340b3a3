"""Placeholders of keys: tests that replay see them, other code never does."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

HEAD = """
import os, pathlib, pytest
KEYS = ("OPENAI_API_KEY", "MISTRAL_API_KEY")
def keys(): return [os.environ.get(name, "") for name in KEYS]
def are_placeholders(): return all("no-key-is-needed" in each for each in keys())
"""


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def environment() -> dict[str, str]:
    """Return the environment without the variable in which pytest names the running test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def test_unmarked_tests_and_the_end_of_the_run_see_none(
    run: Run, pytester: pytest.Pytester
) -> None:
    """Between marked tests placeholders may stay, but no other code of the project sees them."""
    pytester.makeconftest(
        HEAD
        + """
def pytest_sessionfinish():
    pathlib.Path("finished").write_text(repr(keys()))
"""
    )
    before = environment()
    result = run(
        HEAD
        + """
@pytest.mark.ember_replay
@pytest.mark.parametrize("i", range(3))
def test_first(i): assert are_placeholders()
def test_unmarked(): assert keys() == ["", ""]
@pytest.mark.ember_replay
class TestLast:
    def test_one(self): assert are_placeholders()
    @pytest.mark.ember_replay(allow_loopback=True)
    def test_two(self): assert are_placeholders()
"""
    )
    result.assert_outcomes(passed=6)
    assert (pytester.path / "finished").read_text() == "['', '']"
    assert environment() == before


def test_what_a_test_changes_stays_changed(run: Run) -> None:
    """The next test finds keys as a test leaves them, and placeholders where they are missing."""
    result = run(
        HEAD
        + """
import pytest
pytestmark = pytest.mark.ember_replay
def test_sets(): os.environ["OPENAI_API_KEY"] = "sk-of-a-test"
def test_sees_it(): assert keys()[0] == "sk-of-a-test"
def test_deletes():
    del os.environ["OPENAI_API_KEY"], os.environ["MISTRAL_API_KEY"]
def test_has_placeholders_again(): assert are_placeholders()
def test_patches(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-patched")
    monkeypatch.delenv("MISTRAL_API_KEY")
def test_patched_before(): assert are_placeholders()
def test_replaces(monkeypatch): monkeypatch.setattr(os, "environ", {"HOME": "/"})
def test_replaced_before(): assert are_placeholders()
def test_sets_at_last(): os.environ["MISTRAL_API_KEY"] = "sk-last"
"""
    )
    result.assert_outcomes(passed=9)
    assert os.environ.pop("MISTRAL_API_KEY") == "sk-last"
    assert "OPENAI_API_KEY" not in os.environ


def test_a_run_that_stops_leaves_none(run: Run, pytester: pytest.Pytester) -> None:
    """Stopped by a failure of a test or of its teardown, a run leaves no placeholder."""
    body = (
        HEAD
        + """
pytestmark = pytest.mark.ember_replay
@pytest.fixture
def broken():
    yield
    assert not os.path.exists("break")
def test_fails(broken): assert not os.path.exists("fail")
def test_more(): assert are_placeholders()
"""
    )
    before = environment()
    for file in ("fail", "break"):
        (pytester.path / file).touch()
        result = run(body, "-x")
        (pytester.path / file).unlink()
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert environment() == before


def test_recording_sees_none(run: Run) -> None:
    """A marked test that may record sees no placeholder: its call would fail at the provider."""
    body = HEAD + "@pytest.mark.ember_replay\ndef test_one(): assert keys() == ['', '']\n"
    run(body, "--ember-record").assert_outcomes(passed=1)
