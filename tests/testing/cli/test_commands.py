"""The command `ember-cassettes`, run as a user runs it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_testing
from ember_testing.cli import main
from ember_testing.cli.check import _KEY_FORMATS, _keys_in
from tests.edited import edit
from tests.loopback import serving
from tests.testing.chat import KEY, chat
from tests.testing.cli.command import found, record, run

COMMANDS = ("list", "show", "diff", "stats", "check", "prune", "import", "export", "textconv",
            "git-setup", "drift", "html", "mv", "merge")  # fmt: skip


def change(path: Path, statement: str, *values: object) -> None:
    """Edit a cassette with SQLite alone."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str) -> None:
    """`--help` of every command has an example and the option for JSON."""
    text = run(command, "--help").stdout
    assert "Example:" in text
    assert f"ember-cassettes {command}" in text
    assert "--json" in text


def test_the_command_is_installed_and_lists_its_parts() -> None:
    """`python -m ember_testing.cli --help`, in a separate process, names all commands."""
    result = subprocess.run(
        [sys.executable, "-m", "ember_testing.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(f"\n  {command} " in result.stdout for command in COMMANDS)


def test_list_shows_calls_models_and_cost(cassette: Path) -> None:
    """`list` prints one line per cassette; JSON has the sums."""
    (line,) = found("list", cassette.parent)["cassettes"]
    assert (line["calls"], line["models"]) == (2, ["unknown/gpt-4-0613"])
    assert line["cost"] == pytest.approx(2 * (10 * 30 + 5 * 60) / 1e6)
    assert "a.sqlite" in run("list", cassette.parent).stdout


def test_list_shows_damaged_and_partial_files(cassette: Path) -> None:
    """A truncated file and the partial file of a killed recording are listed, with exit code 1."""
    (cassette.parent / "b.sqlite").write_bytes(cassette.read_bytes()[:3000])
    (cassette.parent / "c.sqlite.123-abcd.part").touch()
    listed = found("list", cassette.parent, code=1)
    assert "damaged" in listed["cassettes"][1]["error"]
    assert listed["leftovers"] == [str(cassette.parent / "c.sqlite.123-abcd.part")]


def test_show_reads_like_a_transcript(cassette: Path) -> None:
    """`show` prints heading, roles and answer, and with --call a single call."""
    text = run("show", cassette).stdout
    lines = text.splitlines()
    assert lines[0].startswith("## 1  POST http://127.0.0.1:")
    assert lines[0].endswith("/v1/chat/completions  200 complete")
    assert "unknown/gpt-4-0613, 10 + 5 tokens, $0.0006" in lines[1]
    assert lines[2:6] == [
        "system: Be brief.",
        "user: Paris",
        'with: model="gpt-4", max_tokens=20',
        "assistant: About Paris.",
    ]
    assert "Paris" not in run("show", cassette, "--call", "2").stdout
    assert run("show", cassette, "--call", "9", code=2).stderr.endswith("has no call 9\n")


def test_textconv_is_the_same_for_two_recordings_of_the_same_calls(tmp_path: Path) -> None:
    """`textconv` omits times and dates; it reports a damaged file without failing."""
    with serving(chat) as server:
        texts = [
            run("textconv", record(tmp_path / f"{i}.sqlite", server.url, "Paris")).stdout
            for i in range(2)
        ]
    assert texts[0] == texts[1]
    assert "assistant: About Paris." in texts[0]
    (tmp_path / "x.sqlite").write_text("no cassette")
    assert "is damaged or no cassette" in run("textconv", tmp_path / "x.sqlite").stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_diff_shows_transcripts_as_git_setup_says(cassette: Path, tmp_path: Path) -> None:
    """After the printed commands `git diff` shows roles and answers, even off the PATH."""
    lines = found("git-setup")
    repository = tmp_path / "repository"
    where = repository / "cassettes" / "deep"
    where.mkdir(parents=True)

    # Git runs the command in another process, which must find Ember where this one does.
    environment = {**os.environ, "PYTHONPATH": str(Path(ember_testing.__file__).parents[1])}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    git("init", "-q")
    (repository / ".gitattributes").write_text(lines[".gitattributes"] + "\n")
    environment["PATH"] = os.pathsep.join([str(tmp_path / "bin"), environment["PATH"]])
    program = tmp_path / "bin" / "ember-cassettes"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 127\n")  # as if it were not on the PATH
    program.chmod(0o755)
    for command in lines["commands"]:
        subprocess.run(command, shell=True, cwd=repository, env=environment, check=True)
    shutil.copy(cassette, where / "a.sqlite")
    git("add", ".")
    git("commit", "-q", "-m", "before")
    with serving(lambda request: chat(request, "gpt-4-0999")) as server:
        record(where / "a.sqlite", server.url, "Paris", "Oslo")
    text = git("diff")
    assert "-user: Rome" in text
    assert "+user: Oslo" in text
    assert "+assistant: About Oslo." in text
    textconv = git("config", "diff.ember-cassettes.textconv").strip()
    git("config", "diff.ember-cassettes.textconv", textconv.replace(sys.executable, "/gone"))
    text = git("diff")  # the extra is not installed
    assert "a.sqlite" in text
    assert "not shown: ember-cassettes is not installed here" in text
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ember_testing.cli "$@"\n')
    assert "+user: Oslo" in git("diff")  # the interpreter has moved


def test_diff_pairs_calls_and_names_what_changed(cassette: Path, tmp_path: Path) -> None:
    """Changed answers, changed questions with the most similar one, and new calls are found."""
    assert run("diff", cassette, shutil.copy(cassette, tmp_path / "copy.sqlite")).stdout == (
        "the same\n"
    )
    with serving(lambda request: chat(request, "gpt-4-0999")) as server:
        new = record(tmp_path / "new.sqlite", server.url, "Paris", "Romes", "Oslo")
    first, second, third = found("diff", cassette, new, code=1)
    assert (first["kind"], first["lines"]) == (
        "changed",
        ["model: old gpt-4-0613, new gpt-4-0999", *first["lines"][1:]],
    )
    assert second["lines"][0] == '! messages[1].content: old "Rome", new "Romes"'
    assert (third["kind"], third["new"]) == ("added", 3)


def test_diff_of_many_changed_calls_pairs_each_with_its_own(tmp_path: Path) -> None:
    """If too many calls changed to compare all, a call is paired with the one at its position."""
    with serving(chat) as server:
        sides = [
            record(tmp_path / f"{side}.sqlite", server.url, *(f"{n} {side} {n}" for n in range(99)))
            for side in ("old", "new")
        ]
    pairs = [(each["old"], each["new"]) for each in found("diff", *sides, code=1)]
    assert pairs == [(number, number) for number in range(1, 100)]


def test_tables_have_headings_and_aligned_columns(cassette: Path) -> None:
    """The columns of `list` and `stats` have headings, and figures are right-aligned."""
    for command, first in (("list", "cassette"), ("stats", "model")):
        head, *rows = run(command, cassette).stdout.splitlines()
        assert head.split()[0] == first
        assert {"calls", "in", "out", "cost", "time", "age"} <= set(head.split())
        end = head.index("calls") + len("calls")
        assert rows[0][:end].endswith(" 2")


def test_colours_are_for_terminals(cassette: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals get colours and files do not; NO_COLOR and FORCE_COLOR override this."""

    def colours(terminal: bool) -> bool:
        return "\x1b[" in CliRunner().invoke(main, ["stats", str(cassette)], color=terminal).stdout

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert (colours(True), colours(False)) == (True, False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert colours(False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours(True)


def test_stats_add_up_by_model(cassette: Path) -> None:
    """Calls, tokens, cost and age are summed by model and in total."""
    sums = found("stats", cassette.parent)
    assert list(sums) == ["unknown/gpt-4-0613", "all"]
    total = sums["all"]
    assert (total["calls"], total["prompt_tokens"], total["completion_tokens"]) == (2, 20, 10)
    assert total["cost"] == pytest.approx(0.0012)
    assert total["age_days"] == pytest.approx(0, abs=0.2)
    assert "$0.0012" in run("stats", cassette).stdout


def test_export_writes_a_line_a_call(cassette: Path, tmp_path: Path) -> None:
    """`export` writes JSON lines to a file, and with --json a single array."""
    target = tmp_path / "calls.jsonl"
    run("export", cassette, "-o", target)
    calls = [json.loads(line) for line in target.read_text().splitlines()]
    assert [call["text"] for call in calls] == ["About Paris.", "About Rome."]
    assert calls[0]["cassette"] == str(cassette)
    assert json.loads(calls[0]["body"])["model"] == "gpt-4"
    assert len(found("export", cassette)) == 2


PLANTED: dict[str, tuple[str, str]] = {
    "OpenAI key": ("request_body", '{"q": "sk-proj-abcdefghijklmnopqrstuvwx"}'),
    "Anthropic key": ("response_body", "sk-ant-api03-abcdefghijklmnopqrst"),
    "Google key": ("url", "http://h/AIzaSyA1234567890abcdefghijklmnopqrstuv"),
    "AWS access key": ("text", "AKIAIOSFODNN7EXAMPLE"),
    "GitHub token": ("error_message", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    "JSON web token": ("test", "t[eyJhbGciOiJI.eyJzdWIiOiIx.abcdefghijk]"),
    "bearer token": ("response_headers", '[["x-echo", "Bearer abcdefghijklmnopqrst"]]'),
    "private key": ("request_body", '{"q": "-----BEGIN RSA PRIVATE KEY-----"}'),
    "header": ("request_headers", '[["x-api-key", "hunter2hunter2"]]'),
    "query": ("url", "http://127.0.0.1/v1?key=hunter2hunter2"),
    "field": ("response_body", '{"access_token": "hunter2hunter2"}'),
    "environment": ("response_body", "the value is tr0ub4dor-and-3"),
    "base64": ("response_body", base64.b64encode(b"me:tr0ub4dor-and-3").decode()),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_check_finds_a_planted_secret_of_each_kind(
    cassette: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """`check` finds secrets by format, name and environment values, and does not print them."""
    monkeypatch.setenv("ACME_API_KEY", "tr0ub4dor-and-3")
    assert run("check", cassette.parent).stdout == "1 cassette checked, 0 findings\n"
    column, value = PLANTED[kind]
    change(cassette, f"update calls set {column} = ? where id = 2", value)
    findings = found("check", cassette, code=1)[str(cassette)]
    assert (2, column, "secret") in [
        (each["call"], each["where"], each["kind"]) for each in findings
    ]
    text = run("check", cassette, code=1).stdout
    for secret in ("hunter2hunter2", "tr0ub4dor-and-3", "abcdefghijklmnopqrst"):
        assert secret not in text


def test_check_without_keys_finds_no_secret_in_an_escaped_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CI: where no variable has a key, an escaped letter in JSON is no finding."""
    for name in tuple(os.environ):
        if name not in {"PATH", "HOME", "SYSTEMROOT"}:
            monkeypatch.delenv(name)
    path = tmp_path / "a.sqlite"
    with serving() as server, ember_testing.cassette(path, record="new"):
        httpx.post(server.url, content=b'{"q": "\\u0041bc"}')
    assert run("check", path).stdout == "1 cassette checked, 0 findings\n"
    with ember_testing.cassette(path):
        answer = httpx.post(server.url, content=b'{"q": "\\u0041bc"}')
    assert answer.json() == {"echo": {"q": "Abc"}}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_check_knows_every_key_format(data: st.DataObject) -> None:
    """Every key format is found: each match contains one of the bytes searched for first."""
    name = data.draw(st.sampled_from(sorted(_KEY_FORMATS)))
    key = data.draw(st.from_regex(_KEY_FORMATS[name][0], fullmatch=True))
    assert next(_keys_in(b'"' + key + b'"'))[1] in key + b'"'


def test_check_finds_a_secret_in_a_compressed_piece_and_in_other_tables(
    cassette: Path, tmp_path: Path
) -> None:
    """Compressed chunks are decoded, and secrets outside the calls are found too."""
    import gzip

    other = Path(shutil.copy(cassette, tmp_path / "other.sqlite"))
    headers = '[["content-encoding", "gzip"]]'
    layout = f"[0, {len(gzip.compress(KEY.encode()))}]"
    change(cassette, "update calls set response_raw = ?", gzip.compress(KEY.encode()))
    change(cassette, "update calls set response_headers = ?", headers)
    change(cassette, "update calls set layout = ?", layout)
    findings = found("check", cassette, code=1)[str(cassette)]
    assert {each["where"] for each in findings if each["kind"] == "secret"} == {"response_raw"}
    edit(other, "insert into cassette values ('note', ?)", KEY)
    assert found("check", other, code=1)[str(other)][0]["where"] == "cassette"
    run("check", other, "--allow", KEY)


def test_check_finds_what_is_truncated_edited_or_missing(cassette: Path) -> None:
    """`check` finds a lost chunk, an edited request, a dropped view and incomplete files."""

    def kinds(path: Path) -> set[tuple[str, str]]:
        return {(each["kind"], each["where"]) for each in found("check", path, code=1)[str(path)]}

    spoilt = {
        "update calls set layout = '[]' where id = 1": ("integrity", "calls"),
        "update calls set request_body = '{}' where id = 1": ("schema", "key"),
        "drop view transcript": ("schema", "transcript"),
        "drop view chunks; create view chunks as with recursive without_end(i) as (select 1 "
        "union all select i from without_end) select i from without_end": ("schema", "chunks"),
        "alter table calls drop column reason": ("integrity", "file"),
        "drop table prices": ("integrity", "file"),
    }
    for number, (statement, finding) in enumerate(spoilt.items()):
        path = Path(shutil.copy(cassette, cassette.with_name(f"{number}.sqlite")))
        if "drop column" in statement and sqlite3.sqlite_version_info < (3, 35):
            continue
        if "drop column" in statement:
            change(path, "drop view transcript")  # it uses the column
        for each in statement.split("; "):
            change(path, each)
        assert finding in kinds(path), statement
    cassette.write_bytes(cassette.read_bytes()[:3000])
    assert kinds(cassette) == {("integrity", "file")}
    left = cassette.with_name("z.sqlite.1-ab.part")
    left.touch()
    (finding,) = found("check", cassette.parent, code=1)[str(left)]
    assert finding["kind"] == "leftover"


def test_broken_link_is_listed_beside_the_other_files(cassette: Path) -> None:
    """Its line says that it cannot be read; the other files are processed."""
    (cassette.parent / "link.sqlite").symlink_to("nowhere")
    lines = found("list", cassette.parent, code=1)["cassettes"]
    assert [bool(each["error"]) for each in lines] == [False, True]


def test_missing_folder_ends_with_code_2(tmp_path: Path) -> None:
    """The exit code is 2, as for every wrong argument."""
    run("check", tmp_path / "nowhere", code=2)
    run("drift", tmp_path, code=2)  # no budget


class TestPrune:
    """`pytest --ember-report` lists what was used; `prune --yes` deletes the rest."""

    @pytest.fixture
    def suite(
        self, pytester: pytest.Pytester, run: Callable[..., pytest.RunResult]
    ) -> Callable[..., Any]:
        """Run pytest on a test module and return the report."""

        def suite(body: str, *arguments: str) -> Any:
            run("import httpx, pytest\n" + body, "--ember-report=report.json", *arguments)
            return json.loads((pytester.path / "report.json").read_text())

        return suite

    BODY = """
def ask(text):
    with httpx.Client(verify=False) as client:
        client.post({url!r}, json={{"q": text}})
@pytest.mark.ember_replay
def test_own(): [ask(text) for text in {own}]
@pytest.mark.ember_replay(cassette="shared")
def test_first(): ask("first")
@pytest.mark.ember_replay(cassette="shared")
def test_second(): [ask(text) for text in {shared}]
"""

    def test_prune_after_a_partial_run_keeps_cassettes_of_other_files(
        self, suite: Callable[..., Any], pytester: pytest.Pytester
    ) -> None:
        """With `--partial` and the report of one file, cassettes of other files stay."""
        folder = pytester.path / "cassettes"
        with serving() as server:
            body = self.BODY.format(url=server.url, own=["a"], shared=["b"])
            other = "import httpx, pytest\n" + body.replace("shared", "both")
            pytester.makepyfile(test_other=other)
            suite(body, "--ember-record")
        shutil.copy(folder / "test_it/test_own.sqlite", folder / "test_it/test_gone.sqlite")
        assert suite(body, "test_it.py")["partial"]
        arguments = ("prune", "--report", pytester.path / "report.json", "--partial", "--yes")
        output = run(*arguments, folder, code=0).stdout
        assert "test_other/test_own.sqlite: stays as it is: no test of test_other.py was" in output
        assert "test_it/test_gone.sqlite: deleted" in output
        left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.sqlite"))
        assert left == [
            "both.sqlite", "shared.sqlite", "test_it/test_own.sqlite", "test_other/test_own.sqlite"
        ]  # fmt: skip

    def test_prune_deletes_unused_recordings_and_the_rest_replays(
        self, suite: Callable[..., Any], pytester: pytest.Pytester
    ) -> None:
        """Unused recordings of own and shared cassettes and files go, but only with --yes."""
        folder = pytester.path / "cassettes"
        with serving() as server:
            whole = self.BODY.format(url=server.url, own=["a", "b"], shared=["c", "d"])
            suite(whole, "--ember-record")
            shutil.copy(folder / "shared.sqlite", folder / "gone.sqlite")
        less = self.BODY.format(url=server.url, own=["b"], shared=["d"])
        report = suite(less)
        assert report["partial"] == []
        assert report["totals"]["replayed"] == 3
        arguments = ("prune", folder, "--report", pytester.path / "report.json")
        unused = {Path(each["path"]).name: each for each in found(*arguments, code=1)}
        assert unused["gone.sqlite"]["whole"]
        assert unused["test_own.sqlite"]["recordings"] == [1]
        assert unused["shared.sqlite"]["recordings"] == [2]
        assert (folder / "gone.sqlite").exists()
        assert "would be deleted" in run(*arguments, code=1).stdout
        run(*arguments, "--yes")
        assert not (folder / "gone.sqlite").exists()
        assert run("check", folder).stdout.startswith("2 cassettes checked, 0")
        assert suite(less, "-o", "ember_unused=fail")["exit_status"] == 0
        assert "nothing to delete" in run(*arguments).stdout

    def test_prune_keeps_cassettes_of_skipped_failed_or_deselected_tests(
        self, suite: Callable[..., Any], pytester: pytest.Pytester
    ) -> None:
        """A test that did not pass keeps its cassette; the report of a partial run is refused."""
        folder = pytester.path / "cassettes"
        with serving() as server:
            body = self.BODY.format(url=server.url, own=["a"], shared=["c"])
            suite(body, "--ember-record")
        arguments = ("prune", folder, "--report", pytester.path / "report.json", "--yes")
        report = suite(body, "-k", "own")
        assert report["partial"] == ["2 tests deselected"]
        assert "part of the suite" in run(*arguments, code=2).stderr
        suite(body, "test_it.py::test_own")
        assert "arguments: " in run(*arguments, code=2).stderr
        suite(body.replace("def test_own", "@pytest.mark.skip\ndef test_own").replace(
            '): ask("first")', '): ask("first"); assert 0'))  # fmt: skip
        reasons = {Path(each["path"]).name: each["kept"] for each in found(*arguments)}
        assert set(reasons) == {"test_own.sqlite", "shared.sqlite"}
        assert "test_own did not pass" in reasons["test_own.sqlite"]
        assert len(list(folder.rglob("*.sqlite"))) == 2

    @pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n1")])
    @pytest.mark.parametrize(
        ("line", "outcome"),
        [("pytest.skip('x', allow_module_level=True)", "skipped"), ("raise OSError", "failed")],
    )
    def test_prune_keeps_cassettes_of_a_module_that_was_not_collected(
        self,
        suite: Callable[..., Any],
        pytester: pytest.Pytester,
        line: str,
        outcome: str,
        workers: tuple[str, ...],
    ) -> None:
        """If a whole module was skipped or failed, its cassettes stay: its use is unknown."""
        pytester.makepyfile(test_other=f"import pytest\n{line}\n")
        unseen = pytester.path / "cassettes" / "test_other" / "test_a.sqlite"
        with serving() as server:
            record(unseen, server.url, "Paris")
        report = suite("def test_a(): pass", "--continue-on-collection-errors", *workers)
        assert f"test_other.py {outcome} at collection" in report["partial"]
        path = pytester.path / "report.json"
        assert "part of the suite" in run("prune", unseen, "--report", path, "--yes", code=2).stderr
        assert unseen.exists()

    @pytest.mark.parametrize(
        ("before", "why"),
        [
            ("pytest.skip('not here', allow_module_level=True)", "skipped at collection"),
            ("import no_such_module", "failed at collection"),
            ("collect_ignore = ['test_it.py']", "not collected: ignored"),
            (
                "@pytest.mark.ember_replay\n@pytest.mark.skip\ndef test_later(): pass",
                "did not pass",
            ),
        ],
    )
    def test_prune_keeps_cassettes_of_a_partly_run_module(
        self, suite: Callable[..., Any], pytester: pytest.Pytester, before: str, why: str
    ) -> None:
        """After a skip, an error, or an ignored file, nothing of the module is deleted."""
        folder = pytester.path / "cassettes"
        with serving() as server:
            body = self.BODY.format(url=server.url, own=["a"], shared=["c"])
            suite(body, "--ember-record")
        pytester.makepyfile(test_other="def test_plain(): pass")
        if before.startswith("collect_ignore"):
            pytester.makeconftest(before)
            before = body
        arguments = ["prune", folder, "--report", pytester.path / "report.json", "--yes"]
        arguments.append("--partial")  # which accepts the run, but not for this module
        report = suite(before, "--continue-on-collection-errors")
        assert bool(report["partial"]) == ("at collection" in why or report["exit_status"] == 5)
        stays = {Path(each["path"]).name: each["kept"] for each in found(*arguments)}
        assert set(stays) == {"test_own.sqlite", "shared.sqlite"}
        assert all(why in reason for reason in stays.values()), stays
        assert len(list(folder.rglob("*.sqlite"))) == 2

    def test_prune_prints_the_test_and_the_run_of_each_deletion(
        self, suite: Callable[..., Any], pytester: pytest.Pytester
    ) -> None:
        """A deleted test's cassette goes, and the output names that test and the run."""
        with serving() as server:
            body = self.BODY.format(url=server.url, own=["a"], shared=["c"])
            suite(body, "--ember-record")
        report = suite(body.replace("@pytest.mark.ember_replay\ndef test_own", "def _gone"))
        arguments = ("prune", pytester.path / "cassettes", "--report", "report.json")
        out = run(*arguments, code=1).stdout
        assert f"recorded by test_it.py::test_own, not used by run {report['run']}" in out

    def test_prune_refuses_the_report_of_a_run_with_a_crashed_worker(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The counts of a crashed pytest-xdist worker are lost, so the run proves nothing."""
        pytest.importorskip("xdist")
        pytester.makepyfile("import os\ndef test_dies(): os._exit(3)\ndef test_lives(): pass")
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take long to load
        options = ("-p", "xdist", "-p", "ember_testing.plugin", "-n2")
        result = pytester.runpytest_subprocess(*options, "--ember-report=report.json")
        result.assert_outcomes(passed=1, failed=1)
        report = json.loads((pytester.path / "report.json").read_text())
        assert any("did not end: gw" in reason for reason in report["partial"])
        (pytester.path / "cassettes").mkdir()
        result = run("prune", pytester.path / "cassettes", "--report", "report.json", code=2)
        assert "worker processes that did not end" in result.stderr

    def test_prune_refuses_a_file_that_is_not_a_report(
        self, cassette: Path, tmp_path: Path
    ) -> None:
        """Nothing is deleted if any other file is given as a report."""
        for text in ("{}", "[]", "no JSON"):
            (tmp_path / "r.json").write_text(text)
            result = run("prune", cassette, "--report", tmp_path / "r.json", "--yes", code=2)
            assert "is no report of pytest --ember-report" in result.stderr
        assert cassette.exists()


def test_partial_file_of_a_killed_recording_is_reported_by_the_next_run(
    pytester: pytest.Pytester, run: Callable[..., pytest.RunResult]
) -> None:
    """A leftover is reported once per folder, by name; a file being written is not reported."""
    folder = pytester.path / "cassettes" / "test_it"
    folder.mkdir(parents=True)
    old = folder / "test_a.sqlite.77-abcd.part"
    old.touch()
    os.utime(old, (1e9, 1e9))
    result = run("import pytest\n@pytest.mark.ember_replay\ndef test_a(): pass")
    result.stdout.fnmatch_lines([f"left by a recording that was killed, delete it: {old}"])
