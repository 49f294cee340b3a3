"""What a session has to say at its end: counts, notes, failures, of forked processes as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_testing import exceptions
from ember_testing.exceptions import CassetteError, CassetteMiss, ReplayFailure
from ember_testing.patches import interrupt
from ember_testing.replay.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_testing.replay.shared_counts import SharedCounts


class Outcome:
    """What became of a session's calls so far.

    Args:
        subject: What the notes are about: the test, or the file.

    Attributes:
        tally: Counts, and notes for the end of the run.
        failures: What failed in this process, and in those that the test has forked as far as
            `news` was asked.
        problems: What could not be read or written; the session's end raises it.
        on_failure: Called with each failure, from whichever thread.
        shared: What the processes of the test count together, once it has forked.
        is_forked: Whether this is a process that the test has forked.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.tally = Tally()
        self.failures: list[ReplayFailure] = []
        self.problems: list[str] = []
        self.on_failure: Callable[[], None] = lambda: None
        self.shared: SharedCounts | None = None
        self.is_forked = False

    def note(self, sentence: str) -> None:
        """Say something at the end of the run."""
        self.tally.notes.append(f"{self._subject}: {sentence}")
        self.tell("note", sentence)

    def fail(self, failure: ReplayFailure) -> ReplayFailure:
        """Remember a failure, so that code which swallows it does not turn it into a success."""
        self.failures.append(failure)
        if self.is_forked and self.shared is not None:
            self.tell("failure", [type(failure).__name__, str(failure)])
            interrupt.call_process(self.shared.owner)
        else:
            self.on_failure()
        return failure

    def count_cost(self, name: str, cost: float | None) -> None:
        """Add what a call cost to `spent` or `saved`."""
        if cost is None:
            self.tally.unpriced += 1
        else:
            setattr(self.tally, name, getattr(self.tally, name) + cost)

    def tell(self, kind: str, value: Any) -> None:
        """Let the process that has forked this one know; nothing to do in that one itself."""
        if self.is_forked and self.shared is not None:
            self.shared.tell(kind, value)

    def news(self) -> Iterator[tuple[str, Any]]:
        """The calls of forked processes since the last time; their notes and failures are kept."""
        if self.shared is None or self.is_forked:
            return
        for kind, value in self.shared.news():
            if kind == "note":
                self.note(value)
            elif kind == "failure":
                name, text = value
                self.tally.missed += name == CassetteMiss.__name__
                self.failures.append(getattr(exceptions, name)(text))
            else:
                yield kind, value

    def complain(self) -> None:
        """Raise what could not be read or written.

        Raises:
            CassetteError: There is something.
        """
        if self.problems:
            raise CassetteError("\n".join(dict.fromkeys(self.problems)))
