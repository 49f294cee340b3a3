"""The command `ember-cassettes` in the process of a test, and cassettes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import ember_testing
from ember_testing.cli import main
from tests.testing.chat import ask


def record(path: Path, url: str, *questions: str) -> Path:
    """A cassette of these questions."""
    with ember_testing.cassette(path, record="all", record_errors=True):
        ask(url, *questions)
    return path


def run(*arguments: str | Path, code: int = 0) -> Result:
    """The command in this process, with the exit code that is expected."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def found(*arguments: str | Path, code: int = 0) -> Any:
    """What the command prints with --json."""
    return json.loads(run(*arguments, "--json", code=code).stdout)
