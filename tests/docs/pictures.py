#!/usr/bin/env python3
"""The README's pictures of a terminal, made from what the commands really print.

    python -m tests.docs.pictures          # writes miss.svg and diff.svg beside this file
    python -m tests.docs.pictures --check  # fails where they are not what would be written

A test runs the check, so that no picture outlives the output that it shows.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from ember.api.models.schemas import UsageStats
from ember_testing import Answer, fault_server

FOLDER = Path(__file__).parent
TEST = """import pytest

from ember.api import models


@pytest.mark.ember_replay
def test_capital():
    answer = models("gpt-5.6-sol", "What is the capital of {country}?")
    assert "{capital}" in answer.text
"""
FRANCE = {"country": "France", "capital": "Paris"}
SPAIN = {"country": "Spain", "capital": "Madrid"}

# What changes what is printed: keys, options, colours, and CI, where pytest shortens nothing.
_LEFT_OUT = ("OPENAI_", "PYTEST_", "EMBER_", "NO_COLOR", "FORCE_COLOR", "CI", "BUILD_NUMBER")
_COLORS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff"}
_SEQUENCE = re.compile(r"\x1b\[([\d;]*)([A-Za-z])")
_LINE, _CHARACTER, _MARGIN = 18, 7.85, 16  # pixels
_WIDEST = 104  # characters of a line; a longer one goes on in the next


def pictures() -> dict[str, str]:
    """The text of each picture's file."""
    with tempfile.TemporaryDirectory() as folder, fault_server() as server:
        project = Path(folder)
        server("*", *(Answer(f"{name}.", usage=UsageStats(14, 6)) for name in ("Paris", "Madrid")))

        def run(*command: str, key: bool = False) -> str:
            environment = {
                **{n: v for n, v in os.environ.items() if not n.startswith(_LEFT_OUT)},
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "PYTHONDONTWRITEBYTECODE": "1",
                "COLUMNS": "88",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                **({"OPENAI_API_KEY": "sk-of-the-picture"} if key else {}),
            }
            done = subprocess.run(
                command, cwd=project, env=environment, capture_output=True, text=True, check=False
            )
            # The server stands for the provider.
            printed = done.stdout.replace(server.url, "https://api.openai.com")
            printed = printed.replace("unknown/gpt", "openai/gpt")
            return printed.replace(str(project), "/project")

        pytest = [sys.executable, "-m", "pytest", "-q", "--color=yes",
                  "-p", "no:cacheprovider", "-p", "ember_testing.plugin"]  # fmt: skip
        textconv = f'"{sys.executable}" -m ember_testing.cli textconv'
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org",
               "-c", f"diff.ember-cassettes.textconv={textconv}"]  # fmt: skip
        (project / "test_towns.py").write_text(TEST.format(**FRANCE))
        (project / ".gitattributes").write_text("cassettes/**/*.sqlite diff=ember-cassettes\n")
        run(*pytest, "--ember-record", key=True)
        run(*git, "init", "-q")
        run(*git, "add", ".")
        run(*git, "commit", "-qm", "The capital of France")
        (project / "test_towns.py").write_text(TEST.format(**SPAIN))
        miss = run(*pytest, key=True)
        run(*pytest, "--ember-record=all", key=True)
        diff = run(*git, "diff", "--color=always", "--", "cassettes")
    return {
        "miss.svg": svg("pytest", _without_times(miss)),
        "diff.svg": svg("git diff", re.sub(r"index \w+\.\.\w+", "index 1d3f0c2..9b1e7a4", diff)),
    }


def _without_times(text: str) -> str:
    return re.sub(r" in \d+\.\d\ds", " in 0.35s", text)


def svg(command: str, printed: str) -> str:
    """A terminal with a command and what it printed, colours included."""
    lines = [*_wrapped(f"\x1b[1m$ {command}\x1b[0m\n{printed.rstrip()}")]
    height = len(lines) * _LINE + 2 * _MARGIN
    width = round(_WIDEST * _CHARACTER) + 2 * _MARGIN
    rows = "\n".join(
        f'<text x="{_MARGIN}" y="{_MARGIN + _LINE * number + 13}">{line}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{escape(command)}, and what it prints</title>\n"
        "<style>text { font: 13px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; "
        "fill: #e6edf3; white-space: pre }</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>\n{rows}\n</svg>\n'
    )


def _wrapped(text: str) -> Iterator[str]:
    """The lines as SVG, each at most as wide as the picture; colours go on over a line's end."""
    style: dict[str, str] = {}
    for line in text.splitlines():
        parts: list[str] = []
        room = _WIDEST
        for kind, value in _pieces(line):
            if kind == "style":
                _change(style, value)
                continue
            while value:
                if not room:
                    yield "".join(parts)
                    parts, room = [], _WIDEST
                parts.append(_span(value[:room], style))
                value, room = value[room:], max(0, room - len(value[:room]))
        yield "".join(parts)


def _pieces(line: str) -> Iterator[tuple[str, str]]:
    at = 0
    for match in _SEQUENCE.finditer(line):
        yield "text", line[at : match.start()]
        if match[2] == "m":
            yield "style", match[1]
        at = match.end()
    yield "text", line[at:]


def _change(style: dict[str, str], codes: str) -> None:
    for code in codes.split(";"):
        if code in ("", "0"):
            style.clear()
        elif code == "1":
            style["font-weight"] = "bold"
        elif code in _COLORS:
            style["fill"] = _COLORS[code]


def _span(text: str, style: dict[str, str]) -> str:
    attributes = "".join(f' {name}="{value}"' for name, value in style.items())
    return f"<tspan{attributes}>{escape(text)}</tspan>" if attributes else escape(text)


def main() -> int:
    """Write the pictures, or look whether they are what would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = []
    for name, text in pictures().items():
        path = FOLDER / name
        if check and path.read_text(encoding="utf-8") != text:
            old.append(name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    if old:
        print(f"not what is printed today: {', '.join(old)}; run python -m tests.docs.pictures")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
