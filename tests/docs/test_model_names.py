"""Models that the documentation names are models that one can call: none has been shut down."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from ember.exceptions import ModelProviderError
from ember.models.routing import resolve
from ember.providers.json_values import data_file
from ember.providers.retired import retirement

ROOT = Path(__file__).parents[2]
# The suite judges by the day on which the table was read, so that a checkout does not fail with
# time; a scheduled workflow sets EMBER_MODEL_NAMES_ON=today.
_GIVEN = os.environ.get("EMBER_MODEL_NAMES_ON") or data_file("retired")["about"]["read_on"]
DAY = date.today() if _GIVEN == "today" else date.fromisoformat(_GIVEN)

_NAME = re.compile(r"(?<![\w./-])(?:gpt|chatgpt|claude|gemini|codex|o[134])-?[\w.-]*\w(?!-?\*)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def documents() -> list[Path]:
    """README and guides, and the source with its docstrings and messages."""
    guides = [
        path
        for folder in (".github", "cassettes", "ember", "ember_testing", "tests")
        for path in (ROOT / folder).rglob("*.md")
        if "design" not in path.parts  # the user's document: its names work, tested apart
    ]
    sources = [
        path for package in ("ember", "ember_testing") for path in (ROOT / package).rglob("*.py")
    ]
    return [ROOT / "README.md", *sorted(guides), *sorted(sources)]


def sentences(path: Path) -> Iterator[str]:
    """What a person reads of a file: all of a guide; of source docstrings and other sentences."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def shutdown(name: str) -> date | None:
    """When a model was or will be shut down, None where nothing is known of that."""
    try:
        route = resolve(name)
    except ModelProviderError:
        return None
    match = _DATE.search((retirement(route.provider, route.model) or "").partition("date ")[2])
    return date.fromisoformat(match[0]) if match else None


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_named_model_is_shut_down(path: Path) -> None:
    """Every model that README, guides, help, hints and docstrings name is served on that day."""
    names = {name for text in sentences(path) for name in _NAME.findall(text)}
    ended = {f"{name} ended on {day}" for name in names if (day := shutdown(name)) and day <= DAY}
    assert not ended


@pytest.mark.parametrize(
    ("name", "ended"),
    [("gpt-4", True), ("claude-3-opus", True), ("gpt-5.6-sol", False), ("gpt-4o", True)],
)
def test_retired_model_is_found_in_the_table(name: str, ended: bool) -> None:
    """What has ended is found, under its short name too, and a date may lie in the future."""
    day = shutdown(name)
    assert bool(day) is ended
    if name == "gpt-4o":
        assert day == date(2027, 1, 14)
