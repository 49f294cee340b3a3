"""Another project that uses the built wheel: its marker, fixtures and strategies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ember_testing import fault_server

APP = """
from ember.api import models
from ember.api.exceptions import ProviderAPIError


def capital(country):
    question = f"What is the capital of {country}?"
    try:
        return models("gpt-4", question).text
    except ProviderAPIError as error:
        if not error.retryable:
            raise
        return models("claude-3-opus", question).text
"""
TESTS = """
import ember
import pytest
from app import capital
from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember_testing import fake_model as faking
from ember_testing import strategies
from ember_testing.faults import overloaded, quota, rate_limit
from hypothesis import given


def test_it_is_the_wheel():
    assert "unpacked" in ember.__file__


def test_falls_back(fake_model):
    fake_model("gpt-4", rate_limit(retry_after=2))
    fake_model("claude-*", "Paris")
    assert capital("France") == "Paris"
    assert [call.provider for call in fake_model.calls] == ["openai", "anthropic"]
    assert fake_model.verdict().ok


def test_tells_that_the_money_is_out(fake_model):
    fake_model("gpt-4", quota())
    with pytest.raises(ProviderAPIError, match="quota"):
        capital("France")


@given(country=strategies.prompts())
def test_any_country(country):
    with faking() as fake:
        fake("gpt-4", lambda call: call.prompt)
        assert country in capital(country)


@pytest.mark.ember_replay
def test_recorded(cassette):
    assert capital("France") == "Paris"
    assert len(cassette.played) + len(cassette.recorded) == 1


@pytest.mark.ember_replay(faults={1: overloaded(retry_after=1)})
def test_recorded_and_broken():
    try:
        answer = models("gpt-4", "What is the capital of France?")
    except ProviderAPIError as error:
        assert error.retry_after == 1
        answer = models("gpt-4", "What is the capital of France?")
    assert answer.text == "Paris"
"""


@pytest.mark.slow
def test_a_project_that_installs_the_wheel(tmp_path: Path, unpacked_wheel: Path) -> None:
    """A project with the wheel records, replays without the server, fakes and generates."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").write_text(APP)
    (project / "test_app.py").write_text(TESTS)
    (project / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")

    def run(url: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
            cwd=project,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(unpacked_wheel), str(project)]),
                "OPENAI_API_KEY": "sk-of-a-project",
                "OPENAI_BASE_URL": f"{url}/v1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with fault_server() as server:
        server("gpt-4", "Paris", "Paris")
        assert "6 passed" in run(server.url, "--ember-record")
        assert len(server.calls) == 2
    output = run(server.url)
    assert "6 passed" in output
    assert "2 replayed, 0 recorded" in output
    assert sorted(path.suffix for path in project.rglob("*.sqlite")) == [".sqlite"] * 2
