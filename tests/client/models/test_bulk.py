"""Bulk work: a binding is sent to the workers of real Dask and Ray clusters."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Received, Reply, serving
from tests.markdown import python_blocks
from tests.ways import completion

ROOT = Path(__file__).parents[3]
PROMPTS = [f"Question {number}" for number in range(10_000)]
REFUSED = {f"Question {number}" for number in range(7, 10_000, 1000)}

# Inserted into the guide's program: kill a worker as it runs, and print the results.
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

RAY = """
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
import ray
from ember.api import models
from ember.api.exceptions import EmberError
from ember.api.models.schemas import UsageStats

ask = models.instance("gpt-5.6-sol", temperature=0)

def answered(batch):
    if "Question 5000" in batch["prompt"] and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    def one(prompt):
        try:
            response = ask(prompt)
        except EmberError as error:
            return "", error.error_type, 0, 0, 0.0
        usage = response.usage
        return response.text, "", usage.prompt_tokens, usage.completion_tokens, usage.cost
    with ThreadPoolExecutor(4) as pool:
        columns = zip(*pool.map(one, batch["prompt"]), strict=True)
    names = ("text", "error", "prompt_tokens", "completion_tokens", "cost")
    return {"prompt": batch["prompt"], **dict(zip(names, map(list, columns), strict=True))}

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    prompts = [{"prompt": f"Question {number}"} for number in range(10_000)]
    data = ray.data.from_items(prompts, override_num_blocks=50)
    results = data.map_batches(answered, batch_size=200).take_all()
    results.sort(key=lambda row: int(row["prompt"].rpartition(" ")[2]))
    failures = [(row["prompt"], row["error"]) for row in results if row["error"]]
    answers = [row for row in results if not row["error"]]
    usage = sum(
        (
            UsageStats(row["prompt_tokens"], row["completion_tokens"], cost=row["cost"])
            for row in answers
        ),
        UsageStats(),
    )
    import json
    json.dump(
        {
            "prompts": [row["prompt"] for row in results],
            "failures": failures,
            "own": all(row["text"] == row["prompt"] for row in answers),
            "usage": usage.as_dict(),
        },
        sys.stdout,
    )
"""


def program() -> str:
    """The guide's program with the insertions."""
    (block,) = (
        b.code for b in python_blocks(ROOT / "ember" / "README.md") if "distributed" in b.code
    )
    start, work, rest = block.partition("        results = ")
    assert work
    return start + KILL.lstrip("\n") + work + rest + SHOW


def answering(received: Received) -> Reply:
    """Echo each prompt, with its number as the prompt tokens; refuse a few prompts."""
    (message,) = received.json()["messages"]
    prompt = message["content"]
    if prompt in REFUSED:
        error = {"message": "too many requests", "type": "rate_limit_error"}
        return Reply(json.dumps({"error": error}).encode(), status=429)
    number = int(prompt.rpartition(" ")[2])
    usage = {"prompt_tokens": number, "completion_tokens": 3, "total_tokens": number + 3}
    return Reply(json.dumps(completion(prompt, usage=usage)).encode())


def run(folder: Path, code: str) -> tuple[list[str], str]:
    """The stdout and stderr of a program whose calls a local server answers."""
    # In a separate process: `distributed` changes how every exception pickles.
    (folder / "bulk.py").write_text(code)
    with serving(answering) as server:
        done = subprocess.run(
            [sys.executable, "bulk.py"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "OPENAI_API_KEY": "sk-bulk",
            },
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(server.received) >= len(PROMPTS)
    return done.stdout.splitlines(), done.stderr


def judge(outcome: str) -> dict[str, Any]:
    """The sums of a run, after a check that each prompt has its own answer or error."""
    result = json.loads(outcome)
    assert result["prompts"] == PROMPTS
    assert result["own"]
    assert dict(result["failures"]) == dict.fromkeys(REFUSED, "rate_limit")
    answered = [int(prompt.rpartition(" ")[2]) for prompt in PROMPTS if prompt not in REFUSED]
    # gpt-4: 30 and 60 dollars a million tokens.
    cost = (Decimal(sum(answered)) * 30 + Decimal(3 * len(answered)) * 60) / 1_000_000
    usage: dict[str, Any] = result["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        sum(answered),
        3 * len(answered),
    )
    assert usage["cost"] == float(cost)
    return usage


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra `bulk` is not installed"
)
def test_ten_thousand_prompts_on_a_cluster(tmp_path: Path) -> None:
    """Every prompt has its answer or error though a worker is killed, and the sums are exact."""
    (printed, outcome), errors = run(tmp_path, program())
    assert "Restarting worker" in errors
    usage = judge(outcome)
    assert printed == f"{usage['total_tokens']} {usage['cost']} {len(REFUSED)}"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)
def test_ten_thousand_prompts_by_map_batches(tmp_path: Path) -> None:
    """The same with Ray's workers, which get the same binding."""
    printed, _ = run(tmp_path, RAY)
    assert (tmp_path / "killed").exists()
    judge(printed[-1])
