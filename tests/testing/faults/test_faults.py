"""Faults: the errors that the caller gets from a fake or a recording."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ember_testing
from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember_testing import Answer, CassetteMiss, FakeModel, fake_model, fault_server
from ember_testing.exceptions import CassetteError
from ember_testing.faults import (
    Fault,
    authentication,
    context_length,
    cut,
    empty_body,
    garbage,
    not_found,
    overloaded,
    quota,
    rate_limit,
    refused,
    reset,
    server_error,
    slow,
    stall,
    timeout,
    wrong_content_type,
)

MODELS = ["gpt-4", "o3-pro", "claude-3-opus", "gemini-pro"]
TEXT = "One two three four five six seven."
FAULTS: dict[str, tuple[Callable[[], Fault], str]] = {
    "rate_limit": (rate_limit, "rate_limit"),
    "quota": (quota, "quota"),
    "overloaded": (overloaded, "overloaded"),
    "server_error": (server_error, "server"),
    "authentication": (authentication, "authentication"),
    "not_found": (not_found, "not_found"),
    "context_length": (context_length, "context_length"),
    "timeout": (timeout, "timeout"),
    "no connection in time": (lambda: timeout(connecting=True), "timeout"),
    "refused": (refused, "connection"),
    "reset": (reset, "connection"),
    "garbage": (garbage, "bad_response"),
    "wrong_content_type": (wrong_content_type, "bad_response"),
}


def ask(model: str, stream: bool) -> str:
    """Return the answer's text, streamed or not."""
    if not stream:
        return models(model, "hi").text
    with models.stream(model, "hi") as pieces:
        return "".join(chunk.text for chunk in pieces)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_raises_its_error(
    name: str, model: str, stream: bool, fake_model: FakeModel
) -> None:
    """A fault raises the error of its name on every wire, whole and streamed."""
    make, error_type = FAULTS[name]
    fake_model(model, make(), "Paris")
    with pytest.raises(ProviderAPIError) as caught:
        ask(model, stream)
    assert caught.value.error_type == error_type == make().error_type
    assert ask(model, stream) == "Paris"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
def test_empty_body_is_an_error(model: str, stream: bool, fake_model: FakeModel) -> None:
    """A success without a body is an error: an incomplete stream, or else a bad response."""
    fake_model(model, empty_body())
    with pytest.raises(ProviderAPIError) as caught:
        ask(model, stream)
    assert caught.value.error_type == ("incomplete_stream" if stream else "bad_response")


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_cut_stream_keeps_its_text(model: str, silent: bool, fake_model: FakeModel) -> None:
    """A stream that breaks off, with an error or silently, is incomplete but keeps its text."""
    fake_model(model, cut(after_chunks=6, silent=silent, answer=TEXT))
    pieces: list[str] = []
    with pytest.raises(ProviderAPIError) as caught, models.stream(model, "hi") as stream:
        pieces += [chunk.text for chunk in stream]
    assert caught.value.error_type == "incomplete_stream"
    partial = caught.value.context["partial_text"]
    assert partial
    assert TEXT.startswith(partial)
    assert partial != TEXT


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_answer_is_cut_in_its_middle(model: str, fake_model: FakeModel) -> None:
    """A body in one chunk is cut in the middle: no call returns half of its JSON."""
    fake_model(model, cut(answer=TEXT), cut(silent=True, answer=TEXT))
    for error_type in ("connection", "bad_response"):  # with an error, silently
        with pytest.raises(ProviderAPIError) as caught:
            models(model, "hi")
        assert caught.value.error_type == error_type


@pytest.mark.parametrize("model", MODELS)
def test_error_inside_a_stream_keeps_the_text_before_it(model: str, fake_model: FakeModel) -> None:
    """A provider's error inside a stream raises that error, with the text before it."""
    fake_model(model, overloaded(after_chunks=6), overloaded(after_chunks=6))
    with pytest.raises(ProviderAPIError) as caught:
        ask(model, True)
    assert caught.value.error_type == "overloaded"
    assert caught.value.context["partial_text"]
    assert caught.value.retryable is False
    with pytest.raises(ProviderAPIError, match="overloaded"):  # not streamed: the whole answer
        ask(model, False)


@pytest.mark.parametrize("model", MODELS)
def test_stall_is_a_timeout_without_waiting(model: str, fake_model: FakeModel) -> None:
    """A stalled answer is a timeout, which the test does not wait for."""
    fake_model(model, stall(after_chunks=6, answer=TEXT))
    started = time.monotonic()
    with pytest.raises(ProviderAPIError) as caught:
        ask(model, True)
    assert time.monotonic() - started < 2
    assert caught.value.error_type == "timeout"
    assert TEXT.startswith(caught.value.context["partial_text"])


def test_slow_answer_keeps_its_pauses(fake_model: FakeModel) -> None:
    """The pauses of a slow answer are kept, sync and async; a shorter timeout ends it."""
    fake_model("gpt-4", *[slow(0.01, answer=Answer(chunks=["a", "b"]))] * 2, slow(5))

    async def awaited() -> str:
        return "".join([chunk.text async for chunk in models.astream("gpt-4", "hi")])

    started = time.monotonic()
    assert ask("gpt-4", True) == "ab"
    assert asyncio.run(awaited()) == "ab"
    assert 0.1 <= time.monotonic() - started < 3  # two streams of six chunks
    with pytest.raises(ProviderAPIError, match="no answer in time"):
        models("gpt-4", "hi", timeout=1)


