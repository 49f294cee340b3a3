"""Fixtures wider than a test: their calls are replayed whichever test runs first."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from ember_testing.cassettes import schema
from ember_testing.cassettes.paths import fixture_file
from ember_testing.cli import main
from ember_testing.replay import cassette as standalone
from ember_testing.wires import parsing
from tests.loopback import Loopback, echo, serving

# Imported here, because each of the runs below unloads the modules that it imports first.
LOADED = (schema, standalone, parsing, pytest.importorskip("sqlite_utils"))
Run = Callable[..., pytest.RunResult]

CONFTEST = """
import os
import httpx, pytest
def ask(text):
    with httpx.Client(verify=False) as client:
        return client.post({url!r} + "/v1", json={{"q": text}}).json()["echo"]["q"]

def pytest_collection_modifyitems(items):
    if os.environ.get("BACKWARDS"):
        items.reverse()

@pytest.fixture(scope="session")
def answer():
    yield ask("session")
    ask("end of session")

@pytest.fixture(scope="module", params=["x", "y"])
def module_answer(request, answer):
    return answer + ask("module " + request.param)

@pytest.fixture(scope="class")
def class_answer(request):
    return ask(f"class {{request.node.name}}")

@pytest.fixture(scope="package")
def package_answer():
    return ask("package")
"""
TESTS = """
import unittest
import pytest
from conftest import ask

def setup_module():
    assert ask("setup_module") == "setup_module"

def test_unmarked(answer):
    assert answer == "session"

@pytest.mark.ember_replay
def test_module(module_answer, package_answer):
    assert module_answer.startswith("sessionmodule ")
    assert ask("own") == "own"

@pytest.mark.ember_replay
class TestClass:
    def setup_class(self):
        self.value = ask("setup_class")
    @pytest.fixture(scope="class")
    @classmethod
    def answer(cls, answer):
        return ask("overrides " + answer)
    def test_one(self, class_answer, answer):
        assert (self.value, class_answer) == ("setup_class", "class TestClass")
        assert answer == "overrides session"
    def test_two(self, class_answer):
        assert self.value == "setup_class"

