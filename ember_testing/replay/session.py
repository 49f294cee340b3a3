"""One cassette in use: which recording answers a request, what is kept of a live call, the end.

Sync and async callers share all of it; only the seam awaits.
"""

from __future__ import annotations

import os
import threading
from array import array
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ember_testing import exceptions
from ember_testing.cassettes import schema, swap
from ember_testing.cassettes.calls import Calls
from ember_testing.cassettes.file import LOCK, Answer, CassetteFile
from ember_testing.exceptions import BudgetExceeded, CassetteError, CassetteMiss, ReplayFailure
from ember_testing.patches import interrupt
from ember_testing.patches.exchange import Exchange, Later
from ember_testing.replay.claims import Claims, Left, Recorded, adopt
from ember_testing.replay.comparison import Comparison
from ember_testing.replay.lookup import Lookup
from ember_testing.replay.miss import explain, record_command
from ember_testing.replay.playing import response_of
from ember_testing.replay.prices import Pins, pins_of
from ember_testing.replay.recording import first_leak, read_with_charges, row_of
from ember_testing.replay.secrets import REDACTED
from ember_testing.replay.settings import Record, Settings
from ember_testing.replay.shared_counts import SharedCounts
from ember_testing.replay.tally import Tally
from ember_testing.wires.body import as_bytes
from ember_testing.wires.response import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from ember_testing.replay.budget import Budget

_LOOK_AGAIN = 0.02  # seconds
_PATIENCE_FOR_OTHERS = 300.0  # seconds; then a request that another session is sending is sent too
_CALLS = "calls"  # stands among the positions of requests, whose keys are digests
# Errors before a connection was there, which cost nothing.
_NOTHING_WAS_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
_EXPLAINED = 3  # misses of one test that get the nearest recording; a loop may make thousands


