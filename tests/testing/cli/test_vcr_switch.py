"""Projects that use vcrpy or pytest-recording switch over and run as before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ember_testing
from ember_testing import CassetteMiss
from ember_testing.cli import main, vcr
from tests.testing.chat import client

# The lines of the guide for conftest.py.
SWITCH = """
import pytest

@pytest.fixture
def vcr(cassette):
    return cassette

def pytest_configure(config):
    config.addinivalue_line("markers", "vcr: recorded HTTP")
    config.addinivalue_line("markers", "default_cassette(name): of the test")

def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("vcr"):
            item.add_marker(pytest.mark.ember_replay(record_errors=True))
"""
CONFIG = """
@pytest.fixture(scope="module")
def vcr_config():
    return {
        "filter_headers": ["authorization"],
        "match_on": ["method", "uri"],
        "decode_compressed_response": True,
        "before_record_request": lambda request: request,
    }
"""
TESTS = """
import json

import httpx
import pytest

pytestmark = pytest.mark.vcr


def ask(question):
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": question}]}
    url = "https://api.openai.com/v1/chat/completions"
    with httpx.Client() as client:
        return client.post(url, json=body, headers={"authorization": "Bearer x"}).json()["answer"]


@pytest.mark.vcr
def test_one(vcr):
    assert ask("a question that nobody recorded") == "first"
    assert not vcr.all_played
    assert ask("another one") == "second"
    assert vcr.all_played and vcr.play_count == 2 and len(vcr) == 2
    assert json.loads(vcr.requests[0].body)["messages"][0]["content"] == "recorded"
    assert vcr.requests[0].uri == vcr.requests[0].url == "https://api.openai.com/v1/chat/completions"
    assert (vcr.requests[0].host, vcr.requests[0].path, vcr.requests[0].port) == (
        "api.openai.com", "/v1/chat/completions", 443)
    assert vcr.requests[0].headers["Content-Type"] == "application/json"
    assert vcr.requests[0].headers.get("content-type") == "application/json"
    assert "authorization" not in vcr.requests[0].headers
    assert json.loads(vcr.responses[1]["body"]["string"]) == {"answer": "second"}
    assert vcr.responses[1]["status"]["code"] == 200
    assert vcr.responses[1]["headers"]["content-type"] == ["application/json"]
    vcr.rewind()
    assert vcr.play_count == 0 and not vcr.all_played
    assert ask("once more") == "first"


class TestClass:
    @pytest.mark.parametrize("name", ["Big", "a.b"])
    def test_two(self, name):
        assert ask(name) == "first"
"""
HEADERS = {"content-type": ["application/json"]}


def cassette_text(*answers: str) -> str:
    """Return a cassette of vcrpy as JSON, which is YAML too."""
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "recorded"}]}
    return json.dumps(
        {
            "version": 1,
            "interactions": [
                {
                    "request": {
                        "method": "POST",
                        "uri": "https://api.openai.com/v1/chat/completions",
                        "body": json.dumps(body),
                        "headers": HEADERS,
                    },
                    "response": {
                        "status": {"code": 200, "message": "OK"},
                        "headers": HEADERS,
                        "body": {"string": json.dumps({"answer": answer})},
                    },
                }
                for answer in answers
            ],
        }
    )


LAYOUTS = {
    "pytest-recording": "tests/cassettes/test_towns",
    "pytest-vcr": "tests/cassettes",
    "a folder of the project's own": "tests/fixtures/cassettes/test_towns",
    "all cassettes at the root": "cassettes_of_vcr/towns",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vcrpy_suite_runs_unchanged_with_a_conftest(
    layout: str,
    pytester: pytest.Pytester,
    run: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names of cassettes, `match_on` and the fixture's attributes work in unchanged tests."""
    monkeypatch.chdir(pytester.path)
    folder = pytester.path / LAYOUTS[layout]
    folder.mkdir(parents=True)
    (pytester.path / "tests").mkdir(exist_ok=True)
    (folder / "test_one.yaml").write_text(cassette_text("first", "second"))
    for name in ("Big", "a.b"):
        (folder / f"TestClass.test_two[{name}].yaml").write_text(cassette_text("first"))
    (pytester.path / "tests/test_towns.py").write_text(TESTS)
    (pytester.path / "tests/conftest.py").write_text(SWITCH + CONFIG)
    if not folder.is_relative_to(pytester.path / "tests"):
        (pytester.path / "conftest.py").write_text("import pytest\n" + CONFIG)
    done = CliRunner().invoke(main, ["import", LAYOUTS[layout], "--into", "cassettes"])
    assert done.exit_code == 0, done.output
    assert "(2 calls, compared by method, uri)" in done.output
    result = run()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["5 replayed*"])


