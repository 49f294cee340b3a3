"""The pytest plugin, run as users run it: recording, replaying, failing, reporting."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest

from ember_testing.cassettes import schema
from ember_testing.cassettes.paths import cassette_file, shared_file
from ember_testing.replay import cassette as standalone
from ember_testing.wires import parsing
from tests.edited import edit
from tests.loopback import Loopback, Received, Reply, echo, serving

# Imported here, because each of the runs below unloads the modules that it imports first.
LOADED = (schema, standalone, parsing, pytest.importorskip("sqlite_utils"))

HEAD = """
import httpx, pytest
URL = {url!r}
def ask(text, path="/v1"):
    with httpx.Client(verify=False) as client:
        return client.post(URL + path, json={{"q": text}})
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def server() -> Generator[Loopback]:
    """Echo requests; `/error` is a 429."""

    def answer(request: Received) -> Reply:
        return Reply(b"{}", status=429) if request.path == "/error" else echo(request)

    with serving(answer) as server:
        yield server


@pytest.fixture
def run(run: Run, server: Loopback) -> Run:
    """Define `ask`, which calls this file's server, at the top of the test module."""

    def run_with_ask(body: str | None = None, *arguments: str, **options: bool) -> pytest.RunResult:
        return run(body and HEAD.format(url=server.url) + body, *arguments, **options)

    return run_with_ask


def cassettes(pytester: pytest.Pytester) -> list[str]:
    """Return all files below the cassette folder."""
    folder = pytester.path / "cassettes"
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


def questions(path: Path) -> list[str]:
    """Return the bodies of the requests in a cassette."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("select request_body from calls order by id")]


PLAIN = """
@pytest.mark.ember_replay
def test_one(cassette):
    assert ask("Paris").json()["echo"]["q"] == "Paris"
    assert len(cassette.played) + len(cassette.recorded) == 1
"""


def test_record_then_replay(run: Run, pytester: pytest.Pytester, server: Loopback) -> None:
    """`--ember-record` records, plain pytest replays without requests, and both print a summary."""
    run(PLAIN, "--ember-record").stdout.fnmatch_lines(["*0 replayed, 1 recorded*", "1 passed*"])
    assert cassettes(pytester) == ["test_it/test_one.sqlite"]
    before = (pytester.path / "cassettes/test_it/test_one.sqlite").read_bytes()
    run().stdout.fnmatch_lines(["*1 replayed, 0 recorded*", "1 passed*"])
    assert len(server.received) == 1
    assert (pytester.path / "cassettes/test_it/test_one.sqlite").read_bytes() == before


def test_path_after_ember_record_is_no_mode(run: Run, pytester: pytest.Pytester) -> None:
    """`pytest --ember-record path::test`, as a miss suggests, does not take the path as a mode."""
    run(PLAIN + PLAIN.replace("test_one", "test_two"))
    result = run(None, "--ember-record", "test_it.py::test_two")
    result.assert_outcomes(passed=1)
    assert cassettes(pytester) == ["test_it/test_two.sqlite"]


def test_missing_recording_fails_and_prints_the_command(run: Run) -> None:
    """The command in the message is the one that records this test."""
    result = run(PLAIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "no recording for POST http://127.0.0.1:*",
            "there is no cassette *test_one.sqlite",
            "to record it: pytest --ember-record test_it.py::test_one",
            "test_it.py:*",
        ]
    )
    result.stdout.no_fnmatch_line("*site-packages*")


@pytest.mark.parametrize(
    "swallowing",
    [
        "    try:\n        ask('x')\n    except BaseException:\n        pass",
        "    with ThreadPoolExecutor() as pool:\n        pool.submit(ask, 'x')",
        "    thread = threading.Thread(target=ask, args=('x',))\n"
        "    thread.start()\n    thread.join()",
        "    for _ in range(3):\n        with contextlib.suppress(BaseException):\n"
        "            ask('x')\n    pytest.xfail('expected')",
        "    with contextlib.suppress(BaseException):\n        ask('x')\n    pytest.skip('later')",
        "    with pytest.raises(BaseException):\n        ask('x')",
        "    @request.addfinalizer\n    def finish():\n"
        "        with contextlib.suppress(BaseException):\n            ask('x')",
    ],
    ids=["except", "future", "thread", "xfail", "skip", "raises", "teardown"],
)
def test_swallowed_miss_fails_the_test(run: Run, swallowing: str) -> None:
    """Code that swallows every exception, in any thread or phase, does not make the test pass."""
    result = run(
        "import contextlib, threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        f"@pytest.mark.ember_replay\ndef test_one(request):\n{swallowing}\n"
    )
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert not {"xfailed", "skipped"} & set(outcomes)
    result.stdout.fnmatch_lines(["*no recording for POST*"])


def test_miss_is_not_retried(run: Run) -> None:
    """A retry that catches Exception makes one attempt."""
    result = run(
        """