@pytest.mark.parametrize(
    "make", [lambda: cut(-1), lambda: rate_limit(-1), lambda: slow(float("nan"))]
)
def test_impossible_faults_are_refused(make: Callable[[], Fault]) -> None:
    """The error for an impossible fault names the wrong argument."""
    with pytest.raises(ValueError, match=r"expected a number of (seconds|pieces), 0 or more"):
        make()


# --- over recordings -----------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Record a cassette of one streamed and one plain call to a local server."""
    path = tmp_path / "calls.sqlite"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    with fault_server() as server:
        server("gpt-4", Answer(TEXT), "Paris")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        with ember_testing.cassette(path, record="new"):
            assert ask("gpt-4", True) == TEXT
            assert ask("gpt-4", False) == "Paris"
    return path


def test_retry_after_a_fault_gets_the_recording(recording: Path) -> None:
    """A call that meets a fault gets the fault, and its retry gets the recording."""
    faults = {1: cut(after_chunks=5), 3: rate_limit(retry_after=1), 4: reset()}
    with ember_testing.cassette(recording, faults=faults):
        with pytest.raises(ProviderAPIError) as caught:
            ask("gpt-4", True)
        assert caught.value.error_type == "incomplete_stream"
        assert TEXT.startswith(caught.value.context["partial_text"])
        assert ask("gpt-4", True) == TEXT
        with pytest.raises(ProviderAPIError) as caught:
            ask("gpt-4", False)
        assert caught.value.retry_after == 1
        with pytest.raises(ProviderAPIError) as caught:
            ask("gpt-4", False)
        assert caught.value.error_type == "connection"
        assert ask("gpt-4", False) == "Paris"


@pytest.mark.parametrize("name", [*FAULTS, "stall", "silent", "in the stream", "slow"])
def test_every_fault_over_a_recording_raises_its_error(name: str, recording: Path) -> None:
    """Each fault over a recorded stream raises the same error as over a fake."""
    others: dict[str, tuple[Fault, str]] = {
        "stall": (stall(5), "timeout"),
        "silent": (cut(5, silent=True), "incomplete_stream"),
        "in the stream": (server_error(after_chunks=5), "server"),
        "slow": (slow(0.001), ""),
    }
    fault, error_type = others.get(name) or (FAULTS[name][0](), FAULTS[name][1])
    with ember_testing.cassette(recording, faults={1: fault}):
        if name == "slow":
            assert ask("gpt-4", True) == TEXT
            return
        with pytest.raises(ProviderAPIError) as caught:
            ask("gpt-4", True)
        assert caught.value.error_type == error_type
        assert ask("gpt-4", True) == TEXT


def test_a_fault_that_never_happens_fails(recording: Path) -> None:
    """A number beyond the test's calls is an error, and so is a number below 1."""
    with (
        pytest.raises(CassetteError, match="made 1 calls only"),
        ember_testing.cassette(recording, faults={2: quota()}),
    ):
        ask("gpt-4", True)
    with (
        pytest.raises(ValueError, match="number of a call, from 1"),
        ember_testing.cassette(recording, faults={0: quota()}),
    ):
        pass
    with pytest.raises(CassetteMiss), ember_testing.cassette(recording, faults={1: cut()}):
        models("gpt-4", "never recorded")


def test_marker_accepts_faults(pytester: pytest.Pytester, recording: Path) -> None:
    """`@pytest.mark.ember_replay(faults={...})` does what the context manager does."""
    pytester.makepyfile(
        """
        import pytest
        from ember.api import models
        from ember.api.exceptions import ProviderAPIError
        from ember_testing.faults import quota

        @pytest.mark.ember_replay(cassette="calls", faults={1: quota()})
        def test_it():
            with pytest.raises(ProviderAPIError, match="quota"):
                models("gpt-4", "hi")
            assert models("gpt-4", "hi").text == "Paris"
        """
    )
    folder = pytester.mkdir("cassettes")
    result = pytester.runpytest("-q")
    result.stdout.fnmatch_lines(["*there is no cassette*"])
    (name,) = {str(line).split("there is no cassette ")[1] for line in result.outlines
               if "there is no cassette" in line}  # fmt: skip
    Path(name).write_bytes(recording.read_bytes())
    assert folder in Path(name).parents
    pytester.runpytest("-q").assert_outcomes(passed=1)


def test_a_fake_inside_a_replay_comes_first(recording: Path) -> None:
    """In a replayed block the fake answers its model, and the recording the others."""
    with ember_testing.cassette(recording) as played, fake_model() as fake:
        fake("claude-*", "faked")
        assert models("claude-3-opus", "hi").text == "faked"
        assert ask("gpt-4", False) == "Paris"
        assert len(played.played) == 1
        assert len(fake.calls) == 1
