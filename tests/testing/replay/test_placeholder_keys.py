"""A recording is made with a key, and replayed where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ember.api import models
from ember.api.exceptions import ModelProviderError
from ember_testing import CassetteMiss, cassette
from tests.loopback import Reply, serving

ANSWER = {
    "model": "gpt-4",
    "choices": [{"index": 0, "message": {"content": "Paris"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def test_a_replay_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded with a key is replayed without one, and the environment is as it was."""
    path = tmp_path / "c.sqlite"
    with serving(lambda request: Reply(json.dumps(ANSWER).encode())) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-one-who-recorded")
        with cassette(path, record="new"):
            assert models("gpt-4", "What is the capital of France?").text == "Paris"
    monkeypatch.delenv("OPENAI_API_KEY")
    with cassette(path):
        assert models("gpt-4", "What is the capital of France?").text == "Paris"
    assert "OPENAI_API_KEY" not in os.environ
    assert b"sk-of-the-one-who-recorded" not in path.read_bytes()


def test_a_key_that_is_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the environment holds is not replaced, nor lost, by a replay."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-my-own-key")
    with pytest.raises(CassetteMiss), cassette(tmp_path / "none.sqlite"):
        assert os.environ["OPENAI_API_KEY"] == "sk-my-own-key"
        models("gpt-4", "hi")
    assert os.environ["OPENAI_API_KEY"] == "sk-my-own-key"


def test_recording_needs_a_key(tmp_path: Path) -> None:
    """Recording without a key says which variable to set, and no file is made."""
    path = tmp_path / "c.sqlite"
    with pytest.raises(ModelProviderError, match="OPENAI_API_KEY"), cassette(path, record="new"):
        models("gpt-4", "hi")
    assert not path.exists()
