"""Damaged, edited and hostile cassettes: an error that names the file, never a wrong answer."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import ember_testing
from ember_testing import CassetteError, CassetteMiss
from ember_testing.cassettes.rows import COLUMNS
from ember_testing.cassettes.schema import PAGE_SIZE
from ember_testing.cli.check import check_file
from tests.edited import edit
from tests.loopback import Reply, serving

ROUNDS = int(os.environ.get("EMBER_FUZZ_ROUNDS", "40"))
"""For a long run: EMBER_FUZZ_ROUNDS=1000."""
GONE = "http://127.0.0.1:1"
CALLS = 6
CHAT = (
    b'{"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini", "choices": '
    b'[{"index": 0, "message": {"role": "assistant", "content": "The capital is Paris, a city '
    b'on the Seine with two million people."}, "finish_reason": "stop"}], "usage": '
    b'{"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}}'
)


def ask(sender: httpx.Client, url: str, number: int) -> bytes:
    """Make one call to a model; even-numbered answers come in pieces."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"q{number}"}]}
    return sender.post(f"{url}/v1/chat/completions?n={number}", json=body).content


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A cassette, and the answers in it."""
    path = tmp_path_factory.mktemp("damage") / "c.sqlite"

    def answer(request: object) -> Reply:
        if getattr(request, "path", "").endswith(("0", "2", "4")):
            return Reply(pieces=[CHAT[:70], CHAT[70:200], CHAT[200:]], pause=0.002)
        return Reply(CHAT)

    with (
        serving(answer) as server,
        ember_testing.cassette(path, record="new"),
        httpx.Client(verify=False) as sender,
    ):
        answers = [ask(sender, server.url, number) for number in range(CALLS)]
    return path, answers


@pytest.fixture
def recorded(recording: tuple[Path, list[bytes]], tmp_path: Path) -> Path:
    """A copy of that cassette, for the test to damage."""
    return Path(shutil.copy(recording[0], tmp_path))


def replayed(path: Path, answers: list[bytes]) -> Counter[str]:
    """Replay each call and return its result: right, error or miss; never a wrong answer."""
    outcomes: Counter[str] = Counter()
    for number in range(CALLS):
        try:
            with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
                got = ask(sender, GONE, number)
        except CassetteError as error:
            outcomes["error" if path.name in str(error) else "error without a name"] += 1
        except CassetteMiss:
            outcomes["miss"] += 1
        else:
            assert got == answers[number], "another answer than the recorded one"
            outcomes["right"] += 1
    return outcomes


def flip(content: bytearray, chance: random.Random) -> None:
    """Flip one bit."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def overwrite(content: bytearray, chance: random.Random) -> None:
    """Overwrite consecutive bytes."""
    start, size = chance.randrange(len(content)), chance.randrange(1, 600)
    content[start : start + size] = chance.randbytes(len(content[start : start + size]))


def cut_off(content: bytearray, chance: random.Random) -> None:
    """Truncate the end."""
    del content[chance.randrange(len(content)) :]