class Session:
    """A cassette from its opening to its end.

    Args:
        path: The file.
        record: None to replay only, `new` to record what is missing, `all` to record anew.
        settings: How it is used.
        test: Node id of the test, for the file and for the command to type.
        target: Node id for the command to type, where `test` is none.
        run: Names the test run: a cassette that several tests share is recorded anew only once in
            it.
        budget: What recording may cost.

    Raises:
        CassetteError: The file is there and cannot be used.

    Attributes:
        on_failure: Called with each failure, from whichever thread.
        orphans: What a miss says of a renamed test's cassette; None if no tests are known.
    """

    def __init__(
        self,
        path: Path,
        record: Record | None,
        settings: Settings | None = None,
        *,
        test: str = "",
        target: str = "",
        run: str = "",
        budget: Budget | None = None,
    ) -> None:
        self.path = path
        self.settings = settings or Settings()
        self.test = test
        self._target = target or test
        self._failures: list[ReplayFailure] = []
        self.on_failure: Callable[[], None] = lambda: None
        self.orphans: Callable[[Request], list[str]] | None = None
        self.tally = Tally()
        self.played = Calls(self._rows)
        self.recorded = Calls(self._rows)
        self._comparison = Comparison(self.settings)
        self._lookup = Lookup(self._comparison.rules, repeats_last=self.settings.repeats == "last")
        self._run = run
        self._salt = ""
        self._lock = threading.RLock()
        self._exchanges: set[Exchange] = set()
        self._broken: list[str] = []
        self._unread = array("q")  # calls written down, not yet read
        self._budget = budget
        self._since: swap.Found | None = None
        self.pins = Pins()
        self._file: CassetteFile | None = None
        self.record: Record | None = record
        self._calls = 0
        self._shared: SharedCounts | None = None  # once the test has forked
        self._is_forked = False
        self._reopen = False
        self._adopted: list[int] = []  # recordings of other sessions, by number
        self._claims = Claims(path) if record and run else None
        self._open()

    # Opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        if self.record == "all":
            self._since, run = swap.found_at(self.path)
            if self._run and self._run in run.split():
                self.record = "new"  # an earlier test of this run has begun the new file
        if self.record != "all" and self.path.exists():
            self._file = CassetteFile(self.path, self._about() if self.record else None)
            self._file.on_exchange = self._renumber
            self._salt = self._file.salt.decode()
            if self.settings.prices == "recorded":
                self.pins = pins_of(self._file)
        self._salt = self._salt or (self._since and self._since.salt) or schema.salt_of(self.path)
        self._comparison.use_salt(self._salt)

    def _about(self) -> dict[str, str]:
        return schema.about(self._run, self._salt)

    def _for_writing(self) -> CassetteFile:
        """The file that recordings go to; made with the first one, before anything is paid for."""
        if self._file is None:
            path = self.path
            if self.record == "all":
                # In the same folder, so that it can take the old one's place in one step.
                path = path.with_name(f"{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
            self._file = CassetteFile(path, self._about())
            self._file.on_exchange = self._renumber
        return self._file

    def _renumber(self, numbers: Mapping[int, int]) -> None:
        """Another process has recorded the cassette anew, and taken over what this one added."""
        if lost := len(self.recorded) - len(numbers):
            self._broken.append(
                f"{self.path} was recorded anew by another process, which left out {lost} calls of "
                f"this test; to record them again: {self.command()}"
            )
        self.recorded.renumber(numbers)
        self._unread = array("q", [numbers[old] for old in self._unread if old in numbers])

    # A call ----------------------------------------------------------------------------------

    def begin(self, sent: Request) -> Response | Exchange | Later:
        """Count a request, before it is sent, and say what becomes of it.

        Args:
            sent: The request.

        Returns:
            A recorded response, or the exchange that keeps the live one, or when to ask again
            because another process is sending the same request.

        Raises:
            CassetteMiss: Nothing is recorded for it and nothing is to be.
            CassetteError: The file cannot be read or written.
        """
        try:
            with self._lock, self._counting():
                # A test may set a key while it runs.
                if self.record or not self._comparison.has_learnt:
                    self._comparison.learn()
                key = self._comparison.key(sent)
                file = None if self.record == "all" else self._file
                if self._count_call() in self.settings.faults and not self.record:
                    return self._faulted(sent, key)
                answer = self._lookup.next(file, key)
                if answer is None and file is not None:
                    key, answer = self._look_again(sent, file, key)
                if answer is not None:
                    return self._play(answer, sent)
                if self.record:
                    return self._claimed(sent, key, self._lookup.count(key))
                raise self._miss(self._comparison.written(sent), key)
        except CassetteError as error:
            self._broken.append(str(error))
            raise

    def _claimed(
        self, sent: Request, key: str, n: int, waited: float = 0.0
    ) -> Response | Exchange | Later:
        """Send a request, unless another session of the same cassette sends it or has sent it."""
        found = self._claims.claim(key, n) if self._claims is not None else True
        if isinstance(found, Recorded) and self._claims is not None:
            file = self._for_writing()
            answer = adopt(file, found, self.path)
            if answer is not None:
                self._adopted.append(answer.id)
                here = found._replace(file=str(file.path.resolve()), number=answer.id)
                if here.file != found.file:
                    self._claims.record(key, n, here)
                return self._play(answer, sent)
            self._claims.release(key, n)
            found = self._claims.claim(key, n) is True
        if found or waited > _PATIENCE_FOR_OTHERS:
            return self._exchange(sent, key, n)
        again = partial(self._ask_again, sent, key, n, waited + _LOOK_AGAIN)
        return Later(_LOOK_AGAIN, again)

    def _ask_again(
        self, sent: Request, key: str, n: int, waited: float
    ) -> Response | Exchange | Later:
        try:
            with self._lock:
                return self._claimed(sent, key, n, waited)
        except CassetteError as error:
            self._broken.append(str(error))
            raise

    def _look_again(self, sent: Request, file: CassetteFile, key: str) -> tuple[str, Answer | None]:
        """What is found with what was learnt late, or by what was written of other requests."""
        answer = None
        if not self.record and self._comparison.learn():
            key = self._comparison.key(sent)
            answer = self._lookup.next(file, key)
        if answer is None and self._lookup.by_written_form:
            written = self._comparison.written(sent)
            answer = self._lookup.next(file, self._comparison.key_of_written(written))
        if answer is None:
            file.verify(key)
        return key, answer

    def _exchange(self, sent: Request, key: str, n: int) -> Exchange:
        if self._broken:  # what cannot be kept is not to be paid for again and again
            raise CassetteError(self._broken[0])
        self._for_writing()
        written = self._comparison.written(sent, whole=True)
        reservation = None
        if self._budget is not None:
            try:
                reservation = self._budget.reserve(sent.method, sent.url, sent.body)
            except BudgetExceeded as error:
                self._release(key, n)
                message = self._comparison.redaction.text(str(error))
                raise self.fail(BudgetExceeded(message)) from None
        self.pins.follow(None)
        place = {"n": n, "test": self.test or None, **self._comparison.columns(sent, written, key)}
        exchange = Exchange(sent, partial(self._keep, place, written, reservation))
        self._exchanges.add(exchange)
        return exchange

    def _faulted(self, sent: Request, key: str) -> Response:
        """A call that meets a fault; its recording is left to the next one like it."""
        from ember_testing.replay.faults import faulted  # late: few tests have any

        def recorded() -> Response:
            answer = self._lookup.peek(self._file, key)
            if answer is None:
                raise self._miss(self._comparison.written(sent), key)
            return self._play(answer, sent)

        return faulted(self.settings.faults[self._calls], sent, recorded)

    def _count_call(self) -> int:
        """The number of this call, from 1, over all processes of the test."""
        if self._shared is not None:
            self._calls = self._shared[_CALLS]
            self._shared[_CALLS] = self._calls + 1
        self._calls += 1
        return self._calls

    def _play(self, answer: Answer, sent: Request) -> Response:
        assert self._file is not None  # the answer came out of it
        self.pins.follow(answer.id)
        self._count_played(answer.id, answer.elapsed, answer.cost_usd)
        pieces = [data for _, data in answer.pieces]
        self._comparison.learn_answer(answer.body)
        return response_of(
            answer,
            self.pins.following(answer.id, pieces),
            timing=self.settings.timing,
            unplayable=partial(self._unplayable, answer.id, sent),
        )

    def _count_played(self, number: int, elapsed: float | None, cost: float | None) -> None:
        self.played.add(number)
        self.tally.replayed += 1
        self.tally.avoided += elapsed or 0.0
        self._count_cost("saved", cost)
        self._tell("played", [number, elapsed, cost])

    def _unplayable(self, number: int, sent: Request, what: str) -> ReplayFailure:
        url = self._comparison.redaction.url(sent.url)
        return self.fail(
            CassetteMiss(
                f"recording {number} of {sent.method} {url} {what}\n"
                f"to record it anew: {self.command(anew=True)}"
            )
        )

    def _count_cost(self, name: str, cost: float | None) -> None:
        if cost is None:
            self.tally.unpriced += 1
        else:
            setattr(self.tally, name, getattr(self.tally, name) + cost)

    # Keeping ---------------------------------------------------------------------------------

    def _keep(
        self,
        place: Mapping[str, Any],
        request: Request,
        reservation: int | None,
        exchange: Exchange,
    ) -> None:
        """Write a finished call down; what cannot be written fails the test at its end."""
        key, n = place["key"], place["n"]
        with self._lock:
            if exchange not in self._exchanges:
                return  # the session is over
            self._exchanges.discard(exchange)
            refused = (exchange.status or 0) >= 400 and not self.settings.record_errors
            if refused:
                self.note(
                    f"not kept: status {exchange.status} for {request.method} {request.url}; mark "
                    "the test ember_replay(record_errors=True) to record errors"
                )
            if refused or exchange.outcome == "unsent":
                self._release(key, n)
                self._settle(reservation, 0.0)
                return
            self._use_own_connection()
            row, chunks = row_of(exchange, request, self._comparison.redaction)
            row |= place
            self._comparison.learn_answer(as_bytes(row["response_body"] or b""))
            for name in self._comparison.replaced_variables(exchange):
                self.note(
                    f"the answer to {request.method} {request.url} holds the value of ${name}, "
                    f"which its request did not; it is recorded as {REDACTED}, and so replayed"
                )
            file = self._for_writing()
            try:
                number = file.add(row, chunks)
            except CassetteError as error:  # the caller has paid for its answer and gets it
                self._broken.append(str(error))
                self._release(key, n)
                return
            if self._claims is not None:
                where = Recorded(str(file.path.resolve()), number, row["recorded_at"])
                self._claims.record(key, n, where)
            self._count_recorded(number)
            self._tell("recorded", [number, row["recorded_at"]])
            if exchange.status is None and row["error_type"] in _NOTHING_WAS_SENT:
                self._settle(reservation, 0.0)
            elif reservation is not None or self._comparison.sets_prices:
                self._read(reservation)

    def _release(self, key: str, n: int) -> None:
        if self._claims is not None:
            self._claims.release(key, n)

    def _count_recorded(self, number: int) -> None:
        self.recorded.add(number)
        self.tally.recorded += 1
        self._unread.append(number)

    def _settle(self, reservation: int | None, amount: float | None) -> None:
        if reservation is not None and self._budget is not None:
            self._budget.settle(reservation, amount)

    def _read(self, reservation: int | None = None) -> None:
        """Read what was written down: who answered, how many tokens, at what price."""
        file, unread = self._file, self._unread
        if file is None or not unread:
            return
        self._unread = array("q")
        rows = file.rows(unread)
        found = [(row["id"], read_with_charges(row)) for row in rows]
        try:
            file.describe(found)
        except CassetteError as error:
            self._broken.append(str(error))
        for _, read in found:
            if read.problem:
                self.note(read.problem)
            self._count_cost("spent", read.columns["cost_usd"])
        status, cost = rows[-1]["status"] or 0, found[-1][1].columns["cost_usd"]
        self._settle(reservation, 0.0 if status >= 400 else cost)

    def note(self, sentence: str) -> None:
        """Say something at the end of the run."""
        self.tally.notes.append(f"{self.test or self.path}: {sentence}")
        self._tell("note", sentence)

    def fail(self, failure: ReplayFailure) -> ReplayFailure:
        """Remember a failure, so that code which swallows it does not turn it into a success."""
        self._failures.append(failure)
        if self._is_forked and self._shared is not None:
            self._tell("failure", [type(failure).__name__, str(failure)])
            interrupt.call_process(self._shared.owner)
        else:
            self.on_failure()
        return failure

    @property
    def failures(self) -> list[ReplayFailure]:
        """What failed so far, in this process and in those that the test has forked."""
        self.collect()
        return self._failures

    # Forked processes --------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold everything still, and count in a file from now on that both processes use."""
        self._lock.acquire()
        LOCK.acquire()
        try:
            positions = self._lookup.positions
            if not isinstance(positions, SharedCounts):
                self._shared = SharedCounts({**positions, _CALLS: self._calls})
                self._lookup.positions = self._shared
                interrupt.listen(lambda: self.on_failure())
                if self._budget is not None:
                    self._budget.share()
            if self.record:
                self._for_writing()  # one file, whichever process records first
        except CassetteError as error:
            self._broken.append(str(error))

    def after_fork(self, *, forked: bool) -> None:
        """Go on, in both processes.

        Args:
            forked: Whether this is the new one.
        """
        if forked:
            self._is_forked = True
            self._reopen = self._file is not None
            self._exchanges = set()  # the other process's
        LOCK.release()
        self._lock.release()

    @contextmanager
    def _counting(self) -> Generator[None]:
        """While a request is counted: no other process of the test counts one."""
        if self._shared is None:
            yield
            return
        self._use_own_connection()
        with self._shared.locked():
            yield

    def _use_own_connection(self) -> None:
        if self._reopen and self._file is not None:
            self._reopen = False
            self._file.reopen()

    def _tell(self, kind: str, value: Any) -> None:
        if self._is_forked and self._shared is not None:
            self._shared.tell(kind, value)

    def collect(self) -> None:
        """Count what forked processes have done since the last time."""
        if self._shared is None or self._is_forked:
            return
        with self._lock:
            for kind, value in self._shared.news():
                if kind == "played":
                    self._count_played(*value)
                elif kind == "recorded":
                    number, recorded_at = value
                    self._count_recorded(number)
                    self._for_writing().added.append((number, recorded_at))
                elif kind == "note":
                    self.note(value)
                else:
                    name, text = value
                    self.tally.missed += name == CassetteMiss.__name__
                    self._failures.append(getattr(exceptions, name)(text))

    # The end ---------------------------------------------------------------------------------

    def close(self, passed: bool) -> None:
        """End the session: put the recording into its place, or drop it.

        Args:
            passed: Whether the test has passed; a failed one keeps its old cassette.

        Raises:
            CassetteError: Something could not be written, or would have held a credential.
        """
        if self._is_forked:
            return None  # the cassette is the other process's to end
        with self._lock:
            for exchange in list(self._exchanges):
                exchange.finish("closed")
            self.collect()
            if self._shared is not None:
                self._shared.end()
                interrupt.listen_no_longer()
            if self.record:  # what was learnt late may stand in what was written before
                self._comparison.learn()
            elif passed:
                self._broken += self.settings.unmet_faults(self._calls)
            self._read()
            file, self._file = self._file, None
            keep = passed and not (self.record and file is not None and self._would_leak(file))
            left = self._claims.leave(keep) if self._claims is not None else Left()
            if file is None:
                return self._complain()
            try:
                if self.record and not (keep and file.added):
                    self._drop(file, left)
                elif self.record == "all":
                    swap.replace(file, self.path, self._since)
            finally:
                file.close()
            return self._complain()

    def _drop(self, file: CassetteFile, left: Left) -> None:
        if self.record == "all":
            file.close()
            file.path.unlink(missing_ok=True)
        else:
            others = [each for each in left.dropped if each not in file.added]
            if left.kept or others:
                file.added = [each for each in file.added if each not in left.kept] + others
                file.created, file.snapshot = False, None
            swap.take_back(file)
        if (dropped := len(self.recorded) - len(left.kept)) > 0:
            self.note(f"{dropped} new recordings dropped, the cassette is as it was")

    def _would_leak(self, file: CassetteFile) -> bool:
        """Whether a credential that was learnt later stands in what was written before."""
        numbers = [*self.recorded.numbers(), *self._adopted]
        leak = first_leak(file, numbers, self._comparison.redaction)
        if leak is not None:
            self._broken.append(f"{self.path} is not written: {leak}")
        return leak is not None

    def _complain(self) -> None:
        if self._broken:
            raise CassetteError("\n".join(dict.fromkeys(self._broken)))

    def stale(self, days: float | None) -> int:
        """How many of the played recordings are older than that."""
        if days is None or self._file is None:
            return 0
        oldest = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        return sum(row["recorded_at"] < oldest for row in self._file.rows(self.played.numbers()))

    def unused(self) -> int:
        """How many recordings of the file were not asked for."""
        self.collect()
        if self._file is None or self.record:
            return 0
        return self._file.size() - len(set(self.played.numbers()))

    def _rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        with self._lock:
            self._use_own_connection()
            self._read()
            if self._file is not None:
                return self._file.rows(numbers)
        if not self.path.exists():
            return []
        file = CassetteFile(self.path)
        try:
            return file.rows(numbers)
        finally:
            file.close()

    # A miss ----------------------------------------------------------------------------------

    def command(self, anew: bool = False) -> str:
        """What to type to record what is missing, or all of it anew."""
        return record_command(self._target, self.path, anew=anew)

    def _miss(self, request: Request, key: str) -> ReplayFailure:
        self.tally.missed += 1
        return self.fail(
            CassetteMiss(
                explain(
                    request,
                    self.path,
                    self._file,
                    n=self._lookup.count(key),
                    recorded=self._lookup.recorded(self._file, key) if self._file else 0,
                    compare=len(self._failures) < _EXPLAINED,
                    command=self.command(),
                    rules=self._comparison.rules,
                    orphans=self.orphans,
                )
            )
        )
