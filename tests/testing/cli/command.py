"""Run the command `ember-cassettes` in a test's process, and record cassettes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import ember_testing
from ember_testing.cli import main
from tests.testing.chat import ask


def record(path: Path, url: str, *questions: str) -> Path:
    """Record a cassette of these questions."""
    with ember_testing.cassette(path, record="all", record_errors=True):
        ask(url, *questions)
    return path


def run(*arguments: str | Path, code: int = 0) -> Result:
    """Run the command in this process and check its exit code."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def found(*arguments: str | Path, code: int = 0) -> Any:
    """Return the parsed output of the command with --json."""
    return json.loads(run(*arguments, "--json", code=code).stdout)
