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
from tests.ways import completion

ROOT = Path(__file__).parent.parent
PROMPTS = [f"Question {number}" for number in range(10_000)]
REFUSED = {f"Question {number}" for number in range(7, 10_000, 1000)}

# In a process of its own, as `distributed` changes how every exception pickles.
PROGRAM = """
import json, os, signal, sys, threading
import dask.bag
from distributed import Client
from ember.api import models
from ember.api.exceptions import EmberError
from ember.api.models.schemas import UsageStats

ask = models.instance("gpt-4", temperature=0)

def answered(prompt):
    try:
        return prompt, ask(prompt)
    except EmberError as error:
        return prompt, error

if __name__ == "__main__":
    prompts = json.load(sys.stdin)
    with Client(n_workers=2, threads_per_worker=4, dashboard_address=None) as cluster:
        victim = next(iter(cluster.run(os.getpid).values()))
        threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
        results = dask.bag.from_sequence(prompts, npartitions=200).map(answered).compute()
        killed = victim not in cluster.run(os.getpid).values()
    failures = [(p, e.error_type) for p, e in results if isinstance(e, EmberError)]
    answers = [(p, r) for p, r in results if not isinstance(r, EmberError)]
    json.dump(
        {
            "killed": killed,
            "prompts": [prompt for prompt, _ in results],
            "failures": failures,
            "own": all(response.text == prompt for prompt, response in answers),
            "usage": sum((r.usage for _, r in answers), UsageStats(cost=0.0)).as_dict(),
        },
        sys.stdout,
    )
"""


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


@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra `bulk` is not installed"
)
def test_ten_thousand_prompts_on_a_cluster(tmp_path: Path) -> None:
    """Every prompt has its answer or its error, though a worker is killed; the sums are exact."""
    program = tmp_path / "bulk.py"
    program.write_text(PROGRAM)
    with serving(answering) as server:
        done = subprocess.run(
            [sys.executable, str(program)],
            input=json.dumps(PROMPTS),
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
    result = json.loads(done.stdout)
    assert result["killed"]
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
