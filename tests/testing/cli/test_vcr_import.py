"""`ember-cassettes import`: all forms of vcrpy's cassettes, and files that are refused."""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
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
# Models without a price are recorded too.
pytestmark = pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")


def as_bytes(value: Any) -> bytes:
    """Return a body in the form that vcrpy returns."""
    return value.encode() if isinstance(value, str) else value or b""


def plain(headers: dict[str, list[str]], body: bytes) -> bytes:
    """Return a response's body, decoded by httpx if it is encoded."""
    encoding = next((v[0] for k, v in headers.items() if k.lower() == "content-encoding"), "")
    try:
        return httpx.Response(200, headers={"content-encoding": encoding}, content=body).content
    except httpx.DecodingError:  # stored decoded, with the old content-encoding
        return body


def played(path: Path) -> list[tuple[int, bytes]]:
    """Return status and body of each call of a cassette, as a client gets them."""
    with CassetteFile(path) as file:
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
def test_every_file_of_the_corpus_replays_as_vcrpy_reads_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay returns the same number of calls and the same bytes as vcrpy reads."""
    monkeypatch.setitem(sys.modules, "pycurl", None)  # vcrpy loads it if it is installed
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
    for request, response, (status, body), (sent, received) in zip(
        requests, responses, answers, vcr.read(path), strict=True
    ):
        raw = as_bytes(response["body"]["string"])
        assert (sent.method, sent.url) == (request.method, request.uri)
        assert sent.body == as_bytes(request.body)
        assert received.body == raw
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
def test_every_format_of_vcrpys_history_is_read(form: str, tmp_path: Path) -> None:
    """Old and new spellings of the same call give the same cassette."""
    (tmp_path / "c.yaml").write_text(FORMS[form])
    vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite")
    assert played(tmp_path / "c.sqlite") == [(200, b"hello")]
    ((request, _),) = vcr.read(tmp_path / "c.yaml")
    assert request == ("POST", "http://h/v1", (("A", "b"),), b'{"q": 1}')


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
def test_other_files_and_files_that_run_code_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message gives the reason, no code in the file is executed, no cassette is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CassetteError, match=REFUSED[text].replace("[", r"\[")):
        vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_plain_body_with_a_content_encoding_replays(tmp_path: Path) -> None:
    """`content-encoding: gzip`, which some recorders leave on plain text, is dropped."""
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
def test_cassette_is_imported_to_the_path_of_its_test(
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
    """A file named by a marker, or outside pytest-recording's layout, keeps its name."""
    assert vcr.targets([Path("tests/cassettes/test_a/Shared.yaml")], Path("into")) == [
        (Path("tests/cassettes/test_a/Shared.yaml"), Path("into/tests/test_a/Shared.sqlite"))
    ]
    assert vcr.targets([Path("old/test_B[X].yaml")], Path("into")) == [
        (Path("old/test_B[X].yaml"), Path("into/test_B[X].sqlite"))
    ]


def test_import_writes_to_the_plugins_paths_and_keeps_existing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-recording's layout is mapped, an existing file needs --force, keys are redacted."""
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


def one(request: str = "", response: str = "", before: str = "") -> str:
    """Return a cassette of one call, with some fields changed."""

    def mapping(fields: str, usual: dict[str, str]) -> str:
        given = [f"{name}: {value}" for name, value in usual.items() if f"{name}:" not in fields]
        return "{" + ", ".join([*given, *([fields] if fields else [])]) + "}"

    sent = mapping(request, {"method": "POST", "uri": "'http://h/v1'", "body": "q"})
    answer = mapping(
        response, {"status": "{code: 200, message: OK}", "body": "{string: hello}", "headers": "{}"}
    )
    return f"{before}interactions:\n- request: {sent}\n  response: {answer}\n"


