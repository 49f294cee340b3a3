"""The plugin's part that concerns the whole run: its counts, its report, its budget.

Under pytest-xdist each worker process counts for itself and the first one adds up.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from ember_testing.plugin.options import (
    MARKER,
    arguments_of,
    budget_limit,
    path_of,
    relative,
    unused_rule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ember_testing.plugin.run import Run
    from ember_testing.replay.budget import Budget
    from ember_testing.replay.session import Session

_name_key = pytest.StashKey[str]()
_run_key = pytest.StashKey["Run"]()
_ledger_key = pytest.StashKey[str]()
_budget_key = pytest.StashKey["Budget | None"]()
_began_key = pytest.StashKey[float]()
_deselected_key = pytest.StashKey[int]()
_folders_key = pytest.StashKey[set["Path"]]()


def begin_run(config: pytest.Config) -> None:
    """Set the counts of a run to nothing."""
    config.stash[_began_key] = time.time()
    config.stash[_deselected_key] = 0
    config.stash[_folders_key] = set()


def run_name(config: pytest.Config) -> str:
    """One name for this run, the same in all worker processes of pytest-xdist."""
    if _name_key not in config.stash:
        from uuid import uuid4

        worker: dict[str, str] = getattr(config, "workerinput", {})
        config.stash[_name_key] = worker.get("testrunuid") or uuid4().hex
    return config.stash[_name_key]


def run_of(config: pytest.Config) -> Run:
    """The counts so far."""
    if _run_key not in config.stash:
        from ember_testing.plugin.run import Run

        config.stash[_run_key] = Run()
    return config.stash[_run_key]


def budget_of(config: pytest.Config) -> Budget | None:
    """The budget of the run; the processes of pytest-xdist keep one ledger."""
    if _budget_key not in config.stash:
        limit = budget_limit(config)
        if limit is None:
            config.stash[_budget_key] = None
        else:
            from pathlib import Path

            from ember_testing.replay.budget import Budget

            ledger: str | None = getattr(config, "workerinput", {}).get("ember_ledger")
            config.stash[_budget_key] = Budget(limit, Path(ledger) if ledger else None)
    return config.stash[_budget_key]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker process where the ledger is (a hook of pytest-xdist)."""
    config: pytest.Config = node.config
    if budget_limit(config) is not None:
        if _ledger_key not in config.stash:
            import tempfile

            config.stash[_ledger_key] = tempfile.mkdtemp(prefix="ember-")
        node.workerinput["ember_ledger"] = os.path.join(config.stash[_ledger_key], "ledger.sqlite")  # noqa: PTH118 - pathlib takes a millisecond to load


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the budget's ledger; the process that made it deletes it."""
    if (budget := config.stash.get(_budget_key, None)) is not None:
        budget.close()
    if (folder := config.stash.get(_ledger_key, None)) is not None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """A run that leaves tests out says nothing about the recordings of those."""
    if items:
        items[0].config.stash[_deselected_key] += len(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which tests there are, where a report or the unused recordings are asked for."""
    config = session.config
    if config.getoption("ember_report") is None and unused_rule(config) == "ignore":
        return
    for item in session.items:
        if item.get_closest_marker(MARKER) is not None:
            name = arguments_of(item).get("cassette")
            run_of(config).expect(relative(config, path_of(item, name)), item.nodeid, bool(name))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands its counts to the one that reports, which writes them down."""
    config = session.config
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    run = config.stash.get(_run_key, None)
    if output is not None:
        output["ember_deselected"] = config.stash[_deselected_key]
        if run is not None:
            output["ember"] = run.as_dict()
        return
    report: str | None = config.getoption("ember_report")
    if run is None and report is None:
        return
    run = run_of(config)
    partial = _partial(session)
    if not partial and (rule := unused_rule(config)) != "ignore":
        for path, count in run.unused_of_shared(config.rootpath).items():
            run.tally.unused += count
            run.tally.notes.append(f"{count} recordings of {path} were not used by any test")
            if rule == "fail" and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if report is not None:
        from pathlib import Path

        where = Path(report)
        run.write(where, config.rootpath, partial, int(session.exitstatus))


def _partial(session: pytest.Session) -> list[str]:
    """Why this was not a run of the whole suite."""
    from ember_testing.plugin.run import narrowed

    config = session.config
    reasons: list[str] = []
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        parameters = config.invocation_params
        testpaths: list[str] = config.getini("testpaths")
        reasons = narrowed(config.args, parameters.dir, config.rootpath, testpaths)
    if count := config.stash[_deselected_key]:
        reasons.append(f"{count} tests deselected")
    if config.getoption("ignore") or config.getoption("ignore_glob"):
        reasons.append("files ignored")
    if session.shouldstop or session.shouldfail:
        reasons.append("stopped early")
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        reasons.append(f"exit status {int(session.exitstatus)}")
    return reasons


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take a worker's counts (a hook of pytest-xdist)."""
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    stash = node.config.stash
    # Every worker collects, and deselects, the same.
    stash[_deselected_key] = max(stash[_deselected_key], output.get("ember_deselected", 0))
    if counts := output.get("ember"):
        from ember_testing.plugin.run import Run

        run_of(node.config).add(Run.from_dict(counts))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line of figures when anything was recorded or replayed, and the notes."""
    if _run_key not in config.stash:
        return
    from ember_testing.plugin.report import summary

    lines = summary(config.stash[_run_key].tally)
    if lines:
        terminalreporter.section("ember", sep="-")
        for line in lines:
            terminalreporter.write_line(line)


def look_for_leftovers(config: pytest.Config, session: Session) -> None:
    """Once a folder: a killed recording leaves a file that nobody would notice."""
    folder = session.path.parent
    if folder not in config.stash[_folders_key]:
        config.stash[_folders_key].add(folder)
        from ember_testing.plugin.run import left_behind

        for path in left_behind(folder, config.stash[_began_key]):
            session.tally.notes.append(f"left by a recording that was killed, delete it: {path}")


def count(item: pytest.Item, session: Session, passed: bool) -> None:
    """Add what a test has done to the counts of the run."""
    run = run_of(item.config)
    run.tally += session.tally
    shared = bool(arguments_of(item).get("cassette"))
    if shared or item.config.getoption("ember_report") is not None:
        run.finish(relative(item.config, session.path), session, passed, shared)
