"""The verdict on retrying code: waits, retry storms, partial answers taken as complete."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember.api.models.schemas import ChatResponse
from ember_testing import FakeModel, no_sleep
from ember_testing.faults import (
    Fault,
    authentication,
    context_length,
    cut,
    empty_body,
    garbage,
    overloaded,
    quota,
    rate_limit,
    server_error,
)
from tests.markdown import python_blocks, run

GUIDE = Path(__file__).parents[3] / "ember" / "README.md"


def recipe() -> Callable[[str], str]:
    """Return the guide's function with tenacity, defined by the guide's code block."""
    (block,) = [block for block in python_blocks(GUIDE) if "reliable_completion" in block.code]
    code = block.code.replace('print(reliable_completion("Hello"))', "")
    function: Any = run(block._replace(code=code), GUIDE, {"__name__": "readme"})
    return function["reliable_completion"]


def naive(prompt: str) -> str:
    """Retry naively: at once, after every error."""
    while True:
        try:
            return models("gpt-4", prompt).text
        except ProviderAPIError as error:
            if error.error_type == "quota":
                try:
                    return models("gpt-4", prompt).text
                except ProviderAPIError:
                    return ""


@pytest.mark.parametrize(
    "faults",
    [
        [rate_limit(retry_after=2)],
        [rate_limit(retry_after=45), overloaded(retry_after=7.5)],
        [server_error(), server_error()],
        [quota()],
        [authentication()],
        [context_length()],
    ],
    ids=lambda faults: "+".join(fault.error_type for fault in faults),
)
def test_the_recipe_of_the_guide_passes(faults: list[Fault], fake_model: FakeModel) -> None:
    """The guide's tenacity recipe honours every wait and makes no useless retries."""
    pytest.importorskip("tenacity", reason="in the extra dev")
    helps = faults[0].error_type in ("rate_limit", "overloaded", "server")
    fake_model("*", *faults, *(["Paris"] if helps else []))
    ask, started = recipe(), time.monotonic()
    with no_sleep() as slept:
        if helps:
            assert ask("Hello") == "Paris"
        else:
            with pytest.raises(ProviderAPIError) as caught:
                ask("Hello")
            assert caught.value.error_type == faults[0].error_type
    verdict = fake_model.verdict()
    assert verdict.ok, str(verdict)
    assert verdict.attempts == len(faults) + helps
    assert sum(verdict.waits) == pytest.approx(slept.seconds, abs=1)
    assert time.monotonic() - started < 3


def test_a_retry_before_the_wait_is_a_complaint(fake_model: FakeModel) -> None:
    """A retry before the requested wait is a complaint that states both times."""
    fake_model("gpt-4", rate_limit(retry_after=2), "Paris")
    assert naive("Hello") == "Paris"
    verdict = fake_model.verdict()
    assert not verdict
    (complaint,) = verdict.complaints
    assert complaint.startswith("call 2 repeats call 1 of openai/gpt-4 after 0.")
    assert "told to wait 2 s" in complaint


def test_a_storm_of_retries_is_a_complaint(fake_model: FakeModel) -> None:
    """Retries without a pause, and too many retries, are complaints."""
    fake_model("gpt-4", *[server_error()] * 12, "Paris")
    naive("Hello")
    report = str(fake_model.verdict())
    assert report.count("wait before a retry") == 12
    assert report.count("11 attempts of one call failed in a row") == 1


def test_retry_after_an_exhausted_quota_is_a_complaint(fake_model: FakeModel) -> None:
    """A retry after an exhausted quota is a complaint, whatever the wait."""
    fake_model("gpt-4", quota(), quota())
    with no_sleep():
        naive("Hello")
    (complaint,) = fake_model.verdict().complaints
    assert "failed with quota: no retry helps" in complaint


def test_partial_answer_returned_as_whole_is_a_complaint(fake_model: FakeModel) -> None:
    """Code that swallows a cut and returns the partial text is found by its result."""
    fake_model("gpt-4", cut(4, answer="Paris is the capital"))
    stream = models.stream("gpt-4", "hi")
    text = ""
    try:
        for chunk in stream:
            text += chunk.text
    except ProviderAPIError:
        pass
    assert text
    assert fake_model.verdict().ok  # the verdict has no result to search
    (complaint,) = fake_model.verdict({"answer": text}).complaints
    assert "took that for the answer" in complaint


def test_retry_of_a_broken_stream_is_no_complaint(fake_model: FakeModel) -> None:
    """A broken stream that is retried after a pause is no complaint."""
    fake_model("gpt-4", cut(4, answer="Paris is the capital"), "Paris is the capital")
    with no_sleep():
        try:
            result = "".join(chunk.text for chunk in models.stream("gpt-4", "hi"))
        except ProviderAPIError:
            time.sleep(1)
            result = "".join(chunk.text for chunk in models.stream("gpt-4", "hi"))
    assert fake_model.verdict(result).ok


@pytest.mark.parametrize("wire", ["gpt-4", "o3-pro", "claude-3-opus", "gemini-pro"])
def test_retry_without_a_stream_must_wait_too(wire: str, fake_model: FakeModel) -> None:
    """A call without a stream counts as a retry of the streamed one, and must wait as well."""
    fake_model(wire, rate_limit(retry_after=3), "Paris")
    with pytest.raises(ProviderAPIError), models.stream(wire, "hi") as stream:
        list(stream)
    models(wire, "hi")
    assert "told to wait 3 s" in str(fake_model.verdict())


