"""The plugin's options, ini settings and marker: declaration, reading and validation."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import pytest

from ember_testing.replay.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MARKER = "ember_replay"
_arguments_key = pytest.StashKey["Mapping[str, Any]"]()
_ARGUMENTS = ("cassette", *(each.name for each in fields(Settings)))
_MODES = ("none", "new", "all")
_UNUSED = ("ignore", "warn", "fail")
# Name, default, type, help text. A list is also an argument of the marker, which adds to it.
_INI: tuple[tuple[str, Any, Literal["linelist", "bool"] | None, str], ...] = (
    (
        "cassette_dir", "cassettes", None,
        "folder of the cassettes, below rootdir; example: tests/recordings",
    ),
    (
        "unused", "ignore", None,
        "what becomes of recordings that their test did not ask for: ignore, warn or fail",
    ),
    (
        "max_age", "", None,
        "days after which a recording counts as stale, which the run's summary says; example: 90",
    ),
    (
        "match_on", [], "linelist",
        "parts of a request that are compared, a line each, unless a marker says; example: body",
    ),
    (
        "ignore", [], "linelist",
        "what varies from run to run and is not compared, a line each; example: query.ts",
    ),
    (
        "redact", [], "linelist",
        "patterns of what is not written down, a line each, or function:MODULE:NAME; example: "
        "[0-9]{3}-[0-9]{2}-[0-9]{4}",
    ),
    (
        "allow_hosts", [], "linelist",
        "hosts that may be reached in a replay, a line each; example: *.internal",
    ),
    (
        "ignore_hosts", [], "linelist",
        "hosts whose calls fail in a replay and are not recorded, a line each; example: "
        "telemetry.example.com",
    ),
    (
        "allow_subprocess", False, "bool",
        "whether child processes keep providers' keys in a replay; example: true",
    ),
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options, such that both `--ember-record=all` and `--ember-record path::test` work."""
    config = pluginmanager.get_plugin("pytestconfig")
    if isinstance(config, pytest.Config):
        _refuse_other_modes(config)
    group = parser.getgroup("ember", "recorded calls to language models")
    # Literal spellings, because an optional argument would take a test's path as its value.
    for spelling, mode in (("", "new"), *((f"={mode}", mode) for mode in _MODES)):
        group.addoption(
            f"--ember-record{spelling}",
            action="store_const",
            const=mode,
            dest="ember_record",
            default=None,
            help={
                "": "record calls that have no recording, replay the others (same as =new); "
                "example: pytest --ember-record tests/test_towns.py",
                "=none": "replay only, whatever the environment variable EMBER_RECORD says",
                "=new": argparse.SUPPRESS,
                "=all": "record all calls anew; a test's new cassette replaces the old one when "
                "the test has passed; example: pytest --ember-record=all -k capital",
            }[spelling],
        )
    group.addoption(
        "--ember-budget",
        metavar="USD",
        help="while recording, stop before the call that might exceed this sum of US dollars; "
        "example: pytest --ember-record --ember-budget 0.50",
    )
    group.addoption(
        "--ember-report",
        metavar="FILE",
        help="write the figures of the run, and which recordings it used, as JSON, for "
        "`ember-cassettes prune`; example: pytest --ember-report report.json",
    )
    for name, default, kind, about in _INI:
        parser.addini(f"ember_{name}", about, type=kind, default=default)


def _refuse_other_modes(config: pytest.Config) -> None:
    """Reject an unknown mode with the list of modes, which argparse's message lacks."""
    for argument in config.invocation_params.args:
        option, equals, mode = str(argument).partition("=")
        if option == "--ember-record" and equals and mode not in _MODES:
            raise pytest.UsageError(
                f"{argument}: expected one of new, all (or none, to replay whatever the "
                "environment variable EMBER_RECORD says)"
            )


def check_options(config: pytest.Config) -> None:
    """Declare the marker and reject invalid settings."""
    config.addinivalue_line("markers", _marker_help())
    mode_of(config)
    unused_rule(config)
    max_age(config)
    budget_limit(config)


