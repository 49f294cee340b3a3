"""Record the live calls of a session, and keep or drop the recording at its end."""

from __future__ import annotations

import os
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ember_testing.cassettes import schema, swap
from ember_testing.cassettes.calls import Calls
from ember_testing.cassettes.file import CassetteFile
from ember_testing.exceptions import BudgetExceeded, CassetteError
from ember_testing.patches import environment
from ember_testing.patches.exchange import Exchange
from ember_testing.replay.claims import Claims, FailedRecordings, Recorded, adopt
from ember_testing.replay.recording import (
    UNREDACTED,
    first_leak,
    leak_of,
    leak_of_text,
    read_with_prices,
    row_of,
)
from ember_testing.replay.secrets import REDACTED
from ember_testing.replay.tally import counted
from ember_testing.wires.body import as_bytes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ember_testing.cassettes.rows import Answer
    from ember_testing.replay.budget import Budget
    from ember_testing.replay.comparison import Comparison
    from ember_testing.replay.outcome import Outcome
    from ember_testing.replay.redaction import Redaction
    from ember_testing.replay.settings import RecordMode
    from ember_testing.wires.response import Request

_BATCH = 200  # calls that are read at a time at the end
_PATIENCE_FOR_OTHERS = 300.0  # seconds to wait for another session before sending a request too
# Errors before the connection was established, which cost nothing.
_NOTHING_WAS_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")