def test_retry_of_any_error_without_a_pause_is_a_complaint(fake_model: FakeModel) -> None:
    """A loop around invalid answers is a retry storm as well."""
    fake_model("gpt-4", garbage(), empty_body(), "Paris")
    naive("Hello")
    assert str(fake_model.verdict()).count("bad_response: wait before a retry") == 2


@pytest.mark.parametrize(
    "as_result",
    [
        lambda pieces: pieces,
        lambda pieces: {"answer": "".join(pieces), "ok": True},
        lambda pieces: ChatResponse("".join(pieces)),
        lambda pieces: [{"said": "".join(pieces)}],
        lambda pieces: SimpleNamespace(answer="".join(pieces)),
    ],
    ids=["pieces", "dict", "response", "nested", "object"],
)
def test_partial_answer_is_found_inside_a_result(
    as_result: Callable[[list[str]], object], fake_model: FakeModel
) -> None:
    """A partial answer is found in chunks, containers and objects, with its line breaks."""
    fake_model("gpt-4", cut(after_chunks=4, answer="Paris\nis 'the' capital"))
    pieces: list[str] = []
    with contextlib.suppress(ProviderAPIError), models.stream("gpt-4", "hi") as stream:
        for chunk in stream:
            pieces.append(chunk.text)
    assert "took that for the answer" in str(fake_model.verdict(as_result(pieces)))


@pytest.mark.parametrize("patient", [True, False])
def test_tasks_do_not_wait_for_each_other(patient: bool, fake_model: FakeModel) -> None:
    """Only a task's own waits count, however long the others sleep."""
    fake_model("gpt-4", lambda call: rate_limit(retry_after=5) if call.prompt else "x",
               lambda call: rate_limit(retry_after=5))  # fmt: skip

    async def ask(name: str, seconds: float) -> None:
        for _ in range(2):
            with pytest.raises(ProviderAPIError):
                await models.acall("gpt-4", name)
            await asyncio.sleep(seconds)

    async def both() -> None:
        await asyncio.gather(ask("one", 6), ask("two", 6 if patient else 0.5))

    with no_sleep():
        asyncio.run(both())
    assert fake_model.verdict().ok == patient


def test_call_of_another_model_is_no_retry(fake_model: FakeModel) -> None:
    """An immediate fallback to another model, or another question, is no complaint."""
    fake_model("gpt-4", rate_limit(retry_after=60), "something else")
    fake_model("claude-*", "Paris")
    with pytest.raises(ProviderAPIError):
        models("gpt-4", "hi")
    models("claude-3-opus", "hi")
    models("gpt-4", "another question")
    assert fake_model.verdict().ok
    assert str(fake_model.verdict()) == "nothing to complain of in 3 calls"


async def _gathered(seconds: float) -> None:
    await asyncio.gather(asyncio.sleep(seconds), asyncio.sleep(seconds))


WAYS_TO_WAIT: dict[str, Callable[[float], Any]] = {
    "to_thread": lambda seconds: asyncio.to_thread(time.sleep, seconds),
    "gather": _gathered,
    "wait_for": lambda seconds: asyncio.wait_for(asyncio.sleep(seconds), 100),
    "task": lambda seconds: asyncio.create_task(asyncio.sleep(seconds)),
}


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
@pytest.mark.parametrize("seconds", [5, 1])
def test_wait_in_another_thread_counts_for_the_caller(
    way: str, seconds: float, fake_model: FakeModel
) -> None:
    """A wait in another thread or task counts as the caller's, with its own length."""
    fake_model("gpt-4", rate_limit(retry_after=4), "Paris")

    async def ask() -> None:
        with pytest.raises(ProviderAPIError):
            await models.acall("gpt-4", "hi")
        await WAYS_TO_WAIT[way](seconds)
        await models.acall("gpt-4", "hi")

    with no_sleep():
        asyncio.run(ask())
    assert fake_model.verdict().ok == (seconds > 4)


@pytest.mark.parametrize("seconds", [5, 1])
def test_retry_in_another_thread_has_that_threads_waits(
    seconds: float, fake_model: FakeModel
) -> None:
    """A retry made in a pool's thread has waited as long as that thread has."""
    fake_model("gpt-4", rate_limit(retry_after=4), "Paris")

    def again() -> str:
        time.sleep(seconds)
        return models("gpt-4", "hi").text

    with no_sleep(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(ProviderAPIError):
            pool.submit(models, "gpt-4", "hi").result()
        assert pool.submit(again).result() == "Paris"
    assert fake_model.verdict().ok == (seconds > 4)


def test_fallback_with_the_same_beginning_is_no_partial_answer(fake_model: FakeModel) -> None:
    """A fallback's complete answer with the same beginning is not taken as the partial one."""
    fake_model("gpt-4", cut(4, answer="Paris is the capital"))
    fake_model("claude-*", "Paris is the capital of France.")
    text = ""
    with contextlib.suppress(ProviderAPIError), models.stream("gpt-4", "hi") as stream:
        for chunk in stream:
            text += chunk.text
    assert text
    answer = models("claude-3-opus", "hi").text
    assert answer.startswith(text)
    assert fake_model.verdict(answer).ok
    assert fake_model.verdict({"answer": answer, "lines": "one\ntwo"}).ok
    assert "took that for the answer" in str(fake_model.verdict(text + answer))
