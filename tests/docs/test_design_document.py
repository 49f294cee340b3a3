"""The examples of the design document run as they are written, in a process of their own.

A process of its own because the document registers a provider in Azure's place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ember_testing import FakeModel, faults, no_sleep
from tests.markdown import Block, python_blocks, run

DOCUMENT = Path(__file__).parents[1] / "design" / "ember-model-system.md"
# The one block that is no program: `return` outside a function. test_registry.py proves what it
# says, one provider instance a model under threads.
NO_PROGRAM = "if model_id in self._models:  # Fast path: no lock"
BLOCKS = python_blocks(DOCUMENT)
RUNNING = [block for block in BLOCKS if NO_PROGRAM not in block.code]


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What the blocks print; the last line says what became of each, by its line."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.test_design_document"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.fixture(scope="module")
def outcomes(printed: list[str]) -> dict[str, str]:
    """What became of each block, by its line: "" or a traceback."""
    return cast("dict[str, str]", json.loads(printed[-1]))


def test_every_block_but_one_is_run() -> None:
    """All of the document's blocks but one are run, so that none is left out unnoticed."""
    assert len(BLOCKS) == 15
    assert len(BLOCKS) - len(RUNNING) == 1


@pytest.mark.parametrize("block", RUNNING, ids=lambda block: f"line{block.line}")
def test_block_runs(block: Block, outcomes: dict[str, str]) -> None:
    """A block of the design document runs as written, what it leaves undefined being given."""
    assert outcomes[str(block.line)] == ""


def test_blocks_print_what_their_comments_show(printed: list[str]) -> None:
    """Answer, token counts and costs are printed as the document's comments show them."""
    for line in (
        "An answer to What is the capital of France?",
        "Prompt tokens: 6",
        "Completion tokens: 9",
        "Total tokens: 15",
        "Cost: $0.0007",  # 6 tokens at 30 dollars a million, 9 at 60
        "GPT-4 Usage Summary:",
        "Total requests: 2",
        "An answer to Write a long story",
    ):
        assert line in printed


def block_with(text: str) -> Block:
    """The block that holds a text."""
    (block,) = (block for block in RUNNING if text in block.code)
    return block


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (faults.rate_limit(), "Rate limited - retry with exponential backoff"),
        (faults.authentication(), "Invalid API key"),
        (faults.overloaded(), "API error: "),
    ],
)
def test_each_error_takes_its_branch(
    fault: Any, says: str, fake_model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each branch of the document's error handling is taken by the error that it is for."""
    from ember.api import models

    fake_model("gpt-4", fault)
    run(block_with("except ModelProviderError as e:"), DOCUMENT, {"models": models})
    assert capsys.readouterr().out.startswith(says)


def test_missing_key_is_a_setup_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key the document's first branch is taken, and the message names the variable."""
    from ember.api import models

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    run(block_with("except ModelProviderError as e:"), DOCUMENT, {"models": models})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Setup error: no API key for openai: set the environment variable OPEN")
    assert second == "Set OPENAI_API_KEY environment variable"


def test_tenacity_retries_and_gives_up(fake_model: FakeModel) -> None:
    """The document's retried function gets past a rate limit, and gives up at the third."""
    from ember.api import models

    given = {"models": models, "prompts": ["One"], "__name__": "document"}
    fake_model("gpt-4", "for the block's own batch", faults.rate_limit(), "Paris")
    names = run(block_with("def reliable_completion"), DOCUMENT, given)
    ask = cast("Callable[[str], str]", names["reliable_completion"])
    with no_sleep():
        assert ask("What is the capital of France?") == "Paris"
        fake_model("gpt-4", *[faults.rate_limit()] * 3)
        with pytest.raises(Exception, match="RetryError"):
            ask("Again?")


@pytest.mark.skipif(shutil.which("bash") is None, reason="the block is for a shell")
def test_exports_of_the_document_set_keys_and_prices() -> None:
    """The document's exports, run by a shell, are the keys that are sent and the costs charged."""
    block = DOCUMENT.read_text(encoding="utf-8").split("```bash\n")[1].partition("```")[0]
    program = (
        "from ember.pricing.cost import cost\n"
        "from ember.models.routing import built_in\n"
        "from ember.models.schemas import UsageStats\n"
        "million = UsageStats(1_000_000, 1_000_000)\n"
        "for name in ('openai', 'anthropic', 'google'): print(built_in(name).api_key)\n"
        "for name in ('gpt-4', 'gpt-4-turbo', 'custom-model'): print(cost('openai', name, million))"
    )
    process = subprocess.run(
        ["bash", "-euc", f'{block}\n"$0" -W error -c "$1"', sys.executable, program],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env=os.environ | {"GEMINI_API_KEY": ""},
    )  # fmt: skip
    assert process.stdout.split() == ["sk-...", "sk-ant-...", "...", "90.0", "40.0", "20.0"]


def main() -> dict[str, str]:
    """Run the blocks in order, the network answered by fakes; returns what became of each."""
    from typing import Optional

    from ember.api import models
    from ember_testing import fake_model

    answered: list[str] = []
    given: dict[str, object] = {
        "__name__": "document",
        "models": models,
        "os": os,
        "Optional": Optional,
        "Response": object,
        "prompt": "Hello",
        "prompts": ["One", "Two", "Three"],
        "questions": ["One?", "Two?"],
        "code": "print('hi')",
        "image": b"\x89PNG\r\n\x1a\n" + bytes(8),
        "process_response": lambda response: answered.append(response.text),
        "azure_openai_call": lambda endpoint, prompt, model, **more: {
            "choices": [{"message": {"content": f"{model} at {endpoint}: {prompt}"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        },
    }
    outcomes: dict[str, str] = {}
    with fake_model() as fake:
        fake("*", lambda call: f"An answer to {call.prompt}")
        for block in RUNNING:
            try:
                run(block, DOCUMENT, dict(given))
                outcomes[str(block.line)] = ""
            except Exception:
                outcomes[str(block.line)] = traceback.format_exc()
    assert answered == ["An answer to One?", "An answer to Two?"]
    return outcomes


if __name__ == "__main__":
    result = main()
    print(f"\n{json.dumps(result)}")
