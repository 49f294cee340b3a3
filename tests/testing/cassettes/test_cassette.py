"""A cassette file on disk: its schema, damage to it, several writers at once."""

# ruff: noqa: PT031 - the whole `with` block must fail, including its end
from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing import CassetteError
from tests.loopback import Loopback, Reply, serving


def ask(server: Loopback | str, text: str) -> str:
    """Make one call; the server echoes the question."""
    url = server if isinstance(server, str) else server.url
    with httpx.Client(verify=False) as client:  # no trust store: a client costs 1 ms, not 20
        answer: str = client.post(f"{url}/v1", json={"q": text}).json()["echo"]["q"]
    return answer


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cassette of twenty calls, made once."""
    path = tmp_path_factory.mktemp("recording") / "c.sqlite"
    with serving() as server, ember_testing.cassette(path, record="new"):
        for i in range(20):
            ask(server, f"question {i}")
    return path


@pytest.fixture
def recorded(recording: Path, tmp_path: Path) -> Path:
    """A copy of that cassette, for the test to change."""
    return Path(shutil.copy(recording, tmp_path))


def files(folder: Path) -> list[str]:
    """The names of all files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows that any SQLite client reads from the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_file_has_an_application_id_a_version_and_readable_tables(recorded: Path) -> None:
    """Application id, schema version, page size, column types, text bodies and the views."""
    assert rows(recorded, "pragma application_id") == [(0x454D4252,)]
    assert rows(recorded, "pragma user_version") == [(4,)]
    assert rows(recorded, "pragma page_size") == [(512,)]
    assert rows(recorded, "pragma journal_mode") == [("delete",)]
    assert rows(recorded, "pragma integrity_check") == [("ok",)]
    assert rows(recorded, "pragma foreign_key_check") == []
    assert rows(
        recorded,
        "select n, method, status, outcome, request_body, response_body from calls where id = 3",
    ) == [(1, "POST", 200, "complete", '{"q":"question 2"}', '{"echo": {"q":"question 2"}}')]
    assert rows(recorded, 'select typeof(data), typeof("offset") from chunks limit 1') == [
        ("blob", "real")
    ]
    assert rows(recorded, "select answer, status, outcome from transcript where id = 1") == [
        ('{"echo": {"q":"question 0"}}', 200, "complete")
    ]
    assert files(recorded.parent) == ["c.sqlite"]


def test_replaying_writes_nothing(recorded: Path) -> None:
    """A replay leaves the file's bytes and mtime unchanged, and no other file behind."""
    before = recorded.read_bytes(), recorded.stat().st_mtime_ns
    with ember_testing.cassette(recorded):
        assert ask("http://127.0.0.1:1", "question 7") == "question 7"
    assert (recorded.read_bytes(), recorded.stat().st_mtime_ns) == before
    assert files(recorded.parent) == ["c.sqlite"]


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _scramble(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:2048] + b"\xff" * (len(content) - 2048))


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table bookmarks (url text)")
        connection.commit()


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 99")


def _older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 1")


