"""Placeholders of keys: tests that replay see them, other tests never do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing.patches import seam_httpx
from ember_testing.plugin import hangs, imports
from ember_testing.replay import cassette as standalone
from tests.loopback import Reply, serving

Run = Callable[..., pytest.RunResult]
# Imported here, because each of the runs below unloads the modules that it imports first.
LOADED = (seam_httpx, hangs, imports, standalone)

HEAD = """
import os, pathlib, pytest
KEYS = ("OPENAI_API_KEY", "MISTRAL_API_KEY")
def keys(): return [os.environ.get(name, "") for name in KEYS]
def are_placeholders(): return all("no-key-is-needed" in each for each in keys())
"""


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Imported before the runs below, each of which unloads the modules that it imports first."""
    pytest.importorskip("openai", reason="in the extra dev")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def environment() -> dict[str, str]:
    """Return the environment without the variable in which pytest names the running test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n1")], ids=["alone", "xdist"])
def test_unmarked_tests_see_no_placeholder_keys(
    options: tuple[str, ...], run: Run, pytester: pytest.Pytester
) -> None:
    """Between marked tests placeholders may stay, but no other test sees them."""
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
""",
        *options,
    )
    result.assert_outcomes(passed=6)
    assert (pytester.path / "finished").read_text() == "['', '']"
    assert environment() == before


def test_a_wide_fixture_leaves_no_placeholder(run: Run) -> None:
    """A fixture that sets a key for a class finds a placeholder, and restores it at its end."""
    result = run(
        HEAD
        + """
@pytest.fixture(scope="class")
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MISTRAL_API_KEY", "sk-of-a-class")
        yield
@pytest.mark.usefixtures("key")
class TestClass:
    @pytest.mark.ember_replay
    def test_first(self): assert keys()[1] == "sk-of-a-class"
    def test_unmarked(self): assert keys() == ["", "sk-of-a-class"]
    @pytest.mark.ember_replay
    def test_last(self): assert keys()[1] == "sk-of-a-class"
def test_unmarked(): assert keys() == ["", ""]
@pytest.mark.ember_replay
def test_replayed(): assert are_placeholders()
"""
    )
    result.assert_outcomes(passed=5)


CONFTEST = """
import httpx, pytest, ssl
BEFORE = httpx.HTTPTransport.handle_request, ssl.create_default_context
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if item.name == "test_refused":
        pytest.fail("refused by the project")
"""


@pytest.mark.parametrize("why", ["an unknown argument", "a damaged cassette", "another hook"])
def test_an_unmarked_test_sees_nothing_after_a_setup_that_failed(
    why: str, run: Run, pytester: pytest.Pytester
) -> None:
    """A marked test that fails before it replays leaves no placeholder and no patch."""
    pytester.makeconftest(CONFTEST)
    name = "test_refused" if why == "another hook" else "test_fails"
    argument = "bogus=1" if why == "an unknown argument" else ""
    if why == "a damaged cassette":
        damaged = pytester.path / "cassettes" / "test_it" / "test_fails.sqlite"
        damaged.parent.mkdir(parents=True)
        damaged.write_text("no cassette")
    result = run(
        HEAD
        + f"""
import httpx, ssl
from conftest import BEFORE
@pytest.mark.ember_replay
def test_first(): assert are_placeholders()
@pytest.mark.ember_replay({argument})
def {name}(): pass
def test_unmarked():
    assert keys() == ["", ""]
    assert (httpx.HTTPTransport.handle_request, ssl.create_default_context) == BEFORE
"""
    )
    result.assert_outcomes(passed=2, errors=1)


def test_keys_changed_by_a_test_stay_changed(run: Run) -> None:
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


def test_stopped_run_leaves_no_placeholder_keys(run: Run, pytester: pytest.Pytester) -> None:
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


def test_recording_sees_no_placeholder_keys(run: Run) -> None:
    """A marked test that may record sees no placeholder: its call would fail at the provider."""
    body = HEAD + "@pytest.mark.ember_replay\ndef test_one(): assert keys() == ['', '']\n"
    run(body, "--ember-record").assert_outcomes(passed=1)


CLIENT = """
import httpx
from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:9/v1", http_client=httpx.Client(verify=False))
"""
USES_IT = """
import os, pytest
{imports}
ready = "OPENAI_API_KEY" in os.environ
@pytest.mark.ember_replay
def test_answer():
    messages = [{{"role": "user", "content": "Hi"}}]
    answer = client.chat.completions.create(model="gpt-4", messages=messages)
    assert answer.choices[0].message.content == "Hello"
def test_unmarked(): assert "OPENAI_API_KEY" not in os.environ
"""
OTHERS = """
import os, pytest
@pytest.mark.skipif("OPENAI_API_KEY" not in os.environ, reason="needs a key")
def test_live(): raise AssertionError("not skipped")
"""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a cassette with the answer that the tests below ask for."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}}
    answer = {"id": "c", "model": "gpt-4", "object": "chat.completion", "choices": [choice]}
    question = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    path = tmp_path / "recording.sqlite"
    with (
        serving(lambda request: Reply(json.dumps(answer).encode())) as server,
        ember_testing.cassette(path, record="new", match_on=["method", "path", "body"]),
        httpx.Client() as client,
    ):
        client.post(f"{server.url}/v1/chat/completions", json=question)
    return path


@pytest.mark.parametrize("where", ["application", "conftest", "test module"])
def test_a_client_made_at_import_replays_without_a_key(
    where: str, run: Run, pytester: pytest.Pytester, recording: Path
) -> None:
    """A module with a client is imported with a placeholder, every other without."""
    pytester.makeini("[pytest]\nember_match_on =\n  method\n  path\n  body\n")
    pytester.makepyfile(app=CLIENT, test_other=OTHERS)
    if where == "conftest":
        pytester.makeconftest("from app import client")
    imports = CLIENT if where == "test module" else "from app import client"
    target = pytester.path / "cassettes" / "test_it" / "test_answer.sqlite"
    target.parent.mkdir(parents=True)
    shutil.copyfile(recording, target)
    pytester.syspathinsert()
    result = run(USES_IT.format(imports=imports))
    result.assert_outcomes(passed=2, skipped=1)
    assert "OPENAI_API_KEY" not in os.environ


@pytest.mark.parametrize("file", ["conftest", "test_it"])
def test_another_failure_at_import_is_shown_as_it_was(
    file: str, run: Run, pytester: pytest.Pytester
) -> None:
    """An import that fails with placeholders too fails once, with its first reason."""
    (pytester.path / "cassettes").mkdir()
    pytester.makepyfile(**{file: "import os\nos.environ['NO_SUCH_' + 'VARIABLE']"})
    result = run()
    text = result.stdout.str() + result.stderr.str()
    assert text.count("E   KeyError: 'NO_SUCH_VARIABLE'") == 1
    assert result.ret != pytest.ExitCode.OK