@pytest.mark.ember_replay
def test_one():
    for attempt in range(3):
        try:
            return ask("x")
        except Exception:
            print("again")
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("again")


def test_a_failing_test_keeps_the_old_cassette_and_drops_its_own(
    run: Run, pytester: pytest.Pytester
) -> None:
    """In either mode the file is unchanged byte for byte; a first recording leaves no file."""
    body = """
@pytest.mark.ember_replay
def test_one():
    ask("a")
    ask("{question}")
    assert {passes}
"""
    run(body.format(question="b", passes=False), "--ember-record").assert_outcomes(failed=1)
    assert cassettes(pytester) == []
    run(body.format(question="b", passes=True), "--ember-record").assert_outcomes(passed=1)
    path = pytester.path / "cassettes/test_it/test_one.sqlite"
    before = path.read_bytes()
    for mode in ("--ember-record", "--ember-record=all"):
        result = run(body.format(question="c", passes=False), mode)
        result.stdout.fnmatch_lines(["*new recording* dropped, the cassette is as it was"])
        assert path.read_bytes() == before
        assert cassettes(pytester) == ["test_it/test_one.sqlite"]
    run(body.format(question="c", passes=True), "--ember-record=all").assert_outcomes(passed=1)
    assert questions(path) == ['{"q":"a"}', '{"q":"c"}']


def test_an_expected_failure_is_recorded_and_fails_the_same_in_a_replay(
    run: Run, pytester: pytest.Pytester
) -> None:
    """A test marked xfail counts as passed when it fails; a strict one that passes does not."""
    body = """
@pytest.mark.ember_replay
@pytest.mark.xfail
def test_one(): assert ask('x').json() == 'a known bug'
@pytest.mark.ember_replay
def test_two():
    ask('x')
    pytest.xfail('a known bug')
@pytest.mark.ember_replay
@pytest.mark.xfail
def test_three(): ask('x')
@pytest.mark.ember_replay
@pytest.mark.xfail(strict=True)
def test_four(): ask('x')
"""
    run(body, "--ember-record").assert_outcomes(xfailed=2, xpassed=1, failed=1)
    expected = [f"test_it/test_{name}.sqlite" for name in ("one", "three", "two")]
    assert cassettes(pytester) == expected
    run(body, "--deselect", "test_it.py::test_four").assert_outcomes(
        xfailed=2, xpassed=1, deselected=1
    )