def _marker_help() -> str:
    """Describe the marker and its arguments for `pytest --markers`, from `Settings`' docstring."""
    about = inspect.cleandoc(Settings.__doc__ or "")  # needed before 3.13
    described = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", about, re.MULTILINE)
    meanings = {"cassette": 'A name for a cassette that several tests share: "towns".'}
    meanings |= {name: " ".join(text.split()) for name, text in described}
    lines = [f"    {name}=: {meanings.get(name, '')}" for name in _ARGUMENTS]
    return "\n".join(
        [
            f"{MARKER}({', '.join(f'{name}=' for name in _ARGUMENTS)}): replay this test's calls "
            "to language models from its cassette, with the network closed; `pytest "
            "--ember-record` records those that are missing. Example: "
            f'@pytest.mark.{MARKER}(ignore=["metadata.run_id"])',
            *lines,
        ]
    )


def mode_of(config: pytest.Config) -> str:
    """Return the mode: `none`, `new` or `all`."""
    # Precedence: the option, then the environment, then `none`.
    option: str | None = config.getoption("ember_record")
    if option is not None:
        return option
    mode = os.environ.get("EMBER_RECORD") or "none"
    if mode not in _MODES:
        raise pytest.UsageError(f"EMBER_RECORD={mode!r}: expected one of {', '.join(_MODES)}")
    return mode


def unused_rule(config: pytest.Config) -> str:
    """Return the setting `ember_unused`: `ignore`, `warn` or `fail`."""
    value = str(config.getini("ember_unused"))
    if value not in _UNUSED:
        raise pytest.UsageError(f"ember_unused={value!r}: expected one of {', '.join(_UNUSED)}")
    return value


def max_age(config: pytest.Config) -> float | None:
    """Return the days after which a recording is stale; None for never."""
    text = str(config.getini("ember_max_age"))
    try:
        return float(text) if text else None
    except ValueError:
        raise pytest.UsageError(f"ember_max_age={text!r}: expected a number of days") from None


def budget_limit(config: pytest.Config) -> float | None:
    """Return the limit of recording costs in USD; None for no limit."""
    text = config.getoption("ember_budget")
    try:
        limit = float(text) if text else None
    except ValueError:
        limit = -1.0
    if limit is not None and not 0 <= limit < float("inf"):
        raise pytest.UsageError(f"--ember-budget={text!r}: expected US dollars, 0 or more")
    return limit


def arguments_of(item: pytest.Item) -> Mapping[str, Any]:
    """Return the combined arguments of the markers of a test, its class and its module."""
    if _arguments_key not in item.stash:
        item.stash[_arguments_key] = _with_ini(item.config, _arguments_of_markers(item))
    return item.stash[_arguments_key]


def _arguments_of_markers(item: pytest.Item) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for mark in item.iter_markers(MARKER):  # closest first: the test's before its class's
        unknown = [name for name in mark.kwargs if name not in _ARGUMENTS]
        if unknown or mark.args:
            pytest.fail(
                f"{MARKER}({', '.join([*map(repr, mark.args), *(f'{n}=' for n in unknown)])}): "
                f"unknown; it takes {', '.join(f'{n}=' for n in _ARGUMENTS)}",
                pytrace=False,
            )
        arguments = {**mark.kwargs, **arguments}
    return arguments


def _with_ini(config: pytest.Config, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a marker's arguments combined with the ini settings."""
    for name, _, kind, _ in _INI:
        lines: list[str] = config.getini(f"ember_{name}") if kind == "linelist" else []
        given = arguments.get(name, ())
        if lines and not isinstance(
            given, str
        ):  # a string is rejected later with the other arguments
            arguments[name] = given if name == "match_on" and given else [*lines, *given]
        if kind == "bool" and config.getini(f"ember_{name}"):
            arguments.setdefault(name, True)
    return arguments


def path_of(item: pytest.Item, name: str | None) -> Path:
    """Return the path of a test's cassette.

    Args:
        item: The test.
        name: The name given to the marker; None for the test's own cassette.
    """
    from ember_testing.cassettes.paths import cassette_file, shared_file

    return folder_of(item.config) / (
        cassette_file(item.nodeid) if name is None else shared_file(name)
    )


def folder_of(config: pytest.Config) -> Path:
    """Return the folder of the cassettes."""
    return config.rootpath / str(config.getini("ember_cassette_dir"))


def relative(config: pytest.Config, path: Path) -> str:
    """Return a path for reports: relative to rootdir, separated by slashes."""
    return os.path.relpath(path, config.rootpath).replace(os.sep, "/")
