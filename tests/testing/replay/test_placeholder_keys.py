"""Recordings made with a key are replayed without one."""

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
    """A call recorded with a key is replayed without one; the environment is restored."""
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


def test_existing_key_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay neither replaces nor loses a key of the environment."""
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


def test_the_vendors_packages_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of other vendors' packages are set as well, such as AWS's pair of keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("VOYAGE_API_KEY", "my-own")
    monkeypatch.setenv("HOME", str(tmp_path))
    with cassette(tmp_path / "none.sqlite"):
        assert os.environ["AWS_ACCESS_KEY_ID"]
        assert os.environ["AWS_SECRET_ACCESS_KEY"]
        assert os.environ["HF_TOKEN"].startswith("hf_")  # decides which host it is sent to
        assert os.environ["VOYAGE_API_KEY"] == "my-own"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} & {*os.environ}


def test_no_aws_keys_are_set_beside_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No AWS keys are set beside a profile or token: botocore would prefer them."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    with cassette(tmp_path / "none.sqlite"):
        assert "AWS_ACCESS_KEY_ID" not in os.environ


def test_no_aws_keys_are_set_beside_a_credentials_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No AWS keys are set if a credentials file exists: botocore would prefer them to it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    file.write_text("[default]\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with cassette(tmp_path / "none.sqlite"):
        assert "AWS_ACCESS_KEY_ID" not in os.environ
