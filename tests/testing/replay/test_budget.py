"""The budget of a recording: estimates, and refusal of calls that might exceed it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_testing
from ember_testing import BudgetExceeded
from ember_testing.replay.budget import BYTES_A_TOKEN, UNLIMITED_OUTPUT, estimate
from tests.loopback import Loopback, Reply, serving
from tests.testing.chat import SUITE, ask, chat

OPENAI = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/{}:generateContent"
# US dollars per token, as `PRICES` sets for every model below.
INPUT, OUTPUT = 1e-6, 100e-6
PRICES = json.dumps({"priced": {"input": INPUT * 1e6, "output": OUTPUT * 1e6}})


@pytest.fixture
def _prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBER_MODEL_COSTS_JSON", PRICES)


def estimated(url: str, body: dict[str, Any]) -> float | None:
    """Return the estimate of a call to the model `priced`."""
    return estimate("POST", url.format("priced"), json.dumps({"model": "priced", **body}).encode())


def size(body: dict[str, Any]) -> int:
    """Return the input tokens estimated for a body."""
    return math.ceil(len(json.dumps({"model": "priced", **body})) / BYTES_A_TOKEN)


@pytest.mark.usefixtures("_prices")
@pytest.mark.parametrize(
    ("url", "body", "output"),
    [
        (OPENAI, {}, UNLIMITED_OUTPUT),
        (OPENAI, {"max_tokens": 20}, 20),
        (OPENAI, {"max_completion_tokens": 20}, 20),
        (OPENAI, {"max_tokens": None}, UNLIMITED_OUTPUT),
        (OPENAI, {"max_tokens": "20"}, UNLIMITED_OUTPUT),
        (OPENAI, {"max_tokens": 20, "n": 3}, 60),
        (OPENAI, {"n": 3}, 3 * UNLIMITED_OUTPUT),
        (OPENAI, {"max_tokens": 0}, 0),
        (RESPONSES, {"max_output_tokens": 30, "input": "hi"}, 30),
        (ANTHROPIC, {"max_tokens": 40, "messages": []}, 40),
        (GOOGLE, {"generationConfig": {"maxOutputTokens": 50}}, 50),
        (GOOGLE, {"generationConfig": {"maxOutputTokens": 50, "candidateCount": 2}}, 100),
        (GOOGLE, {"generationConfig": []}, UNLIMITED_OUTPUT),
    ],
)
def test_a_call_is_estimated_by_its_bytes_and_its_limit(
    url: str, body: dict[str, Any], output: int
) -> None:
    """The estimate is a token per three bytes sent, plus the output that the limit allows."""
    expected = size(body) * INPUT + output * OUTPUT
    assert estimated(url, body) == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("_prices")
def test_an_image_is_counted_with_its_base64() -> None:
    """The bytes of an image inside the body count like any other."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": [picture]}]}
    found = estimated(OPENAI, body)
    assert found is not None
    assert found == pytest.approx(size(body) * INPUT + OUTPUT, rel=1e-12)
    assert found > 10_000 * INPUT


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", OPENAI, b""),
        ("POST", "https://api.openai.com/v1/embeddings", b'{"model": "gpt-4"}'),
        ("POST", OPENAI, b"no JSON"),
        ("POST", OPENAI, b"[]"),
    ],
)
def test_request_to_no_model_has_no_estimate(method: str, url: str, body: bytes) -> None:
    """Other requests have no estimate and are sent whatever budget is left."""
    assert estimate(method, url, body) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", ["nobodys-model", "", None, 7])
def test_estimate_without_a_price_is_nan(model: object) -> None:
    """It is nan, which is no amount, and causes no warning."""
    found = estimate("POST", OPENAI, json.dumps({"model": model}).encode())
    assert found is not None
    assert math.isnan(found)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=200),
    limit=st.integers(1, 10_000),
    answers=st.integers(1, 4),
    share=st.floats(0, 1),
)
def test_cost_never_exceeds_the_estimate(text: str, limit: int, answers: int, share: float) -> None:
    """A call's cost is below its estimate if tokens have at least three bytes of the body."""
    body = {
        "model": "gpt-4",
        "max_tokens": limit,
        "n": answers,
        "messages": [{"role": "user", "content": text}],
    }
    found = estimate("POST", OPENAI, json.dumps(body).encode())
    assert found is not None
    written = int(limit * answers * share)
    read = len(json.dumps(text)) // BYTES_A_TOKEN
    assert read * 30e-6 + written * 60e-6 <= found


# 31 tokens of input (91 bytes) at 30 dollars per million, 20 of output at 60.
MOST = 0.0022


