"""Bulk work on an engine made for it: a binding goes to the workers of a real Dask cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.loopback import Received, Reply, serving
from tests.markdown import python_blocks
from tests.ways import completion

ROOT = Path(__file__).parents[3]
PROMPTS = [f"Question {number}" for number in range(10_000)]
REFUSED = {f"Question {number}" for number in range(7, 10_000, 1000)}

# Put into the guide's program: a worker dies while it works, and what came of it is shown.
KILL = """
        import os, signal, threading
        victim = next(iter(cluster.run(os.getpid).values()))
        threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
"""
SHOW = """
    import json, sys
    json.dump(
        {
            "prompts": [prompt for prompt, _ in results],
            "failures": [(prompt, error.error_type) for prompt, error in failures],
            "own": all(response.text == prompt for prompt, response in answers),
            "usage": usage.as_dict(),
        },
        sys.stdout,
    )
"""


def program() -> str:
    """The guide's program, with what is put into it."""
    (block,) = (
        b.code for b in python_blocks(ROOT / "ember" / "README.md") if "distributed" in b.code
    )
    start, work, rest = block.partition("        results = ")
    assert work
    return start + KILL.lstrip("\n") + work + rest + SHOW


def answering(received: Received) -> Reply:
    """Answers each prompt with itself, as many prompt tokens as its number; refuses a few."""
    (message,) = received.json()["messages"]
    prompt = message["content"]
    if prompt in REFUSED:
        error = {"message": "too many requests", "type": "rate_limit_error"}
        return Reply(json.dumps({"error": error}).encode(), status=429)
    number = int(prompt.rpartition(" ")[2])
    usage = {"prompt_tokens": number, "completion_tokens": 3, "total_tokens": number + 3}
    return Reply(json.dumps(completion(prompt, usage=usage)).encode())


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra `bulk` is not installed"
)
def test_ten_thousand_prompts_on_a_cluster(tmp_path: Path) -> None:
    """Every prompt has its answer or its error, though a worker is killed; the sums are exact."""
    # In a process of its own: `distributed` changes how every exception pickles.
    (tmp_path / "bulk.py").write_text(program())
    with serving(answering) as server:
        done = subprocess.run(
            [sys.executable, "bulk.py"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "OPENAI_API_KEY": "sk-bulk",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(server.received) >= len(PROMPTS)
    assert "Restarting worker" in done.stderr
    printed, outcome = done.stdout.splitlines()
    result = json.loads(outcome)
    assert result["prompts"] == PROMPTS
    assert result["own"]
    assert dict(result["failures"]) == dict.fromkeys(REFUSED, "rate_limit")
    answered = [int(prompt.rpartition(" ")[2]) for prompt in PROMPTS if prompt not in REFUSED]
    # gpt-4: 30 and 60 dollars a million tokens.
    cost = (Decimal(sum(answered)) * 30 + Decimal(3 * len(answered)) * 60) / 1_000_000
    usage = result["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        sum(answered),
        3 * len(answered),
    )
    assert usage["cost"] == float(cost)
    assert printed == f"{usage['total_tokens']} {usage['cost']} {len(REFUSED)}"
