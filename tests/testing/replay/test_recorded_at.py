"""`cassette.recorded_at`: a test can send the same dates as when it was recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import ember_testing
from tests.loopback import serving
from tests.markdown import python_blocks
from tests.testing.chat import KEY, ask, chat


def test_recorded_at_is_the_time_of_the_oldest_call(path: Path) -> None:
    """The current time in a new cassette; else that of the oldest recording, replayed or not."""
    began = datetime.now(timezone.utc)
    with serving(chat) as server:
        with ember_testing.cassette(path, record="new") as calls:
            assert began <= calls.recorded_at <= datetime.now(timezone.utc)
            ask(server.url, "Paris", "Rome")
            first, second = (datetime.fromisoformat(call.recorded_at) for call in calls.recorded)
            assert calls.recorded_at == first < second
        with ember_testing.cassette(path) as calls:
            assert calls.recorded_at == first
            assert calls.recorded_at.utcoffset() == timedelta(0)
            ask(server.url, "Rome")
            assert calls.recorded_at == second
        with ember_testing.cassette(path, record="all") as calls:
            assert calls.recorded_at > second
            ask(server.url, "Oslo")


def test_a_prompt_with_a_date_replays_on_another_day(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """Code that reads a clock set to `recorded_at` sends the same request a year later."""
    pytester.makepyfile(
        clock="""
from datetime import datetime, timedelta, timezone
def now(): return datetime.now(timezone.utc)
"""
    )
    module = """
import clock, httpx, pytest
from datetime import timedelta
real = clock.now
@pytest.mark.ember_replay
def test_today(cassette, monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days={days}))
    {line}
    with httpx.Client(verify=False) as client:
        client.post({url!r}, json={{"q": f"Today is {{clock.now():%Y-%m-%d}}."}})
"""
    line = 'monkeypatch.setattr(clock, "now", lambda: cassette.recorded_at)'
    with serving() as server:
        values = {"url": server.url, "days": 0, "line": line}
        run(module.format(**values), "--ember-record").assert_outcomes(passed=1)
        later = values | {"days": 365}
        run(module.format(**later)).assert_outcomes(passed=1)
        run(module.format(**later | {"line": ""})).assert_outcomes(failed=1)


def test_the_guides_test_replays_a_year_later(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's test sets the process's clock to the recording's time, with time-machine."""
    pytest.importorskip("time_machine")
    guide = Path(ember_testing.__file__).with_name("README.md")
    (block,) = [each for each in python_blocks(guide) if "time_machine" in each.code]
    pytester.makeconftest("""
import datetime, os, pytest, time_machine
@pytest.fixture(autouse=True)
def clock():
    days = datetime.timedelta(days=int(os.environ["DAYS"]))
    with time_machine.travel(datetime.datetime.now(datetime.timezone.utc) + days):
        yield
""")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(chat) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("DAYS", "0")
        run(block.code, "--ember-record").assert_outcomes(passed=1)
        monkeypatch.setenv("DAYS", "365")
        run().assert_outcomes(passed=1)
        ticking = block.code.replace("cassette.recorded_at", "datetime.datetime.now()")
        run(ticking).assert_outcomes(failed=1)
        assert len(server.received) == 1