class TestBudget:
    """A call that might not fit is not sent."""

    def test_budget_stops_before_the_call_that_might_exceed_it(self, path: Path) -> None:
        """No retry or `except Exception` swallows the error, and earlier recordings are kept."""
        attempts: list[int] = []
        with serving(chat) as server:
            with (
                pytest.raises(BudgetExceeded, match=r"may cost \$0\.00.*of the budget of \$0\.003"),
                ember_testing.cassette(path, record="new", budget=0.003) as cassette,
            ):
                for attempt in range(5):
                    attempts.append(attempt)
                    try:
                        ask(server.url, f"question {attempt}")
                    except Exception:
                        continue
            assert len(server.received) == len(cassette.recorded) == attempts[-1] == 1

    def test_cost_of_a_call_replaces_its_estimate(self, path: Path) -> None:
        """Calls of $0.0006 go on until the next one's estimate does not fit."""
        with serving(chat) as server:
            with (
                pytest.raises(BudgetExceeded),
                ember_testing.cassette(path, record="new", budget=0.0045) as cassette,
            ):
                for i in range(99):
                    ask(server.url, str(i))
            # Four at $0.0006 are $0.0024; with another $0.0022 they exceed $0.0045.
            assert len(cassette.recorded) == len(server.received)
            assert 3 <= len(server.received) <= 5

    def test_concurrent_calls_cannot_exceed_the_budget(self, path: Path) -> None:
        """Of concurrent calls only as many are sent as fit by their estimates."""
        with serving(lambda request: Reply(chat(request).body, delay=0.2)) as server:
            with (
                pytest.raises(BudgetExceeded),
                ember_testing.cassette(path, record="new", budget=2.5 * MOST),
                ThreadPoolExecutor(8) as pool,
            ):
                futures = [pool.submit(ask, server.url, str(i)) for i in range(8)]
                for future in futures:
                    future.exception()
            assert len(server.received) == 2

    def test_call_without_a_price_is_not_sent(self, path: Path) -> None:
        """A model without a price cannot be budgeted; the error names the variable to set."""
        body = {"model": "my-model", "messages": []}
        with serving() as server:
            with (
                pytest.raises(BudgetExceeded, match="set EMBER_COST_MYMODEL_INPUT and _OUTPUT"),
                ember_testing.cassette(path, record="new", budget=1.0),
            ):
                httpx.post(f"{server.url}/v1/chat/completions", json=body)
            assert not server.received

    def test_replayed_calls_and_other_requests_cost_nothing(self, path: Path) -> None:
        """A budget of 0 lets both through."""
        with serving(chat) as server:
            with ember_testing.cassette(path, record="new"):
                ask(server.url, "Paris")
            with (
                pytest.raises(BudgetExceeded),
                ember_testing.cassette(path, record="new", budget=0.0),
            ):
                ask(server.url, "Paris")
                with serving() as other:
                    assert httpx.get(f"{other.url}/models").status_code == 200
                ask(server.url, "Rome")
            assert len(server.received) == 1

    @pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf")])
    def test_invalid_budget_is_refused(self, path: Path, budget: float) -> None:
        """An invalid limit is an error with the value and what is expected."""
        with (
            pytest.raises(ValueError, match="expected US dollars"),
            ember_testing.cassette(path, budget=budget),
        ):
            pytest.fail("accepted")


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def server() -> Any:
    """A server with a chat model."""
    with serving(chat) as server:
        yield server


def test_the_budget_of_a_run_fails_the_test_that_would_exceed_it(
    run: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """`--ember-budget` counts across tests: the first are recorded, the others are not sent."""
    suite = SUITE.format(url=server.url, count=4)
    result = run(suite, "--ember-record", "--ember-budget=0.0031")
    result.stdout.fnmatch_lines(["*not sent: it may cost*of the budget of $0.0031*"])
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == len(server.received) in (2, 3)
    assert outcomes["failed"] == 4 - len(server.received)
    for wrong in ("-1", "ten", "nan"):
        assert run(suite, f"--ember-budget={wrong}").ret == pytest.ExitCode.USAGE_ERROR


def test_worker_processes_share_one_budget(
    run: Run, pytester: pytest.Pytester, server: Loopback
) -> None:
    """Under pytest-xdist two workers together spend no more than one."""
    pytest.importorskip("xdist")
    suite = SUITE.format(url=server.url, count=8)
    result = run(suite, "-p", "xdist", "-n2", "--ember-record", "--ember-budget=0.0031")
    assert result.parseoutcomes()["passed"] == len(server.received) in (1, 2, 3)


@pytest.mark.usefixtures("_prices")
@pytest.mark.filterwarnings("ignore:.*not kept. status 429:ember_testing.RecordingWarning")
@pytest.mark.parametrize("record_errors", [False, True])
def test_free_answer_releases_its_estimate(tmp_path: Path, record_errors: bool) -> None:
    """Two 429 answers, a refused connection and a redirect leave the budget for the next call."""
    moved = Reply(b"", status=307, headers={"location": "/v1/chat/completions"})
    replies = [moved, Reply(b"{}", status=429), Reply(b"{}", status=429)]
    estimate_of_one = 100 * OUTPUT + 40 * INPUT

    def answer(request: Any) -> Reply:
        return replies.pop() if replies else chat(request, "priced")

    body = {
        "model": "priced",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
    }
    with (
        serving(answer) as server,
        ember_testing.cassette(
            tmp_path / "c.sqlite",
            record="new",
            record_errors=record_errors,
            budget=1.5 * estimate_of_one,
        ),
        httpx.Client(verify=False, follow_redirects=True) as sender,
    ):
        url = f"{server.url}/v1/chat/completions"
        with pytest.raises(httpx.ConnectError):
            sender.post("http://127.0.0.1:1/v1/chat/completions", json=body)
        assert [sender.post(url, json=body).status_code for _ in range(3)] == [429, 429, 200]
        assert len(server.received) == 4