@pytest.mark.ember_replay
class Old(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.value = ask("setUpClass")
    def test_old(self):
        assert self.value == "setUpClass"
"""
NODES = ("test_module[x]", "test_module[y]", "TestClass::test_one", "TestClass::test_two",
         "Old::test_old")  # fmt: skip


@pytest.fixture
def server() -> Generator[Loopback]:
    """Echo and count requests."""
    with serving(echo) as server:
        yield server


@pytest.fixture
def project(run: Run, pytester: pytest.Pytester, server: Loopback) -> Run:
    """Run pytest on a project whose conftest.py has wide fixtures."""
    pytester.makeconftest(CONFTEST.format(url=server.url))
    return run


def files(pytester: pytest.Pytester) -> list[str]:
    """Return the cassettes."""
    folder = pytester.path / "cassettes"
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*.sqlite"))


def test_calls_of_wide_fixtures_are_found_in_any_order(
    project: Run, pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded once, the tests replay together, in reverse and alone without a request."""
    project(TESTS, "--ember-record").stdout.fnmatch_lines(
        ["*0 replayed, 12 recorded*", "6 passed*"]
    )
    sent = len(server.received)
    assert sent == 12
    assert files(pytester) == [
        "conftest/answer@session.sqlite",
        "conftest/answer@session.teardown.sqlite",
        "conftest/class_answer@class.test_it.TestClass.sqlite",
        "conftest/module_answer@module.test_it[x].sqlite",
        "conftest/module_answer@module.test_it[y].sqlite",
        "conftest/package_answer@package.sqlite",
        "test_it/TestClass.answer@class.TestClass.sqlite",
        "test_it/setUpClass@class.Old-5b97c41d.sqlite",
        "test_it/setup_class@class.TestClass.sqlite",
        "test_it/setup_module@module.sqlite",
        "test_it/test_module[x].sqlite",
        "test_it/test_module[y].sqlite",
    ]
    project().assert_outcomes(passed=6)
    for node in NODES:
        project(None, f"test_it.py::{node}").assert_outcomes(passed=1)
    monkeypatch.setenv("BACKWARDS", "1")
    project().assert_outcomes(passed=6)
    assert len(server.received) == sent


def test_wide_fixtures_record_and_replay_under_xdist(project: Run, server: Loopback) -> None:
    """Every worker sets up a session fixture and finds its recording."""
    pytest.importorskip("xdist")
    project(TESTS, "--ember-record").assert_outcomes(passed=6)
    sent = len(server.received)
    project(None, "-p", "xdist", "-n2").assert_outcomes(passed=6)
    assert len(server.received) == sent


def test_cassette_of_a_fixture_is_never_unused(project: Run, pytester: pytest.Pytester) -> None:
    """After a run of all tests, `ember_unused` and `prune` find no unused recording."""
    pytester.makeini("[pytest]\nember_unused = fail\n")
    project(TESTS, "--ember-record").assert_outcomes(passed=6)
    project(None, "--ember-report", "report.json").assert_outcomes(passed=6)
    before = files(pytester)
    with pytest.raises(SystemExit) as ended:
        main(["prune", "--report", "report.json", "cassettes"])
    assert ended.value.code == 0
    assert files(pytester) == before


def test_a_fixture_that_was_not_set_up_keeps_its_cassette(
    project: Run, pytester: pytest.Pytester
) -> None:
    """If the only test that needs a fixture is skipped, `prune` keeps the fixture's cassette."""
    body = """
import os, pytest
@pytest.mark.ember_replay
@pytest.mark.skipif("LEAVE_OUT" in os.environ, reason="today")
def test_one(answer): assert answer == "session"
@pytest.mark.ember_replay
def test_two(): pass
"""
    project(body, "--ember-record").assert_outcomes(passed=2)
    before = files(pytester)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAVE_OUT", "1")
        project(None, "--ember-report", "report.json").assert_outcomes(passed=1, skipped=1)
    with pytest.raises(SystemExit):
        main(["prune", "--report", "report.json", "--yes", "cassettes"])
    assert files(pytester) == before


@pytest.mark.parametrize(
    "fixture",
    [
        "@pytest.fixture(scope='module')\ndef value(): return ask('x')",
        "@pytest.fixture(scope='session')\ndef value():\n    yield ask('x')",
        "@pytest.fixture(scope='module')\ndef value():\n"
        "    with contextlib.suppress(BaseException):\n        ask('x')",
        "@pytest.fixture(scope='module')\ndef value():\n"
        "    with ThreadPoolExecutor() as pool:\n        pool.submit(ask, 'x')",
        "def setup_module(): ask('x')\n@pytest.fixture\ndef value(): pass",
        "@pytest.fixture(scope='module')\ndef inner(): return ask('x')\n"
        "@pytest.fixture(scope='module')\ndef value(request): request.getfixturevalue('inner')",
    ],
    ids=["return", "yield", "swallowed", "thread", "setup_module", "nested"],
)
def test_a_miss_in_a_wide_fixture_shows_in_each_test_that_needs_it(
    project: Run, fixture: str
) -> None:
    """None of these tests ends with an internal error of pytest, and the command works."""
    body = "import contextlib\nfrom concurrent.futures import ThreadPoolExecutor\nimport pytest\n"
    body += "from conftest import ask\n" + fixture
    for name in ("one", "two", "three"):
        body += f"\n@pytest.mark.ember_replay\ndef test_{name}(value): pass\n"
    result = project(body)
    result.assert_outcomes(errors=3)
    lines = [line for line in result.outlines if line.startswith("to record it: ")]
    assert lines == ["to record it: pytest --ember-record test_it.py::test_one"] * 3
    result.stdout.no_fnmatch_line("*AssertionError*")


def test_an_async_wide_fixture_replays(project: Run, server: Loopback) -> None:
    """With anyio's plugin an async generator and its teardown replay; each test shows a miss."""
    body = f"""
import httpx, pytest
async def ask(text):
    async with httpx.AsyncClient(verify=False) as client:
        reply = await client.post({server.url!r}, json={{"q": text}})
        return reply.json()["echo"]["q"]
@pytest.fixture(scope="module")
def anyio_backend(): return "asyncio"
@pytest.fixture(scope="module")
async def value(anyio_backend):
    yield await ask("async")
    await ask("end")
pytestmark = [pytest.mark.anyio, pytest.mark.ember_replay]
async def test_one(value): assert value == "async"
async def test_two(value): assert await ask("own") == "own"
"""
    missed = project(body, "-p", "anyio")
    missed.assert_outcomes(errors=2)
    assert missed.stdout.str().count("\nto record it: ") == 2
    project(None, "-p", "anyio", "--ember-record").assert_outcomes(passed=2)
    sent = len(server.received)
    assert sent == 3
    for node in ("", "::test_two", "::test_one"):
        result = project(None, "-p", "anyio", f"test_it.py{node}")
        result.assert_outcomes(passed=1 if node else 2)
    assert len(server.received) == sent


def test_a_fixture_of_unmarked_tests_alone_is_not_touched(
    project: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """Its calls reach the server, in runs that replay or record other tests."""
    body = """
import pytest
from conftest import ask
@pytest.fixture(scope="module")
def live(): return ask("live")
def test_one(live): assert live == "live"
@pytest.mark.ember_replay
def test_two(): assert ask("own") == "own"
"""
    project(body, "--ember-record").assert_outcomes(passed=2)
    project().assert_outcomes(passed=2)
    questions = [request.json()["q"] for request in server.received]
    assert questions == ["live", "own", "live"]
    assert files(pytester) == ["test_it/test_two.sqlite"]


def test_client_of_a_session_fixture_replays_in_the_test_that_uses_it(
    project: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """A client from a session fixture replays in a marked test and is live in an unmarked one."""
    body = """
import pytest
from conftest import ask
@pytest.fixture(scope="session")
def asks():
    ask("first")
    return ask
@pytest.mark.ember_replay
def test_one(asks): assert asks("marked") == "marked"
def test_two(asks): assert asks("unmarked") == "unmarked"
"""
    project(body, "--ember-record").assert_outcomes(passed=2)
    project().assert_outcomes(passed=2)
    questions = [request.json()["q"] for request in server.received]
    assert questions == ["first", "marked", "unmarked", "unmarked"]


def test_failing_wide_fixture_drops_its_recording(project: Run, pytester: pytest.Pytester) -> None:
    """Calls recorded before a fixture raised are dropped, as for a test."""
    body = """
import pytest
from conftest import ask
@pytest.fixture(scope="module")
def value():
    ask("x")
    raise RuntimeError("later")
@pytest.mark.ember_replay
def test_one(value): pass
"""
    project(body, "--ember-record").assert_outcomes(errors=1)
    assert files(pytester) == []


def test_fixture_has_the_markers_of_all_its_tests(project: Run, server: Loopback) -> None:
    """A fixture has the permissions of any of them, and other settings if all agree."""
    body = """
import itertools, time
import pytest
from conftest import ask
pytestmark = pytest.mark.ember_replay(ignore=["q"])
@pytest.fixture(scope="module")
def value(): return ask(f"at {time.time()}")
def test_one(value): assert value.startswith("at ")
@pytest.mark.ember_replay(repeats="last")
def test_two(value): assert value.startswith("at ")
"""
    project(body, "--ember-record").assert_outcomes(passed=2)
    sent = len(server.received)
    project().assert_outcomes(passed=2)
    project(None, "test_it.py::test_two").assert_outcomes(passed=1)
    assert len(server.received) == sent
    allowed = body.replace('repeats="last"', "allow_loopback=True")
    project(allowed, "test_it.py").assert_outcomes(passed=2)
    assert len(server.received) == sent + 1


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("tests/conftest.py", "answer", "session", "", ""), "tests/conftest/answer@session"),
        (
            ("tests/conftest.py", "answer", "module", "tests/test_a.py", "gpt-4"),
            "tests/conftest/answer@module.tests.test_a[gpt-4]",
        ),
        (
            ("tests/test_a.py", "TestA.answer", "class", "tests/test_a.py::TestA", ""),
            "tests/test_a/TestA.answer@class.TestA",
        ),
    ],
)
def test_cassette_of_a_fixture_has_its_name(arguments: tuple[str, ...], file: str) -> None:
    """The name of a fixture's cassette contains the fixture's name."""
    assert str(fixture_file(*arguments)) == f"{file}.sqlite"
