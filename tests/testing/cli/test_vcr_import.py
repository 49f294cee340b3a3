"""`ember-cassettes import`: what vcrpy has written, in all its forms, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import ember_testing
from ember_testing import CassetteError
from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import cassette_file
from ember_testing.cli import main, vcr

FOLDER = Path(os.environ.get("EMBER_CORPUS", "")) / "vcr_yaml"
FILES = sorted(FOLDER.glob("*.yaml")) if os.environ.get("EMBER_CORPUS") else []
NOT_FOR_VCRPY = {
    "pydantic__pydantic-ai__test_anthropic_server_tool_pass_history_to_another_provider.yaml",
    "pydantic__pydantic-ai__test_google_model_web_search_tool_stream.yaml",
}
needs_corpus = pytest.mark.skipif(
    not FILES and not os.environ.get("CI"),
    reason="EMBER_CORPUS does not name the folder that holds vcr_yaml",
)
# Models that nobody prices are recorded too.
pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def as_bytes(value: Any) -> bytes:
    """A body as vcrpy hands it out."""
    return value.encode() if isinstance(value, str) else value or b""


def plain(headers: dict[str, list[str]], body: bytes) -> bytes:
    """A response's body, decoded by httpx where it is encoded."""
    encoding = next((v[0] for k, v in headers.items() if k.lower() == "content-encoding"), "")
    try:
        return httpx.Response(200, headers={"content-encoding": encoding}, content=body).content
    except httpx.DecodingError:  # kept decoded, under its old name
        return body


def played(path: Path) -> list[tuple[int, bytes]]:
    """Status and body of each call of a cassette, as a client gets them."""
    with closing(CassetteFile(path)) as file:
        calls = list(calls_of(file))
    found: list[tuple[int, bytes]] = []
    with ember_testing.cassette(path), httpx.Client(verify=False) as client:
        for call in calls:
            kind = [pair for pair in call.request_headers if pair[0].lower() == "content-type"]
            answer = client.request(call.method, call.url, content=call.body, headers=kind)
            found.append((answer.status_code, answer.content))
    return found


@needs_corpus
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem[:60])
def test_every_file_of_the_corpus(path: Path, tmp_path: Path) -> None:
    """The same number of calls and the same bytes as vcrpy reads, and a replay hands them out."""
    target = tmp_path / "c.sqlite"
    count = vcr.import_file(path, target)
    answers = played(target)
    assert len(answers) == count > 0
    if path.name in NOT_FOR_VCRPY:
        yaml = pytest.importorskip("yaml")
        interactions = yaml.safe_load(path.read_text())["interactions"]
        for (_, body), each in zip(answers, interactions, strict=True):
            response = each["response"]
            if "parsed_body" in response:
                assert json.loads(body) == response["parsed_body"]
            else:
                assert body == as_bytes(response["body"]["string"])
        return
    persister = pytest.importorskip("vcr.persisters.filesystem").FilesystemPersister
    serializer = pytest.importorskip("vcr.serializers.yamlserializer")
    requests, responses = persister.load_cassette(str(path), serializer)
    assert count == len(requests)
    for request, response, (status, body), recorded in zip(
        requests, responses, answers, vcr.read(path), strict=True
    ):
        raw = as_bytes(response["body"]["string"])
        assert (recorded.method, recorded.url) == (request.method, request.uri)
        assert recorded.body == as_bytes(request.body)
        assert recorded.content == raw
        assert (status, body) == (response["status"]["code"], plain(response["headers"], raw))


BODY = "request: {method: POST, uri: 'http://h/v1', body: '{\"q\": 1}', headers: {A: [b]}}"
OLD_REQUEST = """
    !!python/object:vcr.request.Request
    body: !!python/unicode '{"q": 1}'
    headers: !!python/object/apply:__builtin__.frozenset
    - - !!python/tuple [A, b]
    host: h
    method: POST
    path: /v1
    port: 80
    protocol: http"""
