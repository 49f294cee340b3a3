"""The examples of the design document run as they are written, in a process of their own.

A process of its own because the document registers a provider in Azure's place.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.markdown import Block, python_blocks, run

DOCUMENT = Path(__file__).parent / "design" / "ember-model-system.md"
# The one block that is no program: `return` outside a function. test_registry.py proves what it
# says, one provider instance a model under threads.
NO_PROGRAM = "if model_id in self._models:  # Fast path: no lock"
BLOCKS = python_blocks(DOCUMENT)
RUNNING = [block for block in BLOCKS if NO_PROGRAM not in block.code]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What became of each block, by its line: "" or a traceback."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.test_design_document"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    outcomes: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return outcomes


def test_document_has_its_blocks() -> None:
    """All of the document's blocks but one are run, so that none is left out unnoticed."""
    assert len(BLOCKS) == 15
    assert len(BLOCKS) - len(RUNNING) == 1


@pytest.mark.parametrize("block", RUNNING, ids=lambda block: f"line{block.line}")
def test_block_runs(block: Block, outcomes: dict[str, str]) -> None:
    """A block of the design document runs as written, what it leaves undefined being given."""
    assert outcomes[str(block.line)] == ""


def main() -> dict[str, str]:
    """Run the blocks in order, the network answered by fakes; returns what became of each."""
    import os
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