@pytest.mark.parametrize("mode", ["new", "all"])
def test_an_interrupted_recording_leaves_the_cassette_as_it_was(
    run: Run, pytester: pytest.Pytester, mode: str
) -> None:
    """Ctrl-C in the middle of a test: its recording is dropped, and no other file is left."""
    body = "@pytest.mark.ember_replay\ndef test_one():\n    ask('x')\n"
    run(body, "--ember-record")
    (path,) = (pytester.path / "cassettes").rglob("*.sqlite")
    before = path.read_bytes()
    body_now = f"{body}    ask('y')\n    raise KeyboardInterrupt\n"
    result = run(body_now, f"--ember-record={mode}", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    run(body).assert_outcomes(passed=1)


def test_a_failing_fixture_drops_the_recording(run: Run, pytester: pytest.Pytester) -> None:
    """A test counts as passed when setup, call and teardown have passed."""
    fixture = """
@pytest.fixture
def broken():
    ask("in the fixture")
    {before}
    yield
    {after}
@pytest.mark.ember_replay
def test_one(broken):
    ask("in the test")
"""
    run(fixture.format(before="1 / 0", after=""), "--ember-record").assert_outcomes(errors=1)
    assert cassettes(pytester) == []
    run(fixture.format(before="", after="1 / 0"), "--ember-record").assert_outcomes(
        passed=1, errors=1
    )
    assert cassettes(pytester) == []
    run(fixture.format(before="", after=""), "--ember-record").assert_outcomes(passed=1)
    run().stdout.fnmatch_lines(["*2 replayed*"])


def test_the_mode_comes_from_the_option_then_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMBER_RECORD works alone, the option overrides it, other values are refused."""
    monkeypatch.setenv("EMBER_RECORD", "new")
    run(PLAIN, "--ember-record=none").assert_outcomes(failed=1)
    run().stdout.fnmatch_lines(["*1 recorded*"])
    monkeypatch.setenv("EMBER_RECORD", "all")
    run().stdout.fnmatch_lines(["*0 replayed, 1 recorded*"])
    monkeypatch.setenv("EMBER_RECORD", "maybe")
    run().stderr.fnmatch_lines(["*EMBER_RECORD='maybe': expected one of none, new, all*"])
    assert run(None, "--ember-record=maybe").ret == pytest.ExitCode.USAGE_ERROR


def test_markers_of_module_class_and_test_add_up(run: Run, pytester: pytest.Pytester) -> None:
    """An argument of the closest marker wins; the other arguments are kept."""
    body = """
import itertools
pytestmark = pytest.mark.ember_replay(ignore=["run"])
numbers = itertools.count({start})
class TestA:
    @pytest.mark.ember_replay(cassette="shared/towns")
    def test_one(self):
        httpx.post(URL, json={{"q": 1, "run": next(numbers)}})
    def test_two(self):
        httpx.post(URL, json={{"q": 2, "run": next(numbers)}})
"""
    run(body.format(start=0), "--ember-record").assert_outcomes(passed=2)
    assert cassettes(pytester) == ["shared/towns.sqlite", "test_it/TestA.test_two.sqlite"]
    run(body.format(start=100)).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("ember_replay(casette='x')", "ember_replay(casette=): unknown; it takes cassette=*"),
        ("ember_replay('x')", "ember_replay('x'): unknown; it takes*"),
        ("ember_replay(repeats='always')", "*repeats='always': expected 'error' or 'last'"),
        ("ember_replay(cassette='../x')", "*cassette='../x': use letters*"),
        ("ember_replay(match_on=['adress'])", "*match_on='adress': expected any of*"),
    ],
)
def test_an_invalid_marker_argument_is_an_error(run: Run, marker: str, words: str) -> None:
    """The message names the argument and what is expected."""
    result = run(f"@pytest.mark.{marker}\ndef test_one(): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([words])


def test_a_shared_cassette_is_recorded_anew_once_a_run(
    run: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """With `=all` the second test adds to the first one's new file instead of replacing it."""
    body = """
pytestmark = pytest.mark.ember_replay(cassette="shared")
def test_one(): ask("one"); ask("both")
def test_two(): ask("both"); ask("two")
"""
    for _ in range(2):
        run(body, "--ember-record=all").assert_outcomes(passed=2)
        path = pytester.path / "cassettes/shared.sqlite"
        assert questions(path) == ['{"q":"one"}', '{"q":"both"}', '{"q":"two"}']
    assert len(server.received) == 6
    run().assert_outcomes(passed=2)


@pytest.mark.slow
def test_xdist_records_and_replays(run: Run, pytester: pytest.Pytester) -> None:
    """The figures of two workers with own and shared cassettes are added up."""
    pytest.importorskip("xdist")
    workers = ("-p", "xdist", "-n2")
    body = """
@pytest.mark.ember_replay
@pytest.mark.parametrize("i", range(6))
def test_own(i): assert ask(f"own {i}").json()["echo"]["q"] == f"own {i}"
@pytest.mark.ember_replay(cassette="shared")
@pytest.mark.parametrize("i", range(6))
def test_shared(i): assert ask(f"shared {i}").json()["echo"]["q"] == f"shared {i}"
"""
    for arguments in (["--ember-record"], ["--ember-record=all"]):
        result = run(body, *workers, *arguments)
        result.stdout.fnmatch_lines(["*0 replayed, 12 recorded*", "12 passed*"])
        assert len(cassettes(pytester)) == 7
        assert len(questions(pytester.path / "cassettes/shared.sqlite")) == 6
    run(body, *workers).stdout.fnmatch_lines(["*12 replayed, 0 recorded*", "12 passed*"])


def test_ember_unused_ignores_reports_or_fails(run: Run, pytester: pytest.Pytester) -> None:
    """`ember_unused` decides whether an unused recording is ignored, reported or a failure."""
    body = """
@pytest.mark.ember_replay
def test_one():
    for question in {questions}:
        ask(question)
"""
    run(body.format(questions=["a", "b"]), "--ember-record").assert_outcomes(passed=1)
    shorter = body.format(questions=["a"])
    run(shorter).stdout.no_fnmatch_line("*not used*")
    result = run(shorter, "-o", "ember_unused=warn")
    result.stdout.fnmatch_lines(["*1 unused recording*", "*not used: 1 recording of *"])
    result.assert_outcomes(passed=1)
    result = run(shorter, "-o", "ember_unused=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*(ember_unused=fail)*--ember-record=all test_it.py::test_one*"])
    run(body.format(questions=["a", "b"]), "-o", "ember_unused=fail").assert_outcomes(passed=1)
    assert run(None, "-o", "ember_unused=maybe").ret == pytest.ExitCode.USAGE_ERROR


