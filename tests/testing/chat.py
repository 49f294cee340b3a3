"""A chat model on this machine, and httpx clients that call it and other servers."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.loopback import Received, Reply

KEY = "sk-live-0123456789abcdefghijklmnop"


def chat(request: Received, model: str = "gpt-4-0613", **more: Any) -> Reply:
    """A chat completion that repeats the question."""
    question = request.json()["messages"][-1]["content"]
    message = {"role": "assistant", "content": f"About {question}."}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c1", "model": model, "choices": [choice], "usage": usage, **more}
    return Reply(json.dumps(body).encode(), headers={"content-type": "application/json"})


def client() -> httpx.Client:
    """A client that loads no trust store, which takes 20 ms."""
    return httpx.Client(verify=False)


def post(url: str, body: Any, **more: Any) -> httpx.Response:
    """One call by a client of its own."""
    with client() as sender:
        return sender.post(f"{url}/v1", json=body, **more)


def ask(url: str, *questions: str) -> None:
    """Calls to a chat model."""
    with httpx.Client(verify=False) as client:
        for question in questions:
            messages = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": question},
            ]
            client.post(
                f"{url}/v1/chat/completions",
                json={"model": "gpt-4", "max_tokens": 20, "messages": messages},
                headers={"authorization": f"Bearer {KEY}"},
            )


# A suite for pytester: `count` tests, each with a question of its own for the model at `url`.
SUITE = """
import httpx, pytest
def ask(text):
    with httpx.Client(verify=False) as client:
        client.post({url!r} + "/v1/chat/completions", json={{
            "model": "gpt-4", "max_tokens": 20, "messages": [{{"role": "user", "content": text}}]}})
@pytest.mark.ember_replay
@pytest.mark.parametrize("i", range({count}))
def test_one(i): ask(str(i))
"""
