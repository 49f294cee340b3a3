"""Prices of recorded calls: stored with them, replayed exactly, added up in the report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import ember_testing
from ember.api import models
from ember_testing.patches import environment
from ember_testing.replay.active import activate, deactivate
from ember_testing.replay.session import Session
from tests.loopback import Loopback, Received, Reply, serving
from tests.testing.chat import SUITE, chat

GONE = "http://127.0.0.1:1/v1"


def call(base_url: str, **more: Any) -> float:
    """Return the cost of a call through Ember: 10 tokens in, 5 out."""
    response = models("gpt-4", "Paris", base_url=base_url, api_key="sk-x", **more)
    return response.usage.cost


PRICES = json.dumps({"gpt-4": {"input": 1, "output": 2}})


class TestPrices:
    """The prices in force are stored with the recording."""

    def test_a_cost_replays_exactly_after_a_price_change(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A replay uses the recording's prices; `prices="current"` uses today's."""
        with serving(chat) as server, ember_testing.cassette(path, record="new"):
            before = call(f"{server.url}/v1")
        assert before == pytest.approx(0.0006)
        monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
        with ember_testing.cassette(path):
            assert call(GONE) == before
        with ember_testing.cassette(path, prices="current"):
            assert call(GONE) == pytest.approx(20e-6)
        with serving(chat) as server:
            assert call(f"{server.url}/v1") == pytest.approx(20e-6)

    def test_prices_set_during_the_test_are_stored(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Prices are stored even if the variable is unset when the cassette is closed."""
        with (
            serving(chat) as server,
            ember_testing.cassette(path, record="new"),
            monkeypatch.context() as patch,
        ):
            patch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
            call(f"{server.url}/v1")
        with ember_testing.cassette(path) as cassette:
            assert call(GONE) == pytest.approx(20e-6)
        assert cassette.played[0].cost == pytest.approx(20e-6)

    @pytest.mark.parametrize("variable", ["EMBER_MODEL_COSTS_JSON", "EMBER_COST_GPT4_INPUT"])
    def test_prices_that_change_between_two_calls_of_a_test_apply_to_the_later_one(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        """A variable set, changed and deleted during a recording: each call keeps its price."""
        with serving(chat) as server, ember_testing.cassette(path, record="new"):
            costs = [call(f"{server.url}/v1")]
            for seed, price in enumerate(("1", "2")):
                value = json.dumps({"gpt-4": {"input": int(price), "output": 2}})
                monkeypatch.setenv(variable, value if "JSON" in variable else price)
                costs.append(call(f"{server.url}/v1", seed=seed))
            monkeypatch.delenv(variable)
            costs.append(call(f"{server.url}/v1", seed=9))
        assert len(set(costs)) == 3
        with ember_testing.cassette(path):
            played = [call(GONE), call(GONE, seed=0), call(GONE, seed=1), call(GONE, seed=9)]
        assert played == costs

    def test_each_recording_keeps_its_own_price(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call added after a price change replays at the new price, the old one at the old."""
        with serving(chat) as server:
            with ember_testing.cassette(path, record="new"):
                call(f"{server.url}/v1")
            monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
            with ember_testing.cassette(path, record="new"):
                costs = [call(f"{server.url}/v1"), call(f"{server.url}/v1", seed=1)]
        monkeypatch.delenv("EMBER_MODEL_COSTS_JSON")
        assert costs == pytest.approx([0.0006, 20e-6])
        with ember_testing.cassette(path):
            assert [call(GONE, seed=1), call(GONE)] == costs[::-1]

    def test_two_open_streams_are_charged_each_at_its_own_price(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Streams recorded before and after a price change, read in turn, keep their own prices."""
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        last = {"delta": {"content": "ris"}, "finish_reason": "stop"}
        deltas = [{"delta": {"content": "Pa"}}, last]
        events = [{"model": "gpt-4", "choices": [{"index": 0, **each}]} for each in deltas]
        events.append({"model": "gpt-4", "choices": [], "usage": usage})
        pieces = [f"data: {json.dumps(each)}\n\n".encode() for each in events]

        def streams(base_url: str, *seeds: int) -> list[Any]:
            more = {"base_url": base_url, "api_key": "sk-x"}
            return [models.stream("gpt-4", "Paris", seed=seed, **more) for seed in seeds]

        with serving(lambda _: Reply(pieces=[*pieces, b"data: [DONE]\n\n"])) as server:
            costs: list[float] = []
            for seed in (1, 2):
                with ember_testing.cassette(path, record="new"):
                    (stream,) = streams(f"{server.url}/v1", seed)
                    list(stream)
                    costs.append(stream.response.usage.cost)
                monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
        monkeypatch.delenv("EMBER_MODEL_COSTS_JSON")
        assert costs == pytest.approx([0.0006, 20e-6])
        with ember_testing.cassette(path):
            opened = streams(GONE, 1, 2)
            parts = [iter(each) for each in opened]
            for _ in range(9):
                for part in parts:
                    next(part, None)
            assert [each.response.usage.cost for each in opened] == costs

    def test_call_added_during_a_new_recording_keeps_its_price(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that another process added during a new recording stays, with its price."""
        with serving(chat) as server:
            base = f"{server.url}/v1"
            with ember_testing.cassette(path, record="new"):
                call(base)
            monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
            with ember_testing.cassette(path, record="all"):
                call(base)
                with ember_testing.cassette(path, record="new") as other:
                    call(base, seed=7)
                assert len(other.recorded) == 1
        monkeypatch.delenv("EMBER_MODEL_COSTS_JSON")
        with ember_testing.cassette(path):
            assert [call(GONE), call(GONE, seed=7)] == pytest.approx([20e-6, 20e-6])

    def test_sessions_of_one_cassette_keep_their_prices_whichever_ends_first(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call's price is stored though a later call with the same one was read before it."""
        with serving(chat) as server:
            base = f"{server.url}/v1"
            with ember_testing.cassette(path, record="new"):
                call(base)
                with ember_testing.cassette(path, record="new"):
                    call(base, seed=7)
        monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
        with ember_testing.cassette(path):
            assert [call(GONE), call(GONE, seed=7)] == pytest.approx([0.0006, 0.0006])

    def test_a_dropped_recording_leaves_others_their_price(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The price stored with a failed test's call stays in force for another's later one."""
        with serving(chat) as server:
            base = f"{server.url}/v1"
            failed = Session(path, "new")
            activate(failed)
            try:
                call(base)
                assert failed.recorded[0].cost == pytest.approx(0.0006)
                with ember_testing.cassette(path, record="new"):
                    call(base, seed=7)
            finally:
                deactivate(failed)
                failed.close(passed=False)
        monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
        with ember_testing.cassette(path) as cassette:
            assert call(GONE, seed=7) == pytest.approx(0.0006)
            assert len(cassette) == 1


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def server() -> Any:
    """A server with a chat model."""
    with serving(chat) as server:
        yield server


def test_report_has_the_figures_of_the_summary(
    run: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """The JSON report has the counts and sums of the summary, also under xdist."""
    suite = SUITE.format(url=server.url, count=3)

    def totals(*arguments: str) -> dict[str, Any]:
        run(suite, "--ember-report=out/report.json", *arguments).assert_outcomes(passed=3)
        report = json.loads((pytester.path / "out/report.json").read_text())
        assert report["partial"] == []
        assert len(report["cassettes"]) == 3
        found: dict[str, Any] = report["totals"]
        return found

    first = totals("--ember-record")
    assert (first["recorded"], first["spent"]) == (3, pytest.approx(0.0018))
    for arguments in ((), ("-p", "xdist", "-n2")):
        again = totals(*arguments)
        assert (again["replayed"], again["saved"]) == (3, pytest.approx(0.0018))
        assert again["avoided"] > 0
        assert (again["recorded"], again["spent"], again["unused"], again["stale"]) == (0, 0, 0, 0)


def test_a_marker_can_ask_for_the_current_prices(
    run: Run, pytester: pytest.Pytester, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ember_replay(prices="current")` in a test; other values are refused."""
    suite = f"""
        import pytest
        from ember.api import models
        def cost():
            url = {server.url + "/v1"!r}
            return models("gpt-4", "Paris", base_url=url, api_key="sk-x").usage.cost
        @pytest.mark.ember_replay(cassette="c")
        def test_recorded(): assert cost() == pytest.approx(600e-6)
        @pytest.mark.ember_replay(cassette="c", prices="current", repeats="last")
        def test_current(pytestconfig):
            new = pytestconfig.getoption("ember_record")
            assert cost() == pytest.approx(600e-6 if new else 20e-6)
        """
    run(suite, "--ember-record").assert_outcomes(passed=2)
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)
    run(suite).assert_outcomes(passed=2)


def test_unused_recordings_of_a_shared_cassette_are_reported_after_all_its_tests(
    run: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """One test's run reports nothing; a run of all reports, and fails with `ember_unused=fail`."""
    body = """
import httpx, pytest
pytestmark = pytest.mark.ember_replay(cassette="shared")
def ask(text): httpx.post({url!r}, json={{"messages": [{{"content": text}}]}})
def test_one(): ask("1")
def test_two(): [ask(text) for text in {texts}]
"""
    run(body.format(url=server.url, texts=["2", "3"]), "--ember-record").assert_outcomes(passed=2)
    less = body.format(url=server.url, texts=["2"])
    warn = (less, "-o", "ember_unused=warn")
    run(*warn).stdout.fnmatch_lines(
        ["*1 unused recording*", "not used by any test: 1 recording of cassettes/shared*"]
    )
    run(*warn, "test_it.py::test_one").stdout.no_fnmatch_line("*unused*")
    assert run(less, "-o", "ember_unused=fail").ret == pytest.ExitCode.TESTS_FAILED
    assert run(less, "-o", "ember_unused=ignore").ret == pytest.ExitCode.OK


def test_a_call_cancelled_before_its_answer_began_is_a_recording(path: Path) -> None:
    """Its replay waits to be cancelled too; a caller that keeps waiting gets an error."""

    def slow(request: Received) -> Reply:
        return Reply(b"{}", delay=0.5)

    async def give_up(url: str, after: float) -> None:
        async with httpx.AsyncClient(verify=False) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.post(url, json={"q": 1}), after)

    with serving(slow) as server, ember_testing.cassette(path, record="new") as cassette:
        asyncio.run(give_up(f"{server.url}/v1", 0.1))
        assert [(each.outcome, each.status) for each in cassette.recorded] == [("cancelled", None)]
    with ember_testing.cassette(path):
        asyncio.run(give_up(GONE, 0.1))
    with (
        pytest.raises(ember_testing.CassetteMiss, match="its caller gave up before one came"),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as client,
    ):
        client.post(GONE, json={"q": 1})


def test_a_recording_that_cannot_begin_does_not_watch_prices(path: Path) -> None:
    """A damaged cassette refuses to be recorded to, and keeps nothing of the session."""
    path.write_text("no cassette")
    with pytest.raises(ember_testing.CassetteError), ember_testing.cassette(path, record="new"):
        raise AssertionError("recorded to a damaged file")
    assert not environment.before_price_change
