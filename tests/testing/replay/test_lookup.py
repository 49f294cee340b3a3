"""The n-th of identical requests gets the n-th recording, whatever comes in between."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_testing
from ember_testing import CassetteMiss
from ember_testing.faults import reset
from tests.loopback import Received, Reply, serving

GONE = "http://127.0.0.1:1"
QUESTIONS = "abc"
RECORDED = "abacaaab"
"""Questions in the order of recording; the answer to each is its position."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cassette of `RECORDED`."""
    path = tmp_path_factory.mktemp("lookup") / "c.sqlite"
    positions = iter(range(len(RECORDED)))

    def number(request: Received) -> Reply:
        return Reply(str(next(positions)).encode())

    with serving(number) as server, ember_testing.cassette(path, record="new"):
        for question in RECORDED:
            ask(question, server.url)
    return path


def ask(question: str, url: str = GONE) -> str:
    """Return the answer to a question."""
    with httpx.Client(verify=False) as client:
        return client.post(f"{url}/v1", json={"q": question}).text


def expected(questions: str, repeats_last: bool) -> list[str | None]:
    """Return the n-th recording for the n-th of identical requests; None for a miss."""
    asked: Counter[str] = Counter()
    answers: list[str | None] = []
    for question in questions:
        recorded = [str(n) for n, each in enumerate(RECORDED) if each == question]
        n = min(asked[question], len(recorded) - 1) if repeats_last else asked[question]
        answers.append(recorded[n] if n < len(recorded) else None)
        asked[question] += 1
    return answers


@pytest.mark.parametrize("repeats", ["error", "last"])
@pytest.mark.parametrize("match_on", [None, ("method", "path", "body")])
@settings(max_examples=40, deadline=None)
@given(questions=st.text(QUESTIONS, max_size=12))
def test_each_request_gets_the_recording_of_its_position(
    recording: Path,
    repeats: Literal["error", "last"],
    match_on: tuple[str, ...] | None,
    questions: str,
) -> None:
    """This holds in any order, past the end, with the recording's rules and with others."""
    answers = expected(questions, repeats == "last")
    found: list[str | None] = []

    def replay() -> None:
        more = {"match_on": match_on} if match_on else {}
        with ember_testing.cassette(recording, repeats=repeats, **more) as cassette:
            for question in questions:
                try:
                    found.append(ask(question))
                except CassetteMiss:
                    found.append(None)
            played = [call.text for call in cassette.played]
            assert len(played) == len(answers) - answers.count(None)

    if None in answers:
        with pytest.raises(CassetteMiss):  # swallowed above, but still fails the block
            replay()
    else:
        replay()
    assert found == answers


@settings(max_examples=40, deadline=None)
@given(questions=st.text(QUESTIONS, min_size=1, max_size=9), data=st.data())
def test_a_call_that_meets_a_fault_uses_no_recording(
    recording: Path, questions: str, data: st.DataObject
) -> None:
    """Positions count only answered requests: the next one gets the recording."""
    numbers = data.draw(st.sets(st.integers(1, len(questions))))
    answered = [each for n, each in enumerate(questions, 1) if n not in numbers]
    found: list[str] = []
    faults = {number: reset() for number in numbers}
    with ember_testing.cassette(recording, repeats="last", faults=faults):
        for number, question in enumerate(questions, 1):
            if number in numbers:
                with pytest.raises(httpx.TransportError, match="Connection reset by peer"):
                    ask(question)
            else:
                found.append(ask(question))
    assert found == expected("".join(answered), repeats_last=True)
