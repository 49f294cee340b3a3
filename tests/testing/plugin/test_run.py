"""The counts of worker processes, joined into one run."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ember_testing.plugin.run import Run

TESTS = [f"test_it.py::test_{letter}" for letter in "abc"]


def counts(**more: Any) -> dict[str, Any]:
    """Return the counts of a worker process in the form that it sends."""
    return {**Run().as_dict()["totals"], **more}


def used(*numbers: tuple[int, int], identity: str = "one", **more: Any) -> dict[str, Any]:
    """Return a worker process's use of one cassette in the form that it sends."""
    spans = [list(span) for span in numbers]
    nothing = {"id": identity, "used": spans, "tests": [], "passed": [], "shared": False}
    return {**nothing, **more}


def joined(*parts: dict[str, Any]) -> dict[str, Any]:
    """Join the parts of several worker processes like the main process."""
    run = Run()
    for part in parts:
        run.add(Run.from_dict(json.loads(json.dumps(part))))
    return run.as_dict()


def test_counts_of_workers_are_added_up() -> None:
    """Calls, dollars, seconds and notes of two workers are added up."""
    one = counts(recorded=2, spent=0.25, avoided=1.5, notes=["first"])
    other = counts(recorded=3, replayed=1, spent=0.5, notes=["second"])
    expected = counts(recorded=5, replayed=1, spent=0.75, avoided=1.5, notes=["first", "second"])
    parts = [{"totals": totals, "cassettes": {}} for totals in (one, other)]
    assert joined(*parts) == {"totals": expected, "cassettes": {}}


def test_recordings_used_by_any_worker_are_used() -> None:
    """Recordings used, and tests passed, in any worker count for a shared cassette."""
    one = used((1, 3), (7, 7), tests=TESTS[:2], passed=TESTS[:1], shared=True)
    other = used((3, 6), tests=TESTS[1:], passed=TESTS[1:])
    run = joined(
        {"totals": counts(), "cassettes": {"cassettes/shared.sqlite": one, "own.sqlite": one}},
        {"totals": counts(), "cassettes": {"cassettes/shared.sqlite": other}},
    )
    expected = used((1, 7), tests=TESTS, passed=TESTS, shared=True)
    assert run["cassettes"] == {"cassettes/shared.sqlite": expected, "own.sqlite": one}


def test_cassette_recorded_again_has_the_numbers_of_its_last_id() -> None:
    """Numbers belong to the file with that id; a worker that ran no test has no id."""
    collected = used(identity="", tests=TESTS)
    old, new = used((1, 9), identity="old"), used((2, 2), identity="new", passed=TESTS[:1])
    parts = [{"totals": counts(), "cassettes": {"c": each}} for each in (collected, old, new)]
    assert joined(*parts, parts[0])["cassettes"]["c"] == used(
        (2, 2), identity="new", tests=TESTS, passed=TESTS[:1]
    )


PARTS = st.fixed_dictionaries(
    {
        "totals": st.builds(
            counts, recorded=st.integers(0, 9), unused=st.integers(0, 9), missed=st.integers(0, 9)
        ),
        "cassettes": st.dictionaries(
            st.sampled_from(["a", "b"]),
            st.builds(
                # Without a number: a worker that collected the tests but ran none of them.
                lambda number, **more: used(
                    *[(number, number)] * bool(number), identity="one" * bool(number), **more
                ),
                st.integers(0, 3),
                tests=st.lists(st.sampled_from(TESTS), unique=True),
                passed=st.lists(st.sampled_from(TESTS), unique=True),
                shared=st.booleans(),
            ),
        ),
    }
)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PARTS, min_size=1, max_size=4), data=st.data())
def test_the_order_and_the_number_of_workers_do_not_matter(
    parts: list[dict[str, Any]], data: st.DataObject
) -> None:
    """The result depends neither on the order of workers nor on the steps of joining them."""
    whole = joined(*parts)
    assert joined(*data.draw(st.permutations(parts))) == whole
    cut = data.draw(st.integers(0, len(parts)))
    assert joined(joined(*parts[:cut]), joined(*parts[cut:])) == whole
