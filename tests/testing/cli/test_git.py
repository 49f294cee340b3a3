"""Cassettes under version control: merged, renamed, compared with a revision."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ember_testing
from ember_testing.cli import main
from tests.loopback import serving
from tests.testing.chat import ask, chat
from tests.testing.cli.command import found, record, run


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Git in a repository with the printed attributes and commands."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ember_testing.__file__).parents[1])}

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    git("init", "-q", "-b", "main")
    lines = found("git-setup")
    (tmp_path / ".gitattributes").write_text(lines[".gitattributes"] + "\n")
    for command in lines["commands"]:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    (tmp_path / "cassettes").mkdir()
    return git


class TestMerge:
    """Two branches that each changed one cassette, merged by git as `git-setup` says."""

    @staticmethod
    def add(path: Path, url: str, *questions: str) -> None:
        """Record more calls in a cassette."""
        with ember_testing.cassette(path, record="new"):
            ask(url, *questions)

    def branch(
        self, git: Callable[..., Any], path: Path, url: str, name: str, *questions: str
    ) -> None:
        """Create a branch of main with additional calls."""
        git("checkout", "-q", "-b", name, "main")
        self.add(path, url, *questions)
        git("add", ".")
        git("commit", "-q", "-m", name)

    @pytest.mark.parametrize(
        ("ancestor", "place"),
        [(("Paris",), "cassettes/a.sqlite"), ((), "services/a b/cassettes/t/x [1].sqlite")],
    )
    def test_calls_that_two_branches_added_replay_without_paying(
        self, git: Callable[..., Any], tmp_path: Path, ancestor: tuple[str, ...], place: str
    ) -> None:
        """This also holds for a cassette new on both branches, and inside a larger repository."""
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with serving(chat) as server:
            if ancestor:
                self.add(path, server.url, *ancestor)
            git("add", ".")
            git("commit", "-q", "-m", "before")
            self.branch(git, path, server.url, "one", *ancestor, "Rome", "Bonn", "same in both")
            self.branch(git, path, server.url, "two", *ancestor, "Oslo", "same in both")
            merged = git("merge", "one", "-m", "merge")
            assert merged.returncode == 0, merged.stdout + merged.stderr
            received = len(server.received)
            with ember_testing.cassette(path) as calls:
                ask(server.url, *ancestor, "Rome", "Bonn", "Oslo", "same in both")
            assert len(calls.played) == len(ancestor) + 4
            assert all(call.cost for call in calls.played)
            assert len(server.received) == received
        assert run("check", path).stdout.startswith("1 cassette checked, 0")
        assert sorted(each.name for each in path.parent.iterdir()) == [path.name]

    def test_two_answers_to_the_same_call_are_a_conflict(
        self, git: Callable[..., Any], tmp_path: Path
    ) -> None:
        """Git stops, the message names the call, and our side is unchanged byte for byte."""
        path = tmp_path / "cassettes" / "a.sqlite"
        git("add", ".")
        git("commit", "-q", "-m", "before")
        with serving(chat) as server:
            self.branch(git, path, server.url, "one", "Rome")
        with serving(lambda request: chat(request, "gpt-4-0999")) as server:
            self.branch(git, path, server.url, "two", "Rome", "Oslo")
        before = path.read_bytes()
        merged = git("merge", "one", "-m", "merge")
        assert merged.returncode == 1
        assert "cassettes/a.sqlite: both have recorded POST" in merged.stdout + merged.stderr
        assert "git checkout --ours cassettes/a.sqlite" in merged.stdout + merged.stderr
        assert path.read_bytes() == before

    def test_merge_takes_the_side_that_changed_or_deleted_a_call(self, tmp_path: Path) -> None:
        """A call re-recorded on one side wins and a pruned one goes, whichever side is ours."""
        base = tmp_path / "a.sqlite"
        with serving(chat) as server:
            record(base, server.url, "Paris", "Rome")
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            shutil.copy(base, tmp_path / name / "a.sqlite")
        one, two = tmp_path / "one" / "a.sqlite", tmp_path / "two" / "a.sqlite"
        with serving(lambda request: chat(request, "gpt-4-0999")) as server:
            record(one, server.url, "Paris")  # another answer, and Rome is gone
            self.add(two, server.url, "Paris", "Rome", "Oslo")
        run("merge", base, two, shutil.copy(one, tmp_path / "theirs.sqlite"))
        models = [
            (json.loads(each["body"])["messages"][-1]["content"], each["model"])
            for each in found("show", two)
        ]
        assert sorted(models) == [("Oslo", "gpt-4-0999"), ("Paris", "gpt-4-0999")]

    def test_merge_refuses_a_cassette_with_another_salt(
        self, cassette: Path, tmp_path: Path
    ) -> None:
        """A cassette with another salt is refused: exit code 2, nothing is written."""
        with serving(chat) as server:
            other = record(tmp_path / "other.sqlite", server.url, "Rome")
        before = cassette.read_bytes()
        assert "under another name" in run("merge", cassette, cassette, other, code=2).stderr
        assert cassette.read_bytes() == before


class TestMove:
    """A renamed test's miss names the cassette that it had, and `mv` gives it the new name."""

    BODY = """
import httpx, pytest
@pytest.mark.ember_replay
{mark}
def test_{name}({argument}):
    with httpx.Client(verify=False) as client:
        client.post({url!r}, json={{"q": "a"}})
@pytest.mark.ember_replay
def test_stays():
    with httpx.Client(verify=False) as client:
        client.post({url!r}, json={{"q": {other!r}}})
"""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ({"name": "old"}, {"name": "new"}),
            (
                {"mark": "@pytest.mark.parametrize('x', ['GPT-4'])", "argument": "x"},
                {"mark": "@pytest.mark.parametrize('x', ['gpt 5'])", "argument": "x"},
            ),
        ],
    )
    def test_miss_of_a_renamed_test_prints_the_command_that_moves_its_cassette(
        self,
        run: Callable[..., pytest.RunResult],
        pytester: pytest.Pytester,
        before: dict[str, str],
        after: dict[str, str],
    ) -> None:
        """After a new name or parameter id, the printed command makes the test pass."""
        plain = {"mark": "", "argument": "", "name": "it", "other": "b"}
        with serving() as server:
            plain["url"] = server.url
            run(self.BODY.format(**plain | before), "--ember-record").assert_outcomes(passed=2)
            received = len(server.received)
            result = run(self.BODY.format(**plain | after))
            result.assert_outcomes(passed=1, failed=1)
            [line] = [line for line in result.outlines if "ember-cassettes mv" in line]
            assert "whose test is gone" in line
            command = shlex.split(line[line.index("ember-cassettes mv") :])
            CliRunner().invoke(main, command[1:], catch_exceptions=False)
            run().assert_outcomes(passed=2)
            assert len(server.received) == received
        again = CliRunner().invoke(main, command[1:])
        assert again.exit_code == 2
        assert "no such cassette" in again.output

    def test_a_miss_in_a_cassette_names_the_orphan_that_holds_the_request(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        """The command also works for a test with a cassette that took over another test's call."""
        plain = {"mark": "", "argument": "", "other": "b"}
        with serving() as server:
            plain["url"] = server.url
            run(self.BODY.format(**plain, name="old"), "--ember-record").assert_outcomes(passed=2)
            result = run(self.BODY.format(**plain | {"other": "a"}, name="gone"), "-k", "stays")
            result.assert_outcomes(failed=1, deselected=1)
            text = "whose test is gone; if it was renamed to this one, to take that in the place"
            assert text in str(result.stdout)
            [line] = [line for line in result.outlines if "ember-cassettes mv" in line]
            command = shlex.split(line[line.index("ember-cassettes mv") :])[1:]
            assert command[1] == "--replace"
            without = CliRunner().invoke(main, [command[0], *command[2:]])
            assert "is there already" in without.output
            assert CliRunner().invoke(main, command).exit_code == 0
            run(None, "-k", "stays").assert_outcomes(passed=1, deselected=1)
            assert len(server.received) == 2

    def test_miss_does_not_offer_the_cassette_of_an_existing_test(
        self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        """A new test with the same request as another is not pointed to the other's cassette."""
        with serving() as server:
            plain = {"mark": "", "argument": "", "name": "old", "other": "b", "url": server.url}
            run(self.BODY.format(**plain), "--ember-record").assert_outcomes(passed=2)
            second = "\n@pytest.mark.ember_replay\ndef test_new(): test_old()\n"
            for arguments in ((), ("-k", "new")):
                result = run(self.BODY.format(**plain) + second, *arguments)
                assert "there is no cassette" in result.stdout.str()
                assert "ember-cassettes mv" not in result.stdout.str()

    def test_mv_refuses_a_folder_that_is_being_written(
        self, cassette: Path, tmp_path: Path
    ) -> None:
        """A folder with the partial file of a running or killed recording is not moved."""
        part = cassette.with_name("b.sqlite.1-ab.part")
        part.touch()
        folder = tmp_path / "moved"
        assert "is being written" in run("mv", cassette.parent, folder, code=2).stderr
        assert cassette.exists()
        part.unlink()
        run("mv", cassette.parent, folder)
        assert (folder / cassette.name).exists()

    def test_mv_moves_a_folder_whole_or_not_at_all(self, cassette: Path, tmp_path: Path) -> None:
        """All files of a renamed module move; if one name is taken, nothing moves."""
        old, new = tmp_path / "test_old", tmp_path / "test_new"
        old.mkdir()
        for name in ("a", "b"):
            shutil.copy(cassette, old / f"{name}.sqlite")
        new.mkdir()
        (new / "b.sqlite").touch()
        assert "is there already" in run("mv", old, new, code=2).stderr
        assert len(list(old.iterdir())) == 2
        (new / "b.sqlite").unlink()
        assert len(found("mv", old, new)) == 2
        assert not old.exists()
        run("show", new / "a.sqlite")

    def test_mv_accepts_node_ids(self, cassette: Path, tmp_path: Path) -> None:
        """`mv` with two node ids moves the file to where the plugin looks for the second."""
        where = tmp_path / "tests" / "test_a"
        where.mkdir(parents=True)
        shutil.copy(cassette, where / "test_x.sqlite")
        run("mv", "tests/test_a.py::test_x", "tests/test_b.py::T::test_y[1]", "--dir", tmp_path)
        assert (tmp_path / "tests" / "test_b" / "T.test_y[1].sqlite").exists()
        assert not where.exists()


class TestSince:
    """`diff --since REV` compares with where the branch began, as text, JSON and Markdown."""

    @pytest.fixture
    def folder(
        self, git: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """Create a branch with a changed, a removed and a new cassette, and a later main."""
        folder = tmp_path / "cassettes"
        monkeypatch.chdir(tmp_path)
        with serving(chat) as server:
            record(folder / "a.sqlite", server.url, "Paris", "Rome")
            record(folder / "gone.sqlite", server.url, "Bonn")
            record(folder / "same.sqlite", server.url, "Bern")
            git("add", ".")
            git("commit", "-q", "-m", "before")
            git("checkout", "-q", "-b", "branch")
            record(folder / "a.sqlite", server.url, "Paris", "Oslo | ```` <b>")
            (folder / "gone.sqlite").unlink()
            git("add", ".")
            git("commit", "-q", "-m", "branch")
            git("checkout", "-q", "main")
            record(folder / "same.sqlite", server.url, "Bern", "Kiel")
            git("commit", "-q", "-a", "-m", "main goes on")
            git("checkout", "-q", "branch")
            record(folder / "new.sqlite", server.url, "Lima")  # not even added
        return folder

    def test_diff_since_finds_committed_deleted_and_untracked_files(self, folder: Path) -> None:
        """Committed, deleted and untracked files are found, but not main's later changes."""
        each = {Path(one["path"]).name: one for one in found("diff", "--since", "main", code=1)}
        kinds = {name: [d["kind"] for d in one["differences"]] for name, one in each.items()}
        assert kinds == {
            "a.sqlite": ["changed"],
            "gone.sqlite": ["removed"],
            "new.sqlite": ["added"],
        }
        assert each["new.sqlite"]["cost"] > 0
        assert each["gone.sqlite"]["cost"] == 0
        assert "Lima" not in run("diff", "--since", "main", folder / "a.sqlite", code=1).stdout
        assert run("diff", "--since", "main", folder / "same.sqlite").stdout == "the same\n"

    def test_markdown_shows_any_text_unchanged(self, folder: Path) -> None:
        """Each cassette is a row of five cells; the fence is longer than any in the texts."""
        text = run("diff", "--since", "main", "--markdown", code=1).stdout
        rows = [line for line in text.splitlines() if line.startswith("| <code>")]
        assert [row.split("|")[1:5] for row in rows] == [
            [
                f" <code>cassettes/{name}.sqlite</code> ",
                f" {added} ",
                f" {changed} ",
                f" {removed} ",
            ]
            for name, added, changed, removed in (
                ("a", 0, 1, 0),
                ("gone", 0, 0, 1),
                ("new", 1, 0, 0),
            )
        ]
        assert "\n`````text\n" in text
        assert text.count("<details>") == text.count("</details>") == 3

    def test_diff_shows_a_renamed_cassette_as_deleted_and_added(
        self, folder: Path, git: Any
    ) -> None:
        """This holds although git detects a rename; any name is shown unchanged."""
        name = "b<i>|x.sqlite"
        (folder / "same.sqlite").rename(folder / name)
        git("add", ".")
        git("commit", "-q", "-m", "renamed")
        each = {Path(one["path"]).name: one for one in found("diff", "--since", "main", code=1)}
        assert [one["kind"] for one in each["same.sqlite"]["differences"]] == ["removed"]
        assert [one["kind"] for one in each[name]["differences"]] == ["added"]
        text = run("diff", "--since", "main", "--markdown", code=1).stdout
        assert "| <code>cassettes/b&lt;i&gt;&#124;x.sqlite</code> | 1 | 0 | 0 |" in text

    def test_markdown_is_never_too_long_for_a_comment(self, folder: Path) -> None:
        """GitHub refuses more than 65,536 characters: the last cassettes are only counted."""
        for number in range(400):
            (folder / f"{'long' * 20}{number}.sqlite").write_bytes(b"no cassette")
        text = run("diff", "--since", "main", "--markdown", code=1).stdout
        assert 50_000 < len(text) < 65_536
        assert "more cassette" in text
        assert text.count("<details>") == text.count("</details>")

    def test_diff_refuses_unknown_revisions_and_wrong_options(self, folder: Path) -> None:
        """An unknown revision, Markdown for two files, and a single file are refused."""
        assert "git rev-parse" in run("diff", "--since", "nowhere", code=2).stderr
        assert "git rev-parse" in run("diff", "--since", "--output=x", code=2).stderr
        a = folder / "a.sqlite"
        assert "--since REV" in run("diff", a, a, "--markdown", code=2).stderr
        assert "name two files" in run("diff", a, code=2).stderr
        assert (
            "No recorded call differs"
            in run("diff", "--since", "HEAD", "--markdown", folder / "a.sqlite").stdout
        )
