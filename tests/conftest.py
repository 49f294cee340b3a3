"""What the whole suite shares."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

# The long run, by hand: pytest --hypothesis-profile=long tests/testing/strategies
settings.register_profile("long", max_examples=100_000, deadline=None)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, addresses and prices of whoever runs the suite play no part in it."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_AUTH_TOKEN", "_BASE_URL")) or name.startswith("EMBER_COST"):
            monkeypatch.delenv(name)
    for name in ("EMBER_MODEL", "EMBER_MODEL_COSTS_JSON", "OPENAI_API_VERSION", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Shows what a test measured at the end of the run, from whichever process."""
    return lambda text: record_property("figures", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests measured."""
    said = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in report.user_properties
        if name == "figures"
    ]
    if said:
        terminalreporter.section("figures")
        for text in said:
            terminalreporter.write_line(str(text))