FORMS = {
    "version 1": f"interactions:\n- {BODY}\n  response: {{body: {{string: hello}}, headers: {{}}, "
    "status: {code: 200, message: OK}}\nversion: 1\n",
    "binary": f"interactions:\n- {BODY}\n  response: {{body: {{string: !!binary aGVsbG8=}}, "
    "headers: {}, status: {code: 200, message: OK}}\n",
    "base64_string": f"interactions:\n- {BODY}\n  response: {{body: {{base64_string: aGVsbG8=}}, "
    "headers: {}, status: {code: 200, message: OK}}\n",
    "httpx stub": f"interactions:\n- {BODY}\n  response: {{content: hello, headers: {{}}, "
    "http_version: HTTP/1.1, status_code: 200}\n",
    "list of objects": f"- request: {OLD_REQUEST}\n  response:\n    body: {{string: hello}}\n"
    "    headers: ['content-type: text/plain']\n    status: {code: 200, message: OK}\n",
    "json": json.dumps(
        [
            {
                "request": {"method": "POST", "protocol": "http", "host": "h", "port": 80,
                            "path": "/v1", "body": '{"q": 1}', "headers": {"A": "b"}},
                "response": {"status": {"code": 200, "message": "OK"}, "headers": {},
                             "body": {"string": "hello"}},
            }
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_vcrpys_history_is_read(form: str, tmp_path: Path) -> None:
    """Old and new spellings of the same call give the same cassette."""
    (tmp_path / "c.yaml").write_text(FORMS[form])
    vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite")
    assert played(tmp_path / "c.sqlite") == [(200, b"hello")]
    (call,) = vcr.read(tmp_path / "c.yaml")
    assert (call.url, call.body, call.request_headers) == (
        "http://h/v1",
        b'{"q": 1}',
        (("A", "b"),),
    )


REFUSED = {
    "!!python/object/apply:os.system ['touch pwned']": "could not determine a constructor",
    "interactions: [!!python/object/new:subprocess.Popen [[touch, pwned]]]": "could not determine",
    "interactions: [!!python/name:os.system '']": "could not determine a constructor",
    "interactions: {a: 1}": "no list `interactions`",
    "just text": "no list `interactions`",
    "interactions: [{request: {method: GET}}]": "interaction 1 is not read: KeyError",
    "interactions: [": "is not read",
    "interactions: []": "holds no interaction",
}


@pytest.mark.parametrize("text", REFUSED)
def test_files_of_other_kinds_or_that_would_run_code_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message gives the reason, nothing in the file is executed, no cassette is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CassetteError, match=REFUSED[text].replace("[", r"\[")):
        vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_body_kept_decoded_under_an_encodings_name_replays(tmp_path: Path) -> None:
    """Some recorders leave `content-encoding: gzip` on plain text: a client would fail on it."""
    head = "{content-encoding: [gzip], content-length: ['99']}"
    packed = f"!!binary {base64.b64encode(gzip.compress(b'hello')).decode()}"
    for name, body in (("plain", "hello"), ("packed", packed)):
        (tmp_path / f"{name}.yaml").write_text(
            f"interactions:\n- {BODY}\n  response: {{body: {{string: {body}}}, headers: {head}, "
            "status: {code: 200, message: OK}}\n"
        )
        vcr.import_file(tmp_path / f"{name}.yaml", tmp_path / f"{name}.sqlite")
        assert played(tmp_path / f"{name}.sqlite") == [(200, b"hello")]


@pytest.mark.parametrize(
    "node_id",
    [
        "tests/test_towns.py::test_b",
        "tests/test_towns.py::TestA::test_b",
        "tests/api/test_towns.py::TestA::test_b[1.5-x]",
        "test_towns.py::test_b[GPT-4]",
        "test_towns.py::test_Upper",
        "test_towns.py::TestUpper::test_lower",
        "test_towns.py::test_b[Z\u00fcrich]",
        "test_towns.py::test_b[a.b[c]]",
        f"test_towns.py::test_b[{'long' * 50}]",
    ],
)
def test_a_cassette_is_imported_to_where_its_test_looks(
    node_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-recording's file of a test becomes the file that the plugin looks for."""
    module, _, test = node_id.partition("::")
    folder = Path(module).parent / "cassettes" / Path(module).stem
    source = folder / f"{test.replace('::', '.')}.yaml"
    monkeypatch.chdir(tmp_path)
    for given in (source, tmp_path / source):
        assert vcr.targets([given], Path("cassettes")) == [
            (given, Path("cassettes") / cassette_file(node_id))
        ]


def test_a_named_cassette_keeps_its_name() -> None:
    """A file that a marker named, and one outside of pytest-recording's layout, stay as named."""
    assert vcr.targets([Path("tests/cassettes/test_a/Shared.yaml")], Path("into")) == [
        (Path("tests/cassettes/test_a/Shared.yaml"), Path("into/tests/test_a/Shared.sqlite"))
    ]
    assert vcr.targets([Path("old/test_B[X].yaml")], Path("into")) == [
        (Path("old/test_B[X].yaml"), Path("into/test_B[X].sqlite"))
    ]


def test_the_command_lays_files_where_the_plugin_looks_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-recording's layout is translated, an existing file needs --force, keys are gone."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "tests" / "cassettes" / "test_towns"
    source.mkdir(parents=True)
    key = "sk-0123456789abcdefghijkl"
    text = FORMS["version 1"].replace("{A: [b]}", f"{{authorization: ['Bearer {key}']}}")
    (source / "TestA.test_b[1.5].yaml").write_text(text)
    (source / "broken.yaml").write_text("no")
    result = CliRunner().invoke(main, ["import", "tests", "--json"])
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    target = Path("cassettes/tests/test_towns/TestA.test_b[1.5].sqlite")
    assert (good["to"], good["calls"], good["error"]) == (str(target), 1, None)
    assert "no list `interactions`" in bad["error"]
    assert key.encode() not in target.read_bytes()
    (source / "broken.yaml").unlink()
    again = CliRunner().invoke(main, ["import", "tests"])
    assert again.exit_code == 1
    assert "is there already: --force replaces it" in again.stdout
    assert CliRunner().invoke(main, ["import", "tests", "--force"]).exit_code == 0
    assert CliRunner().invoke(main, ["check", "cassettes"]).exit_code == 0