def imported(path: Path, *options: str) -> list[list[str]]:
    """Return the `match_on` that `import` reports for each cassette."""
    arguments = ["import", str(path), "--into", str(path.parent / "new"), "--json", *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return [line["match_on"] for line in json.loads(done.output)]


SAYS = {
    "def vcr_config(): return {'match_on': ['uri', 'raw_body']}": ["uri", "raw_body"],
    "VCR = vcr.VCR(match_on=('path', 'method', 'my_own'))": ["path", "method"],
    "config['match_on'] = ['method']": ["method"],
    "my_vcr.match_on = ['host']": ["host"],
    "def vcr_config(): return {'filter_headers': []}": [],
    "match_on = (": [],
}  # fmt: skip


@pytest.mark.parametrize("says", SAYS)
def test_match_on_is_read_from_the_projects_source(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dictionaries, arguments and assignments are read; a module with a syntax error is skipped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text(says)
    (tmp_path / "c.yaml").write_text(cassette_text("first"))
    assert imported(tmp_path / "c.yaml") == [SAYS[says]]


def test_match_on_option_overrides_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--match-on` takes names or `vcr`, and refuses a word that is not a part of a request."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text("match = {'match_on': ['path']}")
    (tmp_path / "c.yaml").write_text(cassette_text("first"))
    path = tmp_path / "c.yaml"
    assert imported(path, "--match-on", "method,uri") == [["method", "uri"]]
    (default,) = imported(path, "--force", "--match-on", "vcr")
    assert default == ["method", "scheme", "host", "port", "path", "query"]
    refused = CliRunner().invoke(main, ["import", str(path), "--match-on", "colour"])
    assert refused.exit_code == 2
    assert "colour" in refused.output


def post(body: Any) -> Any:
    """Return the answer to a chat completion."""
    with client() as sender:
        return sender.post("https://api.openai.com/v1/chat/completions", json=body).json()


def test_match_on_of_a_test_overrides_the_imported_one(tmp_path: Path) -> None:
    """A test's `match_on` overrides the imported one; without either the body is compared."""
    (tmp_path / "c.yaml").write_text(cassette_text("first"))
    lax, strict = tmp_path / "lax.sqlite", tmp_path / "strict.sqlite"
    vcr.import_file(tmp_path / "c.yaml", lax, ["method", "uri"])
    vcr.import_file(tmp_path / "c.yaml", strict)
    with ember_testing.cassette(lax):
        assert post({"q": "x"}) == {"answer": "first"}
    with pytest.raises(CassetteMiss), ember_testing.cassette(lax, match_on=["method", "body"]):
        post({"q": "x"})
    with pytest.raises(CassetteMiss), ember_testing.cassette(strict):
        post({"q": "x"})


def test_miss_by_nulls_alone_suggests_null_is_absent(tmp_path: Path) -> None:
    """The offer is made only if a request differs by nulls where the recording has no key."""
    (tmp_path / "c.yaml").write_text(cassette_text("first"))
    path = tmp_path / "c.sqlite"
    vcr.import_file(tmp_path / "c.yaml", path)
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "recorded"}]}
    offer = "null_is_absent=True"
    for sent, offered in (
        ({**body, "stop": None}, True),
        ({**body, "stop": None, "seed": None}, True),
        ({**body, "stop": None, "seed": 1}, False),
        ({**body, "seed": 1}, False),
    ):
        with pytest.raises(CassetteMiss) as caught, ember_testing.cassette(path):
            post(sent)
        assert (offer in str(caught.value)) is offered
    with ember_testing.cassette(path, null_is_absent=True):
        post({**body, "stop": None})
