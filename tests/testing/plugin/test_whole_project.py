"""A project with session fixtures, forks, children, a shared cassette and workers, in any order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator

import pytest

from ember_testing.cli import main
from tests.loopback import Loopback, echo, serving

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
Project = Callable[..., pytest.RunResult]

CONFTEST = """
import random, os
import httpx, pytest

def ask(text):
    with httpx.Client(verify=False) as client:
        return client.post({url!r}, json={{"q": text}}).json()["echo"]["q"]

def pytest_collection_modifyitems(items):
    random.Random(os.environ.get("SEED")).shuffle(items)

@pytest.fixture(scope="session")
def greeting():
    yield ask("greeting")
    ask("goodbye")

@pytest.fixture(scope="module", params=["en", "fr"])
def language(request, greeting):
    return ask(f"language {{request.param}}")
"""
TESTS = """
import multiprocessing, subprocess, sys
import pytest
from conftest import ask

pytestmark = [pytest.mark.ember_replay, pytest.mark.filterwarnings("ignore:.*multi-threaded")]

def setup_module(): assert ask("setup") == "setup"

@pytest.mark.parametrize("i", range(2))
def test_own(i, language): assert ask(f"{language} {i}") == f"{language} {i}"

def test_forks():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(ask, ["a", "b", "a"]) == ["a", "b", "a"]

def test_harmless():
    assert subprocess.check_output(["echo", "x"]) == b"x\\n"

@pytest.mark.ember_replay(cassette="shared")
@pytest.mark.parametrize("i", range(4))
def test_shared(i): assert ask("shared") == "shared"

class TestClass:
    @classmethod
    def setup_class(cls): cls.value = ask("class")
    def test_value(self, greeting): assert (self.value, greeting) == ("class", "greeting")
"""
CHILD = """
import subprocess, sys
import pytest
@pytest.mark.ember_replay
def test_child():
    code = "import urllib.request as u; u.urlopen('https://api.openai.com/v1/models')"
    subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
"""
# Each question is asked by one test or fixture, the shared one by the first that needs it.
QUESTIONS = ["a", "a", "b", "class", "goodbye", "greeting", "language en", "language en 0",
             "language en 1", "language fr", "language fr 0", "language fr 1", "setup",
             "shared"]  # fmt: skip


@pytest.fixture
def server() -> Generator[Loopback]:
    """Echo and count requests."""
    with serving(echo) as server:
        yield server


@pytest.fixture
def project(
    pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Run pytest with pytest-xdist in a child process."""
    pytest.importorskip("xdist")
    monkeypatch.delenv("EMBER_RECORD", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), *sys.path]))
    pytester.makeini("[pytest]\nember_unused = fail\n")
    pytester.makeconftest(CONFTEST.format(url=server.url))
    pytester.makepyfile(test_it=TESTS)

    def run(*arguments: str) -> pytest.RunResult:
        plugins = ("-p", "xdist", "-p", "ember_testing.plugin", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess("-q", *plugins, *arguments, timeout=120)

    return run


@pytest.mark.slow
def test_a_project_is_recorded_once_and_replays_in_any_order(
    project: Project,
    pytester: pytest.Pytester,
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three workers pay once per question; a shuffled replay on two makes no live call."""
    monkeypatch.setenv("SEED", "0")
    project("--ember-record", "-n3").assert_outcomes(passed=11)
    assert sorted(request.json()["q"] for request in server.received) == QUESTIONS
    for seed in ("1", "2"):
        monkeypatch.setenv("SEED", seed)
        project("-n2", "--ember-report", "report.json").assert_outcomes(passed=11)
    assert len(server.received) == len(QUESTIONS)
    before = sorted((pytester.path / "cassettes").rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--report", "report.json", "--yes", "cassettes"])
    assert ended.value.code == 0
    assert sorted((pytester.path / "cassettes").rglob("*")) == before


def test_child_process_that_calls_a_provider_fails_its_test(
    project: Project, pytester: pytest.Pytester
) -> None:
    """The test fails although it ignores its child's output."""
    pytester.makepyfile(test_child=CHILD)
    result = project("test_child.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["a child process tried to reach api.openai.com:443, blocked*"])
