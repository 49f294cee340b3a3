"""The pytest plugin: options, marker, hooks and fixtures; its engine is imported on first use.

A test without the marker costs one lookup of its marks: there is no autouse fixture and no import
of httpx, SQLite or Ember.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ember_testing.plugin.failures import (
    SESSION,
    AsyncFailures,
    caused_by_failure,
    fail_report,
    messages,
)
from ember_testing.plugin.imports import pytest_load_initial_conftests
from ember_testing.plugin.options import (
    MARKER,
    check_options,
    pytest_addoption,
)
from ember_testing.plugin.run import (
    begin_run,
    counts_use,
    expect,
    pytest_configure_node,
    pytest_deselected,
    pytest_ignore_collect,
    pytest_make_collect_report,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_unconfigure,
)
from ember_testing.plugin.sessions import PASSED, abandon, begin, end, replay_follows, restore

if TYPE_CHECKING:
    from collections.abc import Generator

    from ember_testing.fakes.model import FakeModel
    from ember_testing.patches.sleep import NoSleep
    from ember_testing.replay.cassette import Cassette
    from ember_testing.replay.server import CassetteServer
    from ember_testing.replay.session import Session

# Includes hooks that are defined in other files: pytest looks for them here.
__all__ = [
    "pytest_addoption",
    "pytest_configure_node",
    "pytest_deselected",
    "pytest_ignore_collect",
    "pytest_load_initial_conftests",
    "pytest_make_collect_report",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_unconfigure",
]


_fake_key = pytest.StashKey["FakeModel"]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and reject invalid settings."""
    check_options(config)
    begin_run(config)
    config.add_cleanup(lambda: abandon(config))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Register the hooks for fixtures of marked tests, and note which cassettes will be used."""
    marked = [item for item in session.items if item.get_closest_marker(MARKER) is not None]
    if marked or any("fake_model" in getattr(item, "fixturenames", ()) for item in session.items):
        session.config.pluginmanager.register(AsyncFailures(), "ember-async-failures")
    if not marked:
        return
    # Late: most runs have no marked test.
    from ember_testing.plugin.hangs import HANGS, HangHooks
    from ember_testing.plugin.wide_fixtures import WideFixtures

    fixtures = WideFixtures(marked)
    session.config.pluginmanager.register(fixtures, "ember-wide-fixtures")
    session.config.pluginmanager.register(HangHooks(marked), HANGS)
    if counts_use(session.config):
        for item in marked:
            expect(item)
        fixtures.expect(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Activate the cassette before the test's fixtures are set up: they may make calls too."""
    if item.get_closest_marker(MARKER) is not None:
        begin(item)
    else:
        restore()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Deactivate the cassette after the last fixture, and keep or drop what was recorded."""
    session = item.stash.get(SESSION, None)
    if session is None:
        restore()  # the setup of a marked test may have failed before its session began
        return (yield)
    torn_down = False
    try:
        result = yield
        torn_down = True
    finally:
        passed = torn_down and item.stash.get(PASSED, False) and not session.failures
        end(item, session, passed, torn_down, replay_follows(item, nextitem))
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose miss was swallowed in a thread, a task or an `except`."""
    report = yield
    fake = item.stash.get(_fake_key, None)
    if fake is not None and call.when == "call":
        # Errors that the fixture `fake_model` would raise in its teardown fail the test itself.
        unused = report.passed and not hasattr(report, "wasxfail")
        if complaint := fake.complaint(unused=unused):
            fail_report(item, call, report, complaint)
    session = item.stash.get(SESSION, None)
    if session is None:
        return report
    failures = session.failures
    if failures and (call.when == "call" or not report.passed or caused_by_failure(_error(call))):
        fail_report(item, call, report, messages(failures), failures)
    if call.when == "call":
        # A test that is expected to fail keeps its recording too, or it could never be replayed.
        item.stash[PASSED] = report.passed or hasattr(report, "wasxfail")
    elif call.when == "teardown":
        del item.stash[SESSION]
    return report


def _error(call: pytest.CallInfo[None]) -> BaseException | None:
    return call.excinfo.value if call.excinfo else None


@pytest.fixture
def no_sleep() -> Generator[NoSleep]:
    """Skip the waits between retries and add them up: `assert no_sleep.seconds == 20`.

    Affects `sleep` of time, asyncio, anyio and trio; while a cassette records, waits are kept.

        def test_retry(fake_model, no_sleep):
            fake_model("gpt-5.6-sol", rate_limit(retry_after=20), "Paris")
            assert ask_patiently("What is the capital of France?") == "Paris"
            assert no_sleep.seconds == 20
    """
    from ember_testing.patches.sleep import no_sleep

    with no_sleep() as waits:
        yield waits


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Cassette:
    """The calls replayed and recorded so far in this test: `cassette.played[0].text`.

    `cassette.played` and `cassette.recorded` are sequences of `ember_testing.Call`: `method`,
    `url`, `body`, `status`, `text`, `cost`. Needs the marker `ember_replay`.

        @pytest.mark.ember_replay
        def test_capital(cassette):
            answer("What is the capital of France?")
            assert [call.status for call in cassette.played] == [200]
    """
    session = _session_of(request, "cassette")
    from ember_testing.replay.cassette import Cassette

    return Cassette(session)


def _session_of(request: pytest.FixtureRequest, fixture: str) -> Session:
    session: Session | None = request.node.stash.get(SESSION, None)
    if session is None:
        pytest.fail(
            f"the fixture `{fixture}` is for a test with a cassette: mark it "
            "@pytest.mark.ember_replay",
            pytrace=False,
        )
    return session


@pytest.fixture
def cassette_server(request: pytest.FixtureRequest) -> Generator[CassetteServer]:
    """A server that records and replays, for other processes: `cassette_server.url("openai")`.

    `url()` returns the base URL for a client, and `cassette_server.environment` the variables for a
    child process. The calls use the test's cassette in the run's mode. Needs the marker
    `ember_replay`.

        @pytest.mark.ember_replay
        def test_script(cassette_server):
            environment = {**os.environ, **cassette_server.environment}
            subprocess.run(["node", "script.js"], env=environment, check=True)
    """
    session = _session_of(request, "cassette_server")
    from ember_testing.replay.server import serving

    with serving(session) as server:
        yield server


@pytest.fixture
def fake_model(request: pytest.FixtureRequest) -> Generator[FakeModel]:
    """Fake models in the providers' wire formats: `fake_model("gpt-5.6-sol", "Paris")`.

    Answers are given in order: text, the chunks of a stream, a fault of `ember_testing.faults`, an
    `Answer`, a `ChatResponse`, or a function of the call. `fake_model.calls` holds the calls so
    far, each with `prompt`, `messages`, `images`, `system`, `params` and `headers`. A call without
    an answer, an answer without a call, and any attempt to reach the network fail the test.
    `fake_model.verdict()` reports how the code under test handled faults.

        def test_capital(fake_model):
            fake_model("claude-*", rate_limit(retry_after=1), "Paris")
            assert answer("What is the capital of France?") == "Paris"
            assert len(fake_model.calls) == 2
            assert fake_model.verdict().ok
    """
    try:
        from ember_testing.fakes.model import fake_model
    except ModuleNotFoundError as error:
        from ember_testing.exceptions import missing_extra

        message = str(missing_extra("the fixture fake_model", error))
        raise pytest.fail.Exception(message, pytrace=False) from None
    with fake_model() as fake:
        request.node.stash[_fake_key] = fake
        yield fake
