"""The help of pytest, Python and the command explains everything, with examples."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Callable
from dataclasses import fields

import pytest
from click.testing import CliRunner

import ember_testing
from ember.api import models
from ember_testing.cli import main
from ember_testing.replay.settings import Settings

Run = Callable[..., pytest.RunResult]


def help_of(thing: object) -> str:
    """Return the output of `help(thing)` without bold type."""
    return re.sub(".\b", "", pydoc.render_doc(thing))


def test_markers_describe_every_argument(run: Run) -> None:
    """`pytest --markers` describes every argument of the marker, with an example."""
    lines = run(None, "--markers").outlines
    for name in ("cassette", *(field.name for field in fields(Settings))):
        (line,) = [line for line in lines if line.startswith(f"    {name}=: ")]
        assert line.endswith("."), line
    assert any('Example: @pytest.mark.ember_replay(ignore=["' in line for line in lines)


def test_fixtures_come_with_an_example(run: Run) -> None:
    """`pytest --fixtures` describes each fixture with an example; with `-vv` with a whole test."""
    for options, example in (((), "`"), (("-vv",), "def test_")):
        text = "\n".join(run("", "--fixtures", *options).outlines)
        for fixture in ("fake_model", "cassette", "cassette_server", "no_sleep"):
            about = text.partition(f"\n{fixture} -- ")[2]
            assert example in about.partition("\n\n\n")[0], fixture


def test_options_come_with_an_example(run: Run) -> None:
    """`pytest --help` describes each option and setting, with an example if it takes a value."""
    text = " ".join(" ".join(run(None, "--help").outlines).split())
    for example in ("pytest --ember-record=all -k capital", "--ember-budget 0.50",
                    "--ember-report report.json", "example: tests/recordings",
                    "ignore, warn or fail", "example: 90"):  # fmt: skip
        assert example in text


def test_unknown_mode_is_refused_with_the_valid_ones(run: Run) -> None:
    """`--ember-record=everything` is refused with the modes that exist."""
    result = run("", "--ember-record=everything")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ember-record=everything: expected one of new, all*"])


def test_help_shows_every_public_name() -> None:
    """`help(ember_testing)` shows all names in `__all__`, although they are imported lazily."""
    text = help_of(ember_testing)
    for name in ember_testing.__all__:
        assert re.search(rf"^ +(class |{name} = )?{name}\b", text, re.MULTILINE), name
    assert "with ember_testing.fake_model(" in text


def test_help_of_the_function_shows_how_to_call_it() -> None:
    """`help(models)` begins with examples of whole, streamed, async and bound calls."""
    text = help_of(models).partition("PACKAGE CONTENTS")[0]
    for example in ("models(", "models.stream(", "await models.acall(", "models.instance("):
        assert example in text


def test_command_help_describes_each_command() -> None:
    """`ember-cassettes --help` describes each command, with an example."""
    text = CliRunner().invoke(main, ["--help"]).stdout
    for name in main.commands:
        assert re.search(rf"^  {name} +\w", text, re.MULTILINE), name
    assert "Example:\n    ember-cassettes show" in text
