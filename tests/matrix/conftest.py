"""Collect the matrix only if `--matrix` names a folder for its installations."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the matrix out of an ordinary run, which installs nothing."""
    ours = collection_path.name == "test_clients.py"
    return True if ours and not config.getoption("matrix") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Generate one test per client."""
    if "client" in metafunc.fixturenames:
        from tests.matrix.matrix import CLIENTS

        chosen: str | None = metafunc.config.getoption("matrix_clients")
        metafunc.parametrize("client", chosen.split(",") if chosen else CLIENTS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the clients tried."""
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in report.user_properties
        if name == "matrix" and report.when == "call"
    ]
    if rows:
        from tests.matrix.matrix import Row, table

        terminalreporter.section("matrix")
        today = datetime.date.today().isoformat()
        terminalreporter.write_line(table([Row(**row) for row in rows], today))
