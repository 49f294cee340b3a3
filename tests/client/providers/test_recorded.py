"""Real traffic of the embedded model on all three wires, replayed from `cassettes/`.

This is a real model's traffic in the providers' formats, not a recording of the providers. Record
it again with `pytest tests/client/providers/test_recorded.py --ember-record=all`, which needs
the embedded model and llm-rosetta; replaying needs neither.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Generator
from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from tests.provider_servers import GATEWAY_URL, KEY, MODEL_URL, provider_servers

QUESTION = "Name three primary colors."

WIRES = {
    "openai": {"model": "openai/smollm2-135m", "base_url": f"{MODEL_URL}/v1"},
    "anthropic": {"model": "anthropic/smollm2-135m", "base_url": MODEL_URL},
    "google": {"model": "google/smollm2-135m", "base_url": GATEWAY_URL},
    "local": {"model": "local/smollm2"},
}
# llama.cpp accepts an unknown model; the gateway refuses it with each wire's error.
THROUGH_GATEWAY = {
    "openai": {"model": "openai/none-such", "base_url": f"{GATEWAY_URL}/v1"},
    "anthropic": {"model": "anthropic/none-such", "base_url": GATEWAY_URL},
    "google": {"model": "google/none-such", "base_url": GATEWAY_URL},
}

pytestmark = [
    pytest.mark.ember_replay(record_errors=True),
    # No price: the model is called under three providers that do not offer it.
    pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _servers(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """Start the servers to record from, which a replay does not need."""
    if pytestconfig.getoption("ember_record") in (None, "none"):
        yield
        return
    with provider_servers(tmp_path_factory.mktemp("servers")):
        yield


def arguments(wire: dict[str, str], **more: Any) -> dict[str, Any]:
    """The arguments of a call on this wire."""
    key = {} if wire["model"].startswith("local/") else {"api_key": KEY}
    return {**wire, **key, "max_tokens": 40, "temperature": 0, **more}


@pytest.mark.parametrize("wire", WIRES)
def test_plain_answer(wire: str) -> None:
    """A whole answer of a real model is read with its tokens, finish reason and model."""
    response = models(prompt=QUESTION, **arguments(WIRES[wire]))
    assert "red" in response.text.lower()
    assert response.usage.prompt_tokens > 5
    assert 5 < response.usage.completion_tokens <= 40
    assert response.finish_reason in ("stop", "length")
    assert response.model == "smollm2-135m"
    # Only the embedded model has a price, which is 0; the others' is unknown.
    assert response.usage.cost == 0 if wire == "local" else math.isnan(response.usage.cost)


@pytest.mark.parametrize("wire", WIRES)
def test_streamed_answer(wire: str) -> None:
    """A streamed answer arrives in many pieces and has the same fields as a whole one."""
    with models.stream(prompt=QUESTION, **arguments(WIRES[wire])) as stream:
        pieces = [chunk.text for chunk in stream]
    assert len(pieces) > 5
    assert "".join(pieces) == stream.text == stream.response.text
    assert "red" in stream.text.lower()
    assert stream.usage.prompt_tokens > 5
    assert 5 < stream.usage.completion_tokens <= 40
    assert stream.response.finish_reason in ("stop", "length")


@pytest.mark.parametrize("wire", WIRES)
def test_asynchronous_answers(wire: str) -> None:
    """Concurrent and streamed asyncio calls are recorded and replayed like others."""

    async def ask() -> tuple[list[str], str]:
        answers = await asyncio.gather(
            *(
                models.acall(prompt=f"Say the number {n}.", **arguments(WIRES[wire], max_tokens=8))
                for n in range(3)
            )
        )
        stream = models.astream(prompt=QUESTION, **arguments(WIRES[wire], max_tokens=8))
        streamed = "".join([chunk.text async for chunk in stream])
        return [answer.text for answer in answers], streamed

    answers, streamed = asyncio.run(ask())
    assert all(answers)
    assert streamed


@pytest.mark.parametrize("wire", WIRES)
def test_stop_and_system_are_obeyed(wire: str) -> None:
    """`stop` and `system` reach the model under each wire's own names."""
    response = models(
        prompt=QUESTION, **arguments(WIRES[wire], system="You are a painter.", stop=[" "])
    )
    assert response.text
    assert " " not in response.text
    assert response.finish_reason == "stop"


@pytest.mark.parametrize("wire", ["openai", "anthropic", "google"])
def test_wrong_key(wire: str) -> None:
    """A wrong key is `authentication` on every wire, and is not in the error."""
    wrong = "sk-wrong-0123456789abcdef"
    with pytest.raises(ProviderAPIError) as caught:
        models(prompt=QUESTION, **arguments(WIRES[wire], api_key=wrong))
    assert caught.value.error_type == "authentication"
    assert caught.value.context["status_code"] == 401
    assert not caught.value.retryable
    assert wrong not in repr(caught.value.context) + str(caught.value)


@pytest.mark.parametrize("wire", THROUGH_GATEWAY)
def test_unknown_model(wire: str) -> None:
    """A model that the server does not have is `not_found`, in each wire's own error body."""
    with pytest.raises(ProviderAPIError) as caught:
        models(prompt=QUESTION, **arguments(THROUGH_GATEWAY[wire]))
    assert caught.value.error_type == "not_found"
    assert caught.value.context["status_code"] == 404


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_prompt_too_long(wire: str, stream: bool) -> None:
    """A prompt beyond the model's context is `context_length`, streamed or not."""
    prompt = "word " * 3000
    with pytest.raises(ProviderAPIError) as caught:
        if stream:
            list(models.stream(prompt=prompt, **arguments(WIRES[wire])))
        else:
            models(prompt=prompt, **arguments(WIRES[wire]))
    assert caught.value.error_type == "context_length"


def test_no_key_is_in_any_cassette(pytestconfig: pytest.Config) -> None:
    """The key used for recording is in none of the files."""
    folder = pytestconfig.rootpath / "cassettes"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes(), os.fspath(path)