def test_stale_recordings_are_counted(run: Run, pytester: pytest.Pytester) -> None:
    """Recordings older than `ember_max_age` days are counted."""
    run(PLAIN, "--ember-record").assert_outcomes(passed=1)
    run(None, "-o", "ember_max_age=30").stdout.no_fnmatch_line("*stale*")
    path = pytester.path / "cassettes/test_it/test_one.sqlite"
    edit(path, "update calls set recorded_at = '2020-01-01T00:00:00+00:00'")
    run(None, "-o", "ember_max_age=30").stdout.fnmatch_lines(["*1 stale recording*"])


def test_unexpected_error_answer_is_reported_and_not_recorded(run: Run) -> None:
    """The session says that a 429 was not kept; `record_errors=True` keeps it."""
    body = """
@pytest.mark.ember_replay({arguments})
def test_one():
    assert ask("x", "/error").status_code == 429
"""
    result = run(body.format(arguments=""), "--ember-record")
    result.stdout.fnmatch_lines(["*test_one: not kept: status 429 for POST*record_errors=True*"])
    run().assert_outcomes(failed=1)
    run(body.format(arguments="record_errors=True"), "--ember-record").assert_outcomes(passed=1)
    run().assert_outcomes(passed=1)


def test_a_damaged_cassette_is_an_error_of_the_test(run: Run, pytester: pytest.Pytester) -> None:
    """The damage is reported in a few lines before the test starts, in every mode."""
    run(PLAIN, "--ember-record").assert_outcomes(passed=1)
    path = pytester.path / "cassettes/test_it/test_one.sqlite"
    path.write_bytes(path.read_bytes()[:3000])
    before = path.read_bytes()
    for arguments in ((), ("--ember-record",), ("--ember-record=all",)):
        result = run(None, *arguments)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*test_one.sqlite is damaged or no cassette*"])
        assert path.read_bytes() == before