def swap_pages(content: bytearray, chance: random.Random) -> None:
    """Swap two pages."""
    a, b = (chance.randrange(len(content) // PAGE_SIZE) * PAGE_SIZE for _ in range(2))
    pages = content[a : a + PAGE_SIZE], content[b : b + PAGE_SIZE]
    content[b : b + PAGE_SIZE], content[a : a + PAGE_SIZE] = pages


def test_damaged_file_gives_the_right_answer_or_an_error(
    recording: tuple[Path, list[bytes]], tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """Flipped bits, overwritten bytes, truncation, swapped pages: the right answer or an error."""
    source, answers = recording
    whole = source.read_bytes()
    chance = random.Random(20261127)
    outcomes: Counter[str] = Counter()
    unseen = 0
    path = tmp_path / "damaged.sqlite"
    for number in range(ROUNDS):
        content = bytearray(whole)
        (flip, overwrite, cut_off, swap_pages)[number % 4](content, chance)
        path.write_bytes(content)
        found = replayed(path, answers)
        outcomes += found
        if found["error"] or found["miss"]:
            unseen += not check_file(path, {})
    figures(f"{ROUNDS} damaged cassettes of {CALLS} calls, by call: {dict(outcomes)}")
    assert outcomes["error"] > outcomes["miss"]
    assert not outcomes["miss"], "what is lost by damage is an error, not a missing recording"
    assert not unseen, "check finds what stops a replay"


HOSTILE: list[object] = [
    None, "", "x", "not json", "[", "[[1]]", "[[\"a\"]]", "{}", "null", "[" * 5000, "http://[::1",
    "http://a:99999999/", b"", b"\xff\xfe", b"\x00" * 100, 0, -1, 10**12, 2**63 - 1, 1.5, -1e308,
    float("inf"), "\0", "9999-99-99", "é" * 300, "'; drop table calls; --",
]  # fmt: skip
PER_COLUMN = int(os.environ.get("EMBER_HOSTILE_VALUES", "2"))
"""For a long run: EMBER_HOSTILE_VALUES=26."""


def test_invalid_values_in_any_column_are_found(
    recording: tuple[Path, list[bytes]], tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """Whether or not the digest matches, the row is refused or answers with its content."""
    source, answers = recording
    chance = random.Random(7)
    outcomes: Counter[str] = Counter()
    for column in COLUMNS:
        for value in chance.sample(HOSTILE, PER_COLUMN):
            for sealed in (False, True):
                path = Path(shutil.copy(source, tmp_path / "hostile.sqlite"))
                try:
                    with closing(sqlite3.connect(path)) as connection:
                        statement = f"update calls set {column} = ? where id = 2"
                        connection.execute(statement, [value])
                        connection.commit()
                    if sealed:
                        edit(path, "update calls set test = test")
                except sqlite3.IntegrityError:  # a forbidden null, or a duplicate key
                    outcomes["refused by SQLite"] += 1
                    continue
                findings = check_file(path, {})
                try:
                    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
                        got = ask(sender, GONE, 1)
                except CassetteError:
                    assert findings, (column, value)
                    outcomes["error"] += 1
                except (CassetteMiss, httpx.HTTPError):
                    assert sealed, (column, value)
                    outcomes["as sealed"] += 1
                else:
                    same = got == answers[1]
                    assert same or sealed, (column, value)
                    outcomes["right" if same else "as sealed"] += 1
                for command in ("list", "show", "stats", "export", "html"):
                    run(command, path, tmp_path)
    figures(f"hostile values in {len(COLUMNS)} columns: {dict(outcomes)}")
    assert outcomes["error"] > 40


def run(command: str, path: Path, folder: Path) -> None:
    """Run an `ember-cassettes` command, which may refuse the file but must not crash."""
    from click.testing import CliRunner

    from ember_testing.cli import main

    target = ["-o", str(folder / "report.html")] if command == "html" else []
    result = CliRunner().invoke(main, [command, str(path), *target])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


@pytest.mark.parametrize(
    "statement",
    [
        "update prices set rates = 'x'",
        'update prices set rates = \'{"input": "x"}\'',
        "update prices set since = 'x'",
        "update prices set provider = x'ff'",
        "update prices set rates = rates || ' '",
        "update cassette set value = x'ff' where name = 'salt'",
        "update cassette set value = 'other' where name = 'salt'",
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_changes_to_other_tables_are_found(recorded: Path, statement: str, sealed: bool) -> None:
    """Changes to `prices` and `cassette` are an error in a replay and a finding of `check`."""
    if sealed:
        edit(recorded, statement)
    else:
        with closing(sqlite3.connect(recorded)) as connection:
            connection.execute(statement)
            connection.commit()
    if sealed and statement.endswith("|| ' '"):
        return  # the same prices
    with (
        pytest.raises((CassetteError, CassetteMiss)),
        ember_testing.cassette(recorded),
        httpx.Client(verify=False) as sender,
    ):
        ask(sender, GONE, 1)
    assert check_file(recorded, {})


@pytest.mark.parametrize(
    "statement",
    [
        "delete from prices",
        "insert into prices select * from prices",
        "update cassette set value = '' where name = 'prices'",
    ],
)
def test_a_lost_price_is_damage(recorded: Path, statement: str) -> None:
    """Without its price a call would replay at another one."""
    with closing(sqlite3.connect(recorded)) as connection:
        assert connection.execute("select 1 from prices").fetchall()
        connection.execute(statement)
        connection.commit()
    with (
        pytest.raises(CassetteError, match=r"table (prices|cassette)"),
        ember_testing.cassette(recorded),
    ):
        pass
    (finding,) = check_file(recorded, {})
    assert finding.kind == "integrity"


@pytest.mark.parametrize(
    "statement",
    [
        "update cassette set value = 'other' where name = 'salt'",
        "update cassette set value = '' where name = 'created_at'",
        "delete from cassette where name = 'id'",
        "delete from cassette where name = 'digest'",
        "delete from cassette",
        "insert into cassette values ('match_on', '[]')",
    ],
)
def test_a_changed_row_about_the_cassette_is_damage(recorded: Path, statement: str) -> None:
    """With another salt no request would be found, which must not look like a missing recording."""
    with closing(sqlite3.connect(recorded)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(CassetteError, match="the table cassette"), ember_testing.cassette(recorded):
        pass
    (finding,) = check_file(recorded, {})
    assert finding.kind == "integrity"


IN_A_TABLES_PLACE = {
    "an endless view": "create view calls as with recursive e(id) as (select 1 union all select "
    "id + 1 from e) select * from e",
    "a virtual table": "create virtual table calls using fts5(id, key, n)",
    "another table": "create table calls (id integer primary key, key text, n integer)",
}


@pytest.mark.parametrize("kind", [*IN_A_TABLES_PLACE, "a trigger"])
def test_view_in_a_tables_place_is_named_and_not_executed(recorded: Path, kind: str) -> None:
    """A view or table in a table's place, or a trigger, is named in the error and not executed."""
    with closing(sqlite3.connect(recorded)) as connection:
        if kind == "a trigger":
            connection.execute(
                "create trigger t after insert on calls begin delete from calls; end"
            )
        else:
            connection.execute("drop view transcript")
            connection.execute("drop view chunks")
            connection.execute("drop table calls")
            connection.execute(IN_A_TABLES_PLACE[kind])
        connection.commit()
    words = "a trigger, t" if kind == "a trigger" else "calls is missing, or not as it was made"
    with pytest.raises(CassetteError, match=words), ember_testing.cassette(recorded):
        pass
    (finding,) = check_file(recorded, {})
    assert words in finding.what


def test_fifo_or_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    """A FIFO, a Git LFS pointer, a file in write-ahead mode: the error names it and a remedy."""
    pointer = tmp_path / "pointer.sqlite"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9216\n")
    with pytest.raises(CassetteError, match="git lfs pull"), ember_testing.cassette(pointer):
        pass
    logged = tmp_path / "logged.sqlite"
    with closing(sqlite3.connect(logged)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (x)")
    with pytest.raises(CassetteError, match="= delete"), ember_testing.cassette(logged):
        pass
    if hasattr(os, "mkfifo"):
        fifo = tmp_path / "fifo.sqlite"
        os.mkfifo(fifo)
        script = "import sys, ember_testing\nwith ember_testing.cassette(sys.argv[1]): pass"
        result = subprocess.run(
            [sys.executable, "-c", script, str(fifo)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "is no regular file" in result.stderr


def test_stream_without_one_of_its_pieces_is_an_error(
    recorded: Path, recording: tuple[Path, list[bytes]]
) -> None:
    """A stream that lost a piece is not replayed as a shorter one."""
    edit(recorded, "update calls set layout = json_remove(layout, '$[3]', '$[2]')")
    outcomes = replayed(recorded, recording[1])
    assert outcomes == {"error": 3, "right": 3}  # every second answer came in pieces


def test_calls_that_only_the_index_still_has_are_an_error(recorded: Path, tmp_path: Path) -> None:
    """Lost rows are damage to a replay and to each command, not a cassette without recordings."""
    with closing(sqlite3.connect(recorded)) as connection:
        (root,) = connection.execute(
            "select rootpage from sqlite_master where name = 'calls'"
        ).fetchone()
    content = bytearray(recorded.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    empty_leaf = b"\x0d\0\0\0\0" + size.to_bytes(2, "big")
    content[(root - 1) * size : root * size] = empty_leaf.ljust(size, b"\0")
    recorded.write_bytes(content)
    assert replayed(recorded, []) == {"error": CALLS}
    for command in ("list", "show", "stats", "export", "html"):
        run(command, recorded, tmp_path)
    assert check_file(recorded, {})