def many(name: str, *, merged: bool = False) -> str:
    """Return nested aliases: 9 to the power of 11 values in a kilobyte."""
    lines = [f"{name}0: &{name}0 {{k: v}}"]
    for depth in range(1, 12):
        inner = ",".join([f"*{name}{depth - 1}"] * 9)
        content = f"{{<<: [{inner}]}}" if merged else f"[{inner}]"
        lines.append(f"{name}{depth}: &{name}{depth} {content}")
    return "\n".join(lines) + "\n"


NINES = "9" * 5000
HOSTILE = {
    "a status of 5,000 digits": one(response=f"status: {{code: {NINES}}}"),
    "a status of 5,000 digits as text": one(response=f"status: '{NINES}'"),
    "a negative status": one(response="status: {code: -1}"),
    "a status of two digits": one(response="status: {code: 99}"),
    "a status of four digits": one(response="status: 1000"),
    "a status with a fraction": one(response="status: {code: 200.5}"),
    "an endless status": one(response="status: {code: .inf}"),
    "a status that is true": one(response="status: {code: true}"),
    "a status in other digits": one(response='status: "\\uFF12\\uFF10\\uFF10"'),
    "no status": one(response="status: null"),
    "a list as a status's words": one(response="status: {code: 200, message: [a]}"),
    "an address without its bracket": one("uri: 'http://[::1'"),
    "a port beyond the last": one("uri: 'http://h:99999/'"),
    "an address of no scheme": one("uri: h/v1"),
    "NUL in a path": one('uri: "http://h/a\\0b"'),
    "a line's end in an address": one('uri: "http://h/a\\n"'),
    "a list as an address": one("uri: [a]"),
    "a method of two lines": one('method: "GET\\r\\nA: b"'),
    "no method": "interactions: [{request: {uri: 'http://h/'}, response: {status: 200}}]",
    "a request that is a text": "interactions: [{request: a, response: {status: 200}}]",
    "an interaction that is null": "interactions: [null]",
    "an unknown encoding": one(response="body: {string: a, encoding: nope}"),
    "an encoding of bytes": one(response="body: {string: a, encoding: base64}"),
    "a list as an encoding": one(response="body: {string: a, encoding: [a]}"),
    "a request's unknown encoding": one("body: {string: a, encoding: nope}"),
    "a text that its encoding has not": one(response="body: {string: é, encoding: ascii}"),
    "a number as a body": one(response="body: {string: 5}"),
    "a list as a body": one("body: [a]"),
    "a date as a body": one("body: 2001-01-01"),
    "a set as a body": one("body: !!set {a, b}"),
    "what is no base64": one(response="body: {base64_string: '***'}"),
    "a list as base64": one(response="body: {base64_string: [a]}"),
    "what JSON has not": one(response="parsed_body: 2001-01-01"),
    "a number as headers": one(response="headers: 5"),
    "headers of three parts": one(response="headers: [[a, b, c]]"),
    "a list within a header's": one("headers: {a: [[b]]}"),
    "a header's name that is not ASCII": one(response="headers: {é: a}"),
    "a line's end in a header": one(response='headers: {a: "b\\r\\nc: d"}'),
    "a date of month 13": one(response="http_version: !!timestamp 2001-13-99"),
    "no integer": one(response="status: !!int abc"),
    "no truth": one(response="status: !!bool maybe"),
    "a number of 5,000 digits in base 60": one(response=f"status: {':'.join(['1'] * 5000)}"),
    "aliases of aliases in a body": one(response="parsed_body: *a11", before=many("a")),
    "aliases of aliases in headers": one(response="headers: {a: *a11}", before=many("a")),
    "aliases of aliases in an address": one("uri: *a11", before=many("a")),
    "mappings merged again and again": one(
        response="headers: *a11", before=many("a", merged=True)
    ),
    "a list that holds itself": one(response="parsed_body: &a [*a]"),
    "a mapping that holds itself": one(response="headers: &a {b: *a}"),
    "a mapping merged into itself": one(response="headers: &a {<<: *a}"),
    "lists nested 3,000 deep": one(response=f"parsed_body: {'[' * 3000}{']' * 3000}"),
    "a call of Python's": one("body: !!python/object/apply:os.system ['touch pwned']"),
    "an object of Python's": one(
        response="headers: !!python/object/new:subprocess.Popen [[touch, pwned]]"
    ),
    "a name of Python's": one("uri: !!python/name:os.system ''"),
    "a name of a header that is a list": one(
        "headers: {!!python/object/new:multidict._multidict.istr [[a]]: b}"
    ),
    "nothing": "",
    "NUL": "\0",
    "two documents": "a: 1\n---\nb: 2\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_malicious_file_is_reported_and_the_others_are_imported(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one sentence with the file's name; nothing is executed or left behind."""
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    Path("old/a.yaml").write_text(HOSTILE[kind])
    Path("old/b.yaml").write_text(one())
    result = CliRunner().invoke(main, ["import", "old", "--json"])
    assert result.exit_code == 1
    bad, good = json.loads(result.stdout)
    assert "old/a.yaml" in bad["error"]
    assert len(bad["error"]) < 500
    assert (good["calls"], good["error"]) == (1, None)
    assert played(Path("cassettes/b.sqlite")) == [(200, b"hello")]
    names = sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    assert [Path(name).name for name in names] == ["b.sqlite", "a.yaml", "b.yaml"]


ISTR = "!!python/object/{}:{}.istr"


@pytest.mark.parametrize("kind", ["new", "apply"])
@pytest.mark.parametrize("module", ["multidict._multidict", "multidict._multidict_py", "multidict"])
@pytest.mark.parametrize("form", ["[X-A]", "{{args: [X-A], state: {{}}}}"])
def test_header_names_of_aiohttp_are_read(
    kind: str, module: str, form: str, tmp_path: Path
) -> None:
    """A header name of multidict's class `istr`, as in recordings of aiohttp, is read as text."""
    name = f"? {ISTR.format(kind, module)} {form.format()}"
    (tmp_path / "c.yaml").write_text(one(f"headers: {{{name} : [b]}}"))
    ((request, _),) = vcr.read(tmp_path / "c.yaml")
    assert request.headers == (("X-A", "b"),)


@pytest.mark.parametrize(
    "date", ["Fri, 31 Dec 9999 23:59:59 -1200", "Mon, 01 Jan 0001 00:00:00 +1200", NINES, "", "x"]
)
def test_invalid_date_header_is_kept_but_not_used(date: str, tmp_path: Path) -> None:
    """The call is imported with the time of the import and the unchanged header."""
    (tmp_path / "c.yaml").write_text(one(response=f"headers: {{date: '{date}'}}"))
    assert vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite") == 1
    with CassetteFile(tmp_path / "c.sqlite") as file:
        (call,) = calls_of(file)
    assert ("date", date) in call.response_headers
    assert played(tmp_path / "c.sqlite") == [(200, b"hello")]


def test_a_header_beyond_latin_1_keeps_its_bytes(tmp_path: Path) -> None:
    """A header that vcrpy has read as UTF-8 is sent as UTF-8 again."""
    (tmp_path / "c.yaml").write_text(one(response="headers: {x-price: 5 €}"))
    ((_, response),) = vcr.read(tmp_path / "c.yaml")
    assert response.headers[0][1].encode("latin-1") == "5 €".encode()
    assert vcr.import_file(tmp_path / "c.yaml", tmp_path / "c.sqlite") == 1
    assert played(tmp_path / "c.sqlite") == [(200, b"hello")]


def test_pipe_and_too_long_name_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe does not block, and a name too long with its suffix does not stop other imports."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("a.yaml")
    Path("b.yaml").mkdir()
    long = f"{'c' * 248}.yaml"
    Path(long).write_text(one())
    Path("d.yaml").write_text(one())
    result = CliRunner().invoke(main, ["import", ".", "--json"])
    errors = {line["from"]: line["error"] for line in json.loads(result.stdout)}
    assert (result.exit_code, errors.pop("d.yaml")) == (1, None)
    assert sorted(errors) == ["a.yaml", "b.yaml", long]
    assert all(errors.values())
