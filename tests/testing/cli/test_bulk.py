"""Commands on many files and on large ones: a progress bar on a terminal, time that is linear."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import leftovers_in
from ember_testing.cassettes.rows import COLUMNS
from ember_testing.cli import main
from ember_testing.cli.check import check_file
from ember_testing.cli.diff import compare
from tests.edited import edit
from tests.testing.cli.command import found

CALLS = 1000


@pytest.fixture(scope="module")
def large(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cassette in which one of two requests is repeated up to a thousand calls."""
    path = Path(shutil.copy(recording, tmp_path_factory.mktemp("large") / "large.sqlite"))
    columns = ", ".join("i" if name == "n" else name for name in COLUMNS)
    edit(
        path,
        "with recursive numbers(i) as "
        "(select 2 union all select i + 1 from numbers where i + 1 < ?) "
        f"insert into calls (digest, {', '.join(COLUMNS)}) "
        f"select digest, {columns} from calls, numbers where id = 1",
        CALLS,
    )
    return path


def on_terminal(*arguments: str | Path) -> str:
    """Run the command in this process and return what it wrote to stderr, a terminal."""
    ours, theirs = os.openpty()
    written: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while block := os.read(ours, 4096):
                written.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with (
        os.fdopen(theirs, "w") as terminal,
        redirect_stderr(terminal),
        redirect_stdout(io.StringIO()),
        suppress(SystemExit),
    ):
        main([*map(str, arguments)], standalone_mode=False)
    reader.join(10)
    os.close(ours)
    return b"".join(written).decode()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a system without pseudo-terminals")
def test_long_work_on_one_cassette_shows_its_progress(large: Path, tmp_path: Path) -> None:
    """A bar counts the calls of a large cassette; of a small one nothing is shown."""
    assert "checking  [####" in on_terminal("check", large)
    written = on_terminal("diff", large, large)
    assert "reading  [####" in written
    assert "comparing  [####" in written
    assert "reading" in on_terminal("html", large, "-o", tmp_path / "report.html")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a system without pseudo-terminals")
def test_many_cassettes_share_one_progress_bar(
    large: Path, recording: Path, tmp_path: Path
) -> None:
    """Of 20 cassettes the files are counted, and not also the calls of a large one."""
    for number in range(19):
        shutil.copy(recording, tmp_path / f"{number}.sqlite")
    assert on_terminal("list", tmp_path) == ""
    shutil.copy(large, tmp_path)
    assert on_terminal("list", tmp_path).count(" 100%") == 1


def test_no_progress_is_shown_in_a_pipe(large: Path) -> None:
    """A script that reads stderr finds nothing there."""
    command = [sys.executable, "-m", "ember_testing.cli", "stats", str(large)]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


def test_a_folder_is_listed_once_for_all_its_files(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leftovers beside 50 files named one by one, as pre-commit does, take one listing."""
    files = [Path(shutil.copy(recording, tmp_path / f"{number}.sqlite")) for number in range(50)]
    (tmp_path / "7.sqlite.12-ab.part").touch()
    (tmp_path / "other.sqlite-journal").touch()
    listings: list[Path] = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, *a: listings.append(self) or glob(self, *a))
    assert leftovers_in(files) == [tmp_path / "7.sqlite.12-ab.part"]
    assert listings == [tmp_path]
    assert list(found("check", *files[:8], code=1)) == [str(tmp_path / "7.sqlite.12-ab.part")]


def test_a_secret_in_the_rest_of_a_large_file_is_found(recording: Path, tmp_path: Path) -> None:
    """The file is searched in blocks, also over the end of a block."""
    path = Path(shutil.copy(recording, tmp_path))
    key = "sk-0123456789-of-a-deleted-row"
    path.write_bytes(path.read_bytes().ljust(2**20 - 9, b"\0") + key.encode() + bytes(2**20))
    (finding,) = check_file(path, {"SOME_API_KEY": key})
    assert (finding.kind, finding.where) == ("secret", "file")


def test_a_comparison_holds_no_bodies(large: Path) -> None:
    """The calls of two cassettes are read as they are compared: 1,000 take less than 1 MB."""
    with CassetteFile(large) as old, CassetteFile(large) as new:
        tracemalloc.start()
        assert compare(calls_of(old), calls_of(new)) == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1e6