class Recorder:
    """The file of a session, and the calls recorded in it.

    Args:
        path: The cassette.
        record: None to replay only, `new` to record what is missing, `all` to record anew.
        run: Names the test run if several tests share the cassette, else "".
        test: Node id of the test, stored in the file.
        lock: The session's lock.
        comparison: Compares and redacts the session's requests.
        outcome: Collects notes and failures.
        budget: The budget of the recording.
        record_errors: Whether answers of status 400 and above are kept.
        command: Returns the command that records again, for messages.

    Raises:
        CassetteError: The file exists and cannot be used.
    """

    def __init__(
        self,
        path: Path,
        record: RecordMode | None,
        *,
        run: str,
        test: str,
        lock: threading.RLock,
        comparison: Comparison,
        outcome: Outcome,
        budget: Budget | None,
        record_errors: bool,
        command: Callable[[], str],
    ) -> None:
        self._path = path
        # `new` if an earlier test of the run has started the new file.
        self.record_mode: RecordMode | None = record
        self._run = run
        self._test = test
        self._lock = lock
        self._comparison = comparison
        self._outcome = outcome
        self._budget = budget
        self._record_errors = record_errors
        self._command = command
        self.file: CassetteFile | None = None  # until there is one
        self.recorded = Calls(self.rows)
        self._replaces: swap.Replaced | None = None  # the cassette that an `all` recording replaces
        self._exchanges: set[Exchange] = set()
        self._unread = array("q")  # recorded calls whose responses have not been read
        self._adopted: list[int] = []  # ids of recordings by other sessions and processes
        self._leak: str | None = None
        self._redaction: Redaction | None = None  # used for the last recorded call
        self._older = 0  # number of calls recorded before with another redaction
        self._reopen = False
        self._claims = Claims(path, run) if record and run else None
        self._open()
        if record:
            environment.before_price_change.add(self._read_at_these_prices)

    # The file --------------------------------------------------------------------------------

    def _open(self) -> None:
        if self.record_mode == "all":
            self._replaces, run = swap.found_at(self._path)
            if self._run and self._is_begun(run.split()):
                self.record_mode = "new"
        salt = ""
        if self.record_mode != "all" and self._path.exists():
            self.file = CassetteFile(self._path, self._metadata() if self.record_mode else None)
            self.file.on_replaced = self._renumber
            salt = self.file.salt.decode()
        salt = salt or (self._replaces.salt if self._replaces else "") or schema.salt_of(self._path)
        self._comparison.use_salt(salt)

    def _is_begun(self, runs: Sequence[str]) -> bool:
        """Return whether an earlier test of this run, or a concurrent run, made the new file.

        This run must not discard the recordings of a concurrent one.
        """
        if self._run in runs:
            return True
        if self._claims is None or not self._claims.others_record(runs):
            return False
        with CassetteFile(self._path, self._metadata()) as file:
            swap.name_runs(file, [self._run, *runs])
        return True

    def _metadata(self) -> dict[str, str]:
        return schema.new_metadata(self._run, self._comparison.redaction.salt.decode())

    def for_writing(self) -> CassetteFile:
        """Return the file to record to; created for the first call, before it is paid for."""
        if self.file is None:
            path = self._path
            if self.record_mode == "all":
                # In the same folder, so that it can replace the old file atomically.
                path = path.with_name(f"{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
            self.file = CassetteFile(path, self._metadata())
            self.file.on_replaced = self._renumber
        return self.file

    def _renumber(self, numbers: Mapping[int, int]) -> None:
        """Update ids after another process recorded the cassette anew and copied our calls."""
        if lost := len(self.recorded) - len(numbers):
            self._outcome.problems.append(
                f"{self._path} was recorded anew by another process, which left out {lost} calls "
                f"of this test; to record them again: {self._command()}"
            )
        self.recorded.renumber(numbers)
        self._older = len(self.recorded)
        self._unread = array("q", [numbers[old] for old in self._unread if old in numbers])

    def fork(self) -> None:
        """Prepare for use in a forked process, where the parent's connection is unusable."""
        self._reopen = self.file is not None
        self._exchanges = set()  # they belong to the parent

    def use_own_connection(self) -> None:
        """Reopen the file in a process that was forked while it was open."""
        if self._reopen and self.file is not None:
            self._reopen = False
            self.file.reopen()

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return all columns of the given calls, even if the file is closed."""
        with self._lock:
            self.use_own_connection()
            self.read()
            if self.file is not None:
                return self.file.rows(numbers)
        if not self._path.exists():
            return []
        with CassetteFile(self._path) as file:
            return file.rows(numbers)

    # A call ----------------------------------------------------------------------------------

    def claim(self, sent: Request, key: str, n: int, waited: float) -> Answer | Exchange | None:
        """Claim the `n`-th request with this key, unless another session sends or has sent it.

        After `waited` seconds it is sent here nevertheless.

        Returns:
            The exchange that records the live answer, or the other session's recording; None while
            the other session is sending the request.

        Raises:
            BudgetExceeded: The call might cost more than is left.
            CassetteError: The answer could not be recorded.
        """
        if self._claims is None:
            return self._start_exchange(sent, key, n)
        found = self._claims.claim(key, n)
        if isinstance(found, Recorded):
            file = self.for_writing()
            answer = adopt(file, found, self._path, (key, n))
            if answer is not None:
                self._adopted.append(answer.id)
                here = found._replace(file=str(file.path.resolve()), number=answer.id)
                if here.file != found.file:
                    self._claims.record(key, n, here)
                return answer
            self._claims.release(key, n)
            found = self._claims.claim(key, n) is True
        if found or waited > _PATIENCE_FOR_OTHERS:
            return self._start_exchange(sent, key, n)
        return None

    def _start_exchange(self, sent: Request, key: str, n: int) -> Exchange:
        if self._outcome.problems:  # do not pay for answers that cannot be recorded
            raise CassetteError(self._outcome.problems[0])
        self.for_writing()
        redacted = self._comparison.redacted(sent, whole=True)
        redaction = self._comparison.redaction
        reservation = None
        if self._budget is not None:
            try:
                reservation = self._budget.reserve(sent.method, sent.url, sent.body)
            except BudgetExceeded as error:
                self._release(key, n)
                message = self._comparison.redaction.text(str(error))
                raise self._outcome.fail(BudgetExceeded(message)) from None
        columns = self._comparison.columns(sent, redacted, key)
        columns |= {"n": n, "test": self._test or None}
        exchange = Exchange(sent, partial(self._keep, columns, redacted, redaction, reservation))
        self._exchanges.add(exchange)
        return exchange

    def _keep(
        self,
        columns: Mapping[str, Any],
        request: Request,
        redaction: Redaction,
        reservation: int | None,
        exchange: Exchange,
    ) -> None:
        """Record a finished call; if that fails, the test fails at its end."""
        key, n = columns["key"], columns["n"]
        with self._lock:
            if exchange not in self._exchanges:
                return  # the session is over
            self._exchanges.discard(exchange)
            refused = (exchange.status or 0) >= 400 and not self._record_errors
            if refused:
                self._outcome.note(
                    f"not kept: status {exchange.status} for {request.method} {request.url}; mark "
                    "the test ember_replay(record_errors=True) to record errors"
                )
            if refused or exchange.outcome == "unsent":
                self._release(key, n)
                self._settle(reservation, 0.0)
                return
            self.use_own_connection()
            comparison = self._comparison
            known = len(comparison.replacements)
            row, chunks = row_of(exchange, request, comparison.redaction, comparison.replacements)
            row |= columns
            comparison.add_issued_credentials(exchange.request, known)
            body = as_bytes(row["response_body"] or b"")
            comparison.add_issued_ids(body)
            for name in comparison.replaced_variables(exchange, body):
                self._outcome.note(
                    f"the answer to {request.method} {request.url} holds the value of ${name}, "
                    f"which its request did not; it is recorded as {REDACTED}, and so replayed"
                )
            file = self.for_writing()
            try:
                number = file.add(row, chunks)
            except CassetteError as error:  # the caller still gets the answer it paid for
                self._outcome.problems.append(str(error))
                self._release(key, n)
                return
            if self._claims is not None:
                where = Recorded(str(file.path.resolve()), number, row["recorded_at"])
                self._claims.record(key, n, where)
            if self._redaction is not comparison.redaction:
                self._redaction, self._older = comparison.redaction, len(self.recorded)
            if comparison.redaction is redaction and not redaction.rules:
                unredacted = {name: row[name] for name in UNREDACTED}  # the rest was just searched
                self._note_leak(number, row, leak_of(unredacted, redaction))
            else:
                self._note_leak(number, row, leak_of(row, comparison.redaction))
            self._count(number)
            self._outcome.report("recorded", [number, row["recorded_at"]])
            if exchange.status is None and row["error_type"] in _NOTHING_WAS_SENT:
                self._settle(reservation, 0.0)
            elif reservation is not None or self._comparison.sets_prices:
                self.read(reservation)

    def _note_leak(self, number: int, row: Mapping[str, Any], leak: str | None) -> None:
        if leak is not None and self._leak is None:
            self._leak = f"call {number} ({row['method']} {row['url']}) {leak}"

    def _release(self, key: str, n: int) -> None:
        if self._claims is not None:
            self._claims.release(key, n)

    def _count(self, number: int) -> None:
        self.recorded.add(number)
        self._outcome.tally.recorded += 1
        self._unread.append(number)

    def count_of_fork(self, number: int, recorded_at: str) -> None:
        """Count a call recorded by a forked process."""
        self._count(number)
        self._adopted.append(number)
        self.for_writing().added.append((number, recorded_at))

    def _settle(self, reservation: int | None, amount: float | None) -> None:
        if reservation is not None and self._budget is not None:
            self._budget.settle(reservation, amount)

    def read(self, reservation: int | None = None) -> None:
        """Read the recorded responses: provider, tokens and cost."""
        while self.file is not None and self._unread:
            batch, self._unread = self._unread[:_BATCH], self._unread[_BATCH:]
            self._read(self.file, batch, reservation)

    def _read_at_these_prices(self) -> None:
        """Read them before the environment's prices change."""
        with self._lock:
            self.use_own_connection()
            self._attempt(self.read)

    def _read(self, file: CassetteFile, numbers: Sequence[int], reservation: int | None) -> None:
        rows = file.rows(numbers)
        found = [(row, read_with_prices(row)) for row in rows]
        try:
            file.describe(found)
        except CassetteError as error:
            self._outcome.problems.append(str(error))
        for row, read in found:
            leak = leak_of_text(read.columns, self._comparison.redaction)
            self._note_leak(row["id"], row, leak)
            if read.problem:
                self._outcome.note(read.problem)
            self._outcome.count_cost("spent", read.columns["cost_usd"])
        status, cost = rows[-1]["status"] or 0, found[-1][1].columns["cost_usd"]
        self._settle(reservation, 0.0 if status >= 300 else cost)

    # The end ---------------------------------------------------------------------------------

    def finish_exchanges(self) -> None:
        """Record the unfinished calls as far as they got."""
        for exchange in list(self._exchanges):
            exchange.finish("closed")

    def close(self, passed: bool) -> None:
        """Keep the recording if the test passed, or drop it; close the file in any case.

        Raises:
            CassetteError: A file could not be read or written.
        """
        environment.before_price_change.discard(self._read_at_these_prices)
        file = self.file
        try:
            if self.record_mode:  # earlier rows may hold a secret that is new in the environment
                self._comparison.read_environment(anew=True)
            self._attempt(self.read)
            failed = FailedRecordings()
            keep = passed
            if keep and self.record_mode and file:
                keep = self._attempt(self._leaks) is False
            self.file = None
            if self._claims is not None:
                failed = self._claims.end_session(keep)
            if file is None:
                return
            if self.record_mode and not (keep and file.added):
                self._drop(file, failed)
            elif self.record_mode == "all":
                swap.replace(file, self._path, self._replaces)
        finally:
            self.file = None
            if file is not None:
                file.close()
                if file.path != self._path:
                    file.path.unlink(missing_ok=True)

    def _attempt(self, part: Callable[[], bool | None]) -> bool | None:
        """Call a step of closing; store its error so that the next steps still run."""
        try:
            return part()
        except CassetteError as error:
            self._outcome.problems.append(str(error))
            return None

    def _drop(self, file: CassetteFile, failed: FailedRecordings) -> None:
        if self.record_mode == "all":
            file.close()
            file.path.unlink(missing_ok=True)
        else:
            others = [each for each in failed.dropped if each not in file.added]
            if failed.kept or others:
                file.added = [each for each in file.added if each not in failed.kept] + others
                file.created, file.snapshot = False, None
            swap.undo(file)
        if (dropped := len(self.recorded) - len(failed.kept)) > 0:
            self._outcome.note(
                f"{counted(dropped, 'new recording')} dropped, the cassette is as it was"
            )

    def _leaks(self) -> bool:
        """Return whether a recorded row holds a credential that became known later."""
        assert self.file is not None  # it has recordings
        redaction = self._comparison.redaction
        numbers = self.recorded.numbers()
        if redaction is self._redaction:  # later rows were checked when they were recorded
            numbers = numbers[: self._older]
        leak = self._leak or first_leak(self.file, [*numbers, *self._adopted], redaction)
        if leak is not None:
            self._outcome.problems.append(f"{self._path} is not written: {leak}")
        return leak is not None