DAMAGE = {
    "truncated": (_truncate, "is damaged or no cassette"),
    "scrambled": (_scramble, "is damaged or no cassette"),
    "text": (lambda path: path.write_text("interactions: []\n" * 99), "is damaged or no cassette"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "foreign": (_foreign, "another program"),
    "newer": (_newer, "schema 99"),
    "older": (_older, "schema 1, which no release wrote"),
}


@pytest.mark.parametrize(
    ("kind", "record"),
    # An empty file holds nothing: "all" replaces it, as the error says; see the next test.
    [
        (kind, mode)
        for kind in DAMAGE
        for mode in (None, "new", "all")
        if (kind, mode) != ("empty", "all")
    ],
)
def test_unusable_file_is_an_error_and_never_overwritten(
    recorded: Path, kind: str, record: str | None
) -> None:
    """The error names each kind of bad file and a remedy; nothing is sent or overwritten."""
    spoil, words = DAMAGE[kind]
    spoil(recorded)
    before = recorded.read_bytes()
    with (
        serving() as server,
        pytest.raises(CassetteError, match=words) as failure,
        ember_testing.cassette(recorded, record=record),  # type: ignore[arg-type]  # parametrized
    ):
        for i in range(20):
            ask(server, f"question {i}")
    assert str(recorded) in str(failure.value)
    assert not server.received
    assert recorded.read_bytes() == before
    assert files(recorded.parent) == ["c.sqlite"]


def test_recording_anew_replaces_an_empty_file(tmp_path: Path) -> None:
    """The remedy that the error for an empty file suggests works."""
    path = tmp_path / "c.sqlite"
    path.touch()
    with serving() as server, ember_testing.cassette(path, record="all"):
        ask(server, "a")
    assert rows(path, "select count(*) from calls") == [(1,)]


def test_a_missing_cassette_is_an_error_at_the_first_request_only(tmp_path: Path) -> None:
    """Replaying creates no file, and the miss says that the file is missing."""
    path = tmp_path / "missing" / "c.sqlite"
    with ember_testing.cassette(path):
        pass
    with (
        pytest.raises(ember_testing.CassetteMiss, match="there is no cassette"),
        ember_testing.cassette(path),
    ):
        ask("http://127.0.0.1:1", "a")
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_created_is_reported_before_the_call(tmp_path: Path) -> None:
    """If the answer could not be kept, nothing is sent, so nothing is paid for."""
    (tmp_path / "file").touch()
    with (
        serving() as server,
        pytest.raises(CassetteError, match="cannot create the cassette"),
        ember_testing.cassette(tmp_path / "file" / "c.sqlite", record="new"),
    ):
        ask(server, "a")
    assert not server.received


def test_answer_with_a_lone_surrogate_is_recorded(tmp_path: Path) -> None:
    """A lone surrogate, valid in JSON but not in SQLite, is recorded and replayed."""
    message = {"role": "assistant", "content": "half \ud83d"}
    body = json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})
    path = tmp_path / "c.sqlite"
    with serving(lambda request: Reply(body.encode())) as server, httpx.Client() as client:
        for record in ("new", None):
            with ember_testing.cassette(path, record=record) as cassette:
                response = client.post(f"{server.url}/v1/chat/completions", json={"model": "m"})
            assert response.text == body
    assert cassette.played[0].text == "half \ufffd"


def test_mode_new_adds_calls_and_keeps_the_others(recorded: Path) -> None:
    """`new` replays recorded calls, records the others once, and keeps both."""
    with serving() as server, ember_testing.cassette(recorded, record="new") as cassette:
        assert ask(server, "question 3") == "question 3"
        assert ask(server, "another") == "another"
    assert len(server.received) == 1
    assert [call.n for call in cassette.played] == [1]
    assert [call.json() for call in cassette.recorded] == [{"q": "another"}]
    assert rows(recorded, "select count(*) from calls") == [(21,)]


def test_mode_all_replaces_the_file_only_at_the_end(recorded: Path) -> None:
    """`all` sends everything; the old file stays until the block ends without an error."""
    before = recorded.read_bytes()
    with serving() as server, ember_testing.cassette(recorded, record="all"):
        ask(server, "question 3")
        assert recorded.read_bytes() == before
    assert rows(recorded, "select request_body from calls") == [('{"q":"question 3"}',)]
    assert files(recorded.parent) == ["c.sqlite"]

    before = recorded.read_bytes()
    with (
        serving() as server,
        pytest.raises(RuntimeError, match="the program's own"),
        pytest.warns(ember_testing.RecordingWarning, match="1 new recording dropped"),
        ember_testing.cassette(recorded, record="all"),
    ):
        ask(server, "question 4")
        raise RuntimeError("the program's own")
    assert recorded.read_bytes() == before
    assert files(recorded.parent) == ["c.sqlite"]


