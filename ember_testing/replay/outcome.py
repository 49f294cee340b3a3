"""The counts, notes and failures of a session, including those of forked processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_testing import exceptions
from ember_testing.exceptions import CassetteError, CassetteMiss, ReplayFailure
from ember_testing.patches import hangs
from ember_testing.replay.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.replay.shared_counts import SharedCounts


class Outcome:
    """The results of a session so far."""

    def __init__(self, subject: str) -> None:
        self._subject = subject  # the test or file that prefixes each note
        self.tally = Tally()
        self.failures: list[ReplayFailure] = []  # those of forked processes once `new_calls` ran
        self.problems: list[str] = []  # read and write errors, raised when the session ends
        self.on_failure: Callable[[], None] = lambda: None  # called in any thread
        self.shared: SharedCounts | None = None  # with forked processes, once the test has forked
        self.is_forked = False  # this process was forked by the test

    def note(self, sentence: str) -> None:
        """Add a sentence to the summary of the run."""
        self.tally.notes.append(f"{self._subject}: {sentence}")
        self.report("note", sentence)

    def fail(self, failure: ReplayFailure) -> ReplayFailure:
        """Store a failure, so that the test fails even if its code swallows the exception."""
        self.failures.append(failure)
        if self.is_forked and self.shared is not None:
            self.report("failure", [type(failure).__name__, str(failure)])
            hangs.signal_failure(self.shared.owner)
        else:
            self.on_failure()
        return failure

    def count_cost(self, name: str, cost: float | None) -> None:
        """Add a call's cost to `spent` or `saved`."""
        if cost is None:
            self.tally.unpriced += 1
        else:
            setattr(self.tally, name, getattr(self.tally, name) + cost)

    def report(self, kind: str, value: Any) -> None:
        """Report an event to the parent process; does nothing in the parent itself."""
        if self.is_forked and self.shared is not None:
            self.shared.add_event(kind, value)

    def new_calls(self) -> Iterator[tuple[str, Any]]:
        """Yield the forked processes' calls since the last time; store their notes and failures."""
        if self.shared is None or self.is_forked:
            return
        for kind, value in self.shared.new_events():
            if kind == "note":
                self.note(value)
            elif kind == "failure":
                name, text = value
                self.tally.missed += name == CassetteMiss.__name__
                self.failures.append(getattr(exceptions, name)(text))
            else:
                yield kind, value

    def raise_problems(self) -> None:
        """Raise the read and write errors as one CassetteError, if there are any."""
        if self.problems:
            raise CassetteError("\n".join(dict.fromkeys(self.problems)))