def test_the_network_is_closed_in_a_replayed_test_only(run: Run, server: Loopback) -> None:
    """A raw connection fails with the reason, but works in unmarked tests and where allowed."""
    result = run(
        f"""
import socket
def connect(): socket.create_connection(("127.0.0.1", {server.port})).close()
@pytest.mark.ember_replay
def test_closed():
    try: connect()
    except BaseException: pass
def test_open(): connect()
@pytest.mark.ember_replay(allow_loopback=True)
def test_allowed(): connect()
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*connection to 127.0.0.1:* blocked*allow_loopback=True*"])


def test_ini_settings_allow_hosts_and_child_processes(run: Run, pytester: pytest.Pytester) -> None:
    """`ember_allow_hosts` adds to the marker's hosts, and an ini setting allows children too."""
    body = """
import os, socket, subprocess, sys, urllib.parse
at = urllib.parse.urlsplit(URL)
@pytest.mark.ember_replay(allow_hosts=["db"])
def test_one():
    socket.create_connection((at.hostname, at.port)).close()
@pytest.mark.ember_replay
def test_two():
    code = "import os; print(os.environ.get('https_proxy'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "None\\n"
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("https_proxy", raising=False)
        run(body).assert_outcomes(failed=2)
        pytester.makeini(
            "[pytest]\nember_allow_hosts =\n  127.0.0.0/8\n  other\nember_allow_subprocess = true\n"
        )
        run(body).assert_outcomes(passed=2)


def test_the_fixture_needs_the_marker(run: Run) -> None:
    """`cassette` in an unmarked test says what is missing."""
    run("def test_one(cassette): pass").stdout.fnmatch_lines(["*mark it @pytest.mark.ember_replay"])


def test_unittest_classes_replay_too(run: Run) -> None:
    """The marker works on a unittest.TestCase."""
    body = """
import unittest
@pytest.mark.ember_replay
class TestOld(unittest.TestCase):
    def test_one(self):
        self.assertEqual(ask("x").status_code, 200)
"""
    run(body, "--ember-record").assert_outcomes(passed=1)
    run().stdout.fnmatch_lines(["*1 replayed*"])


def test_an_unmarked_suite_imports_nothing_of_the_engine(pytester: pytest.Pytester) -> None:
    """The plugin imports neither httpx nor SQLite nor Ember if it is not used."""
    pytester.makepyfile(
        """
        import sys
        def test_nothing():
            heavy = {"httpx", "httpx2", "sqlite3", "sqlite_utils", "respx", "ember"}
            assert not heavy & set(sys.modules)
        """
    )
    # Both packages have pytest plugins that import httpx.
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:respx", "-p", "no:pytest_httpx"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in result.stdout, result.stdout
    assert "ember" not in result.stdout


@pytest.mark.parametrize(
    ("node", "file"),
    [
        ("tests/test_a.py::test_b", "tests/test_a/test_b.sqlite"),
        ("test_a.py::TestC::test_b[1-x]", "test_a/TestC.test_b[1-x].sqlite"),
        ("a.py::TestC::TestD::test_b", "a/TestC.TestD.test_b.sqlite"),
    ],
)
def test_file_has_the_name_of_its_test(node: str, file: str) -> None:
    """A cassette's file has the name of its test."""
    assert str(cassette_file(node).as_posix()) == file


def test_similar_test_names_have_different_files() -> None:
    """Names that differ only in case, a forbidden letter or a late character stay distinct."""
    nodes = [
        "a.py::test_b[A]", "a.py::test_b[a]", "a.py::test_b[x/y]", "a.py::test_b[x_y]",
        "a.py::test_b[x:y]", "a.py::test_B", "a.py::test_b", "aux.py::test_b", "../a.py::test_b",
        "a.py::test_b[é]", "a.py::test_b[" + "x" * 300 + "]", "a.py::test_b[" + "x" * 301 + "]",
        "a.py::test_b[x::y]", "a.py::test_b[..]", "a.py::test_b[con]", "a.py::test_b[x\\y]",
    ]  # fmt: skip
    files = [str(cassette_file(node)).lower() for node in nodes]
    assert len(set(files)) == len(nodes)
    for file in files:
        assert file.isascii()
        assert ".." not in file.split("/")
        assert not set('<>:"|?*\\') & set(file)
        assert all(len(part) < 160 for part in file.split("/"))


@pytest.mark.parametrize("name", ["../x", "/x", "", "a//b", "a\\b", "x?", "a/../b", "con"])
def test_unsafe_cassette_name_is_refused(name: str) -> None:
    """Only names inside the cassette folder and valid on every file system are accepted."""
    with pytest.raises(ValueError, match="cassette="):
        shared_file(name)