def test_exception_in_a_program_keeps_finished_calls(tmp_path: Path) -> None:
    """Without pytest `new` keeps every finished call although the block ends in an error."""
    path = tmp_path / "c.sqlite"
    with (
        serving() as server,
        pytest.raises(ZeroDivisionError),
        ember_testing.cassette(path, record="new"),
    ):
        ask(server, "a")
        _ = 1 // 0
    assert rows(path, "select count(*) from calls") == [(1,)]


def test_calls_go_into_a_file_that_was_replaced_meanwhile(recorded: Path) -> None:
    """Calls recorded after the file was replaced go into the new file."""
    with serving() as server, ember_testing.cassette(recorded, record="new") as outer:
        assert ask(server, "question 1") == "question 1"
        with ember_testing.cassette(recorded, record="all"):
            ask(server, "swapped in")
        ask(server, "afterwards")
        assert len(outer.recorded) == 1
    assert rows(recorded, "select request_body from calls order by id") == [
        ('{"q":"swapped in"}',),
        ('{"q":"afterwards"}',),
    ]
    assert files(recorded.parent) == ["c.sqlite"]


WRITER = """
import sys, httpx, ember_testing
path, url, name, count, same = sys.argv[1:]
with ember_testing.cassette(path, record="new") as cassette:
    for i in range(int(count)):
        text = str(i) if same == "same" else f"{name}-{i}"
        httpx.post(url + "/v1", json={"q": text})
    assert len(cassette.recorded) == int(count), cassette
"""


@pytest.mark.parametrize("questions", ["own", "same"])
def test_four_processes_record_into_one_cassette(tmp_path: Path, questions: str) -> None:
    """All 40 calls are kept, even if the processes ask the same and start without a file."""
    path = tmp_path / "shared.sqlite"
    with serving() as server:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), server.url, str(i), "10", questions]
            )
            for i in range(4)
        ]
        codes = [writer.wait(60) for writer in writers]
    # A process that starts after another has ended replays its recordings.
    if questions == "own":
        assert codes == [0, 0, 0, 0]
        assert rows(path, "select count(*), count(distinct request_body) from calls") == [(40, 40)]
    else:
        recorded = rows(path, "select count(*) from calls")[0][0]
        assert recorded == len(server.received)
    assert rows(path, "pragma integrity_check") == [("ok",)]
    assert files(tmp_path) == ["shared.sqlite"]


def test_a_copied_cassette_replays(recorded: Path, tmp_path: Path) -> None:
    """A cassette is a single file that can be copied and moved."""
    copy = tmp_path / "elsewhere.sqlite"
    shutil.copy(recorded, copy)
    recorded.unlink()
    with ember_testing.cassette(copy):
        assert ask("http://127.0.0.1:1", "question 19") == "question 19"


def test_a_miss_names_the_cassette_of_a_renamed_test(tmp_path: Path) -> None:
    """It names a file in the same folder with the request, and the command; skips damaged ones."""
    before, now = tmp_path / "test_before.sqlite", tmp_path / "test_now.sqlite"
    (tmp_path / "test_a.sqlite").write_bytes(b"damaged")
    with serving() as server, httpx.Client() as client:
        with ember_testing.cassette(tmp_path / "test_aa.sqlite", record="new"):
            client.post(server.url, json={"q": "Rome"})
        with ember_testing.cassette(before, record="new"):
            client.post(server.url, json={"q": "Paris"})
        for question, is_named in (("Paris", True), ("Oslo", False)):
            with (
                pytest.raises(ember_testing.CassetteMiss, match="there is no cassette") as missed,
                ember_testing.cassette(now),
            ):
                client.post(server.url, json={"q": question})
            assert (f"git mv {before} {now}" in str(missed.value)) == is_named
            assert "test_aa" not in str(missed.value)
