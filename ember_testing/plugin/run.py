"""The state of a run of pytest over all its processes: counts, used recordings, budget.

Under pytest-xdist each worker process counts separately and the main process adds up.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ember_testing.plugin.imports import collected_with_placeholders
from ember_testing.plugin.options import (
    arguments_of,
    budget_limit,
    folder_of,
    path_of,
    relative,
    unused_rule,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from ember_testing.cassettes.used import Used
    from ember_testing.replay.budget import Budget
    from ember_testing.replay.session import Session

_name_key = pytest.StashKey[str]()
_run_key = pytest.StashKey["Run"]()
_ledger_key = pytest.StashKey[str]()
_budget_key = pytest.StashKey["Budget | None"]()
BEGAN = pytest.StashKey[float]()
"""When the run began, in seconds since the epoch."""
DESELECTED = pytest.StashKey[int]()
"""The number of deselected tests."""
_untested_key = pytest.StashKey[dict[str, str]]()
_workers_key = pytest.StashKey[set[str]]()
_AT_COLLECTION = " at collection"


class Run:
    """The results of a run's tests, in a worker process or in total."""

    def __init__(self) -> None:
        from ember_testing.replay.tally import Tally  # late, as in all of this file: see the plugin

        self.tally = Tally()
        self.cassettes: dict[str, Used] = {}  # by the path relative to rootdir

    def expect(self, path: str, test: str, shared: bool) -> None:
        """Note a collected test that uses this cassette."""
        from ember_testing.cassettes.used import Used

        self._note(path, Used(tests={test}, shared=shared))

    def finish(self, path: str, session: Session, passed: bool, shared: bool) -> None:
        """Note a finished test, whose session is closed.

        Args:
            path: The cassette, relative to rootdir.
            session: The test's session.
            passed: Whether the test passed.
            shared: Whether the marker named the cassette.
        """
        from ember_testing.cassettes.used import Used

        numbers = set(session.played.numbers())
        identity = ""
        if session.path.exists():
            from ember_testing.cassettes.file import CassetteFile
            from ember_testing.exceptions import CassetteError

            try:
                with CassetteFile(session.path) as file:
                    identity = file.metadata().get("id", "")
                    if session.outcome.tally.recorded:
                        rows = file.rows(file.numbers())
                        numbers |= {row["id"] for row in rows if row["test"] == session.test}
            except CassetteError:  # already reported by the session
                passed = False
        done = {session.test} if passed else set[str]()
        used = Used(identity, numbers, {session.test}, done, shared)
        self._note(path, used)

    def add(self, other: Run) -> None:
        """Add the results of a worker process."""
        self.tally += other.tally
        for path, used in other.cassettes.items():
            self._note(path, used)

    def _note(self, path: str, used: Used) -> None:
        if path in self.cassettes:
            self.cassettes[path].add(used)
        else:
            self.cassettes[path] = used

    def as_dict(self) -> dict[str, Any]:
        """Return the results in JSON types, also for sending them from a worker process."""
        cassettes = {path: used.as_dict() for path, used in sorted(self.cassettes.items())}
        return {"totals": self.tally.as_dict(), "cassettes": cassettes}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Run:
        """Return the run that `as_dict` was called on."""
        from ember_testing.cassettes.used import Used
        from ember_testing.replay.tally import Tally

        run = cls()
        run.tally = Tally.from_dict(found["totals"])
        run.cassettes = {path: Used.from_dict(used) for path, used in found["cassettes"].items()}
        return run

    def unused_of_shared(self, root: Path) -> dict[str, int]:
        """Return how many recordings of each shared cassette no test used.

        Cassettes with a test that did not pass are left out: it might have used the rest.

        Args:
            root: The run's rootdir.
        """
        from ember_testing.cassettes.file import CassetteFile

        found: dict[str, int] = {}
        for path, used in self.cassettes.items():
            if used.shared and not used.unfinished and (root / path).exists():
                with CassetteFile(root / path) as file:
                    if count := len(set(file.numbers()) - used.numbers):
                        found[path] = count
        return found

    def write(self, path: Path, config: pytest.Config, partial: list[str], status: int) -> None:
        """Write the report of `--ember-report`.

        Args:
            path: The file.
            config: The run's config.
            partial: Why this was not a run of the whole suite.
            status: The exit status of pytest.
        """
        from ember_testing.cassettes.used import FORMAT, VERSION

        report = {
            "format": FORMAT,
            "version": VERSION,
            "run": run_name(config),
            "rootdir": str(config.rootpath),
            "cassette_dir": relative(config, folder_of(config)),
            "exit_status": status,
            "partial": partial,
            "untested": dict(sorted(config.stash[_untested_key].items())),
            **self.as_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def begin_run(config: pytest.Config) -> None:
    """Reset the counts of a run."""
    config.stash[BEGAN] = time.time()
    config.stash[DESELECTED] = 0
    config.stash[_untested_key] = {}
    config.stash[_workers_key] = set()


def run_name(config: pytest.Config) -> str:
    """Return a name for this run, the same in all worker processes of pytest-xdist."""
    if _name_key not in config.stash:
        from uuid import uuid4

        worker: dict[str, str] = getattr(config, "workerinput", {})
        config.stash[_name_key] = worker.get("testrunuid") or uuid4().hex
    return config.stash[_name_key]


def run_of(config: pytest.Config) -> Run:
    """Return the run's results so far."""
    if _run_key not in config.stash:
        config.stash[_run_key] = Run()
    return config.stash[_run_key]


def budget_of(config: pytest.Config) -> Budget | None:
    """Return the budget of the run; the processes of pytest-xdist share one ledger."""
    if _budget_key not in config.stash:
        limit = budget_limit(config)
        if limit is None:
            config.stash[_budget_key] = None
        else:
            from ember_testing.replay.budget import Budget

            ledger: str | None = getattr(config, "workerinput", {}).get("ember_ledger")
            config.stash[_budget_key] = Budget(limit, Path(ledger) if ledger else None)
    return config.stash[_budget_key]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker process where the ledger is (a hook of pytest-xdist)."""
    config: pytest.Config = node.config
    config.stash[_workers_key].add(node.gateway.id)
    if budget_limit(config) is not None:
        if _ledger_key not in config.stash:
            import tempfile

            config.stash[_ledger_key] = tempfile.mkdtemp(prefix="ember-")
        node.workerinput["ember_ledger"] = str(Path(config.stash[_ledger_key]) / "ledger.sqlite")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the budget's ledger; the process that made it deletes it."""
    if (budget := config.stash.get(_budget_key, None)) is not None:
        budget.close()
    if (folder := config.stash.get(_ledger_key, None)) is not None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Note deselected tests: the run does not show which recordings they use."""
    for item in items:
        item.config.stash[DESELECTED] += 1
        item.config.stash[_untested_key][item.nodeid.partition("::")[0]] = "tests deselected"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Note modules skipped or failed during collection: their tests are unknown."""
    report = yield
    if report.failed:
        report = collected_with_placeholders(collector) or report
    if not report.passed:
        module = report.nodeid.partition("::")[0]
        collector.config.stash[_untested_key][module] = report.outcome + _AT_COLLECTION
    return report


@pytest.hookimpl(wrapper=True)
def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> Generator[None, bool | None, bool | None]:
    """Note the modules and folders that are ignored."""
    ignored = yield
    name = collection_path.name
    if ignored and not name.startswith((".", "__")) and collection_path.suffix in ("", ".py"):
        config.stash[_untested_key][relative(config, collection_path)] = "not collected: ignored"
    return ignored


def counts_use(config: pytest.Config) -> bool:
    """Return whether an option needs to know which recordings the tests use."""
    return config.getoption("ember_report") is not None or unused_rule(config) != "ignore"


def expect(item: pytest.Item) -> None:
    """Note a collected test, whether or not it will run."""
    config, name = item.config, arguments_of(item).get("cassette")
    run_of(config).expect(relative(config, path_of(item, name)), item.nodeid, bool(name))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's counts to the main process, or write the report in the main process."""
    config = session.config
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    run = config.stash.get(_run_key, None)
    if output is not None:
        output["ember_deselected"] = config.stash[DESELECTED]
        output["ember_untested"] = config.stash[_untested_key]
        if run is not None:
            output["ember"] = run.as_dict()
        return
    report: str | None = config.getoption("ember_report")
    if run is None and report is None:
        return
    run = run_of(config)
    partial = _partial(session)
    if not partial and (rule := unused_rule(config)) != "ignore":
        from ember_testing.replay.tally import counted

        for path, number in run.unused_of_shared(config.rootpath).items():
            run.tally.unused += number
            run.tally.notes.append(
                f"not used by any test: {counted(number, 'recording')} of {path}"
            )
            if rule == "fail" and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if report is not None:
        run.write(Path(report), config, partial, int(session.exitstatus))


def _partial(session: pytest.Session) -> list[str]:
    """Return why this was not a run of the whole suite; empty if it was."""
    config = session.config
    reasons: list[str] = []
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        parameters = config.invocation_params
        testpaths: list[str] = config.getini("testpaths")
        reasons = narrowed(config.args, parameters.dir, config.rootpath, testpaths)
    if count := config.stash[DESELECTED]:
        reasons.append(f"{count} tests deselected")
    reasons += [
        f"{module} {why}"
        for module, why in sorted(config.stash[_untested_key].items())
        if why.endswith(_AT_COLLECTION)
    ]
    if config.getoption("ignore") or config.getoption("ignore_glob"):
        reasons.append("files ignored")
    if lost := config.stash[_workers_key]:
        reasons.append(f"worker processes that did not end: {', '.join(sorted(lost))}")
    if session.shouldstop or session.shouldfail:
        reasons.append("stopped early")
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        reasons.append(f"exit status {int(session.exitstatus)}")
    return reasons


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Receive a worker's counts (a hook of pytest-xdist)."""
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    stash = node.config.stash
    if "ember_untested" in output:  # the counts of a crashed worker are lost
        stash[_workers_key].discard(node.gateway.id)
        stash[_untested_key].update(output["ember_untested"])
    # Every worker collects and deselects the same tests.
    stash[DESELECTED] = max(stash[DESELECTED], output.get("ember_deselected", 0))
    if counts := output.get("ember"):
        run_of(node.config).add(Run.from_dict(counts))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print a line of figures if anything was recorded or replayed, and the notes."""
    if _run_key not in config.stash:
        return
    from ember_testing.plugin.summary import summary

    lines = summary(config.stash[_run_key].tally)
    if lines:
        terminalreporter.section("ember", sep="-")
        for line in lines:
            terminalreporter.write_line(line)


def count(item: pytest.Item, session: Session, passed: bool) -> None:
    """Add a test's calls to the counts of the run."""
    run = run_of(item.config)
    run.tally += session.outcome.tally
    shared = bool(arguments_of(item).get("cassette"))
    if shared or item.config.getoption("ember_report") is not None:
        run.finish(relative(item.config, session.path), session, passed, shared)


def count_fixture(config: pytest.Config, session: Session, passed: bool) -> None:
    """Add the calls of a fixture wider than a test to the counts of the run."""
    run = run_of(config)
    run.tally += session.outcome.tally
    if session.path.exists():
        run.finish(relative(config, session.path), session, passed, shared=True)


def narrowed(
    arguments: Iterable[str], started_in: Path, root: Path, testpaths: Iterable[str]
) -> list[str]:
    """Return why a run with these arguments is not of the whole suite; empty if it is.

    Args:
        arguments: The given paths and node ids.
        started_in: The folder that they are relative to.
        root: The run's rootdir.
        testpaths: The ini option.
    """
    given = list(arguments)
    if not given:
        return []
    whole = [(root / path).resolve() for path in testpaths] or [root.resolve()]
    named = [(started_in / argument).resolve() for argument in given if "::" not in argument]
    covered = all(any(each == part or each in part.parents for each in named) for part in whole)
    return [] if covered else [f"arguments: {' '.join(given)}"]
