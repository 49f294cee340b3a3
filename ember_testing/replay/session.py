"""Sessions: a cassette in use, which answers requests and records live calls.

Shared by sync and async callers; only the patched transports await.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

from ember_testing.cassettes.calls import Calls
from ember_testing.cassettes.file import LOCK, CassetteFile
from ember_testing.cassettes.rows import Answer
from ember_testing.exceptions import CassetteError, CassetteMiss, ReplayFailure
from ember_testing.patches import hangs, worker
from ember_testing.patches.exchange import Exchange, Later, Reply, close_abandoned
from ember_testing.replay.comparison import Comparison
from ember_testing.replay.lookup import Lookup
from ember_testing.replay.miss import explain, record_command
from ember_testing.replay.outcome import Outcome
from ember_testing.replay.playing import response_of
from ember_testing.replay.prices import RecordedPrices, recorded_prices
from ember_testing.replay.recorder import Recorder
from ember_testing.replay.settings import DEFAULT_MATCH_ON, RecordMode, Settings
from ember_testing.replay.shared_counts import SharedCounts
from ember_testing.wires.response import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from ember_testing.replay.budget import Budget

_LOOK_AGAIN = 0.02  # seconds
_CALLS = "calls"  # a key of the positions, whose other keys are digests
_EXPLAINED = 3  # misses of a test explained by the nearest recording; a loop may make thousands


class Session:
    """A cassette in use.

    Args:
        path: The cassette's file.
        record: None to replay only, `new` to record what is missing, `all` to record anew.
        settings: The replay settings.
        test: Node id of the test, stored in the file and used in the suggested command.
        target: Node id for the suggested command if `test` is empty.
        run: Names the test run: a shared cassette is recorded anew only once per run.
        budget: The budget of the recording.

    Raises:
        CassetteError: The file exists and cannot be used.
    """

    def __init__(
        self,
        path: Path,
        record: RecordMode | None,
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
        # Returns the lines of a miss about a renamed test's cassette; None if no tests are known.
        self.orphans: Callable[[Request], list[str]] | None = None
        self._lock = threading.RLock()
        self.outcome = Outcome(test or str(path))
        self._comparison = Comparison(self.settings)
        self._lookup = Lookup(self._comparison.rules, repeats_last=self.settings.repeats == "last")
        self._recorder = Recorder(
            path,
            record,
            run=run,
            test=test,
            lock=self._lock,
            comparison=self._comparison,
            outcome=self.outcome,
            budget=budget,
            record_errors=self.settings.record_errors,
            command=self.command,
        )
        self.played = Calls(self._recorder.rows)  # the calls answered from the file
        self._calls = 0
        file = self._recorder.file
        pinned = file is not None and self.settings.prices == "recorded"
        self.prices = recorded_prices(file) if pinned and file is not None else RecordedPrices()

    @property
    def record_mode(self) -> RecordMode | None:
        """None to replay only, `new` to record what is missing, `all` to record anew."""
        return self._recorder.record_mode

    @property
    def recorded(self) -> Calls:
        """The calls that were recorded."""
        worker.drain()
        return self._recorder.recorded

    # A call ----------------------------------------------------------------------------------

    def answer(self, sent: Request) -> Reply:
        """Count a request and answer it, before it is sent.

        Returns:
            A recorded response, the exchange that records the live one, or a `Later` if another
            process is sending the same request.

        Raises:
            CassetteMiss: The request has no recording, and the session only replays.
            CassetteError: The file cannot be read or written.
        """
        try:
            with self._lock, self._lock_shared_counts():
                # A test may set a key while it runs.
                if self.record_mode or not self._comparison.has_environment:
                    self._comparison.read_environment()
                sent = self._comparison.with_replayed_credentials(sent)
                key = self._comparison.key(sent)
                file = None if self.record_mode == "all" else self._recorder.file
                if self._count_call() in self.settings.faults and not self.record_mode:
                    return self._faulted(sent, key)
                answer = self._lookup.take(file, key)
                if answer is None and file is not None:
                    key, answer = self._look_again(sent, file, key)
                if answer is not None:
                    return self._play(answer, sent)
                if self.record_mode:
                    return self._send(sent, key, self._lookup.count(key))
                raise self._miss(self._comparison.redacted(sent), key)
        except CassetteError as error:
            self.outcome.problems.append(str(error))
            raise

    async def answer_async(self, sent: Request) -> Reply:
        """Like `answer`, without blocking the event loop on files."""
        answer = self._loaded_answer(sent)
        if answer is not None:
            return answer
        found = await worker.run(partial(self._load_and_answer, sent), close_abandoned)
        if isinstance(found, Exchange):
            self.prices.apply(None)  # here, in the caller's context
        return found

    def _loaded_answer(self, sent: Request) -> Response | None:
        """Return a recorded response that is already in memory."""
        file = self._recorder.file
        # Earlier requests that are still being looked up come first.
        if self.record_mode or self.settings.faults or file is None or not worker.is_idle():
            return None
        with self._lock:
            if self.outcome.shared is not None or not self._comparison.has_environment:
                return None
            answer = self._lookup.take_loaded(file, self._comparison.key(sent))
            if answer is None:
                return None
            self._count_call()
            return self._play(answer, sent)

    def _load_and_answer(self, sent: Request) -> Reply:
        if self._recorder.file is not None and not self.record_mode:
            with self._lock:
                self._recorder.use_own_connection()
                self._recorder.file.load()
        return self.answer(sent)

    def _send(self, sent: Request, key: str, n: int, waited: float = 0.0) -> Reply:
        """Answer a request that has no recording yet."""
        found = self._recorder.claim(sent, key, n, waited)
        if found is None:
            again = partial(self._ask_again, sent, key, n, waited + _LOOK_AGAIN)
            return Later(_LOOK_AGAIN, again)
        if isinstance(found, Answer):
            return self._play(found, sent)
        self.prices.apply(None)
        return found

    def _ask_again(self, sent: Request, key: str, n: int, waited: float) -> Reply:
        try:
            with self._lock:
                return self._send(sent, key, n, waited)
        except CassetteError as error:
            self.outcome.problems.append(str(error))
            raise

    def _look_again(self, sent: Request, file: CassetteFile, key: str) -> tuple[str, Answer | None]:
        """Look up a request again, with new secrets, the file's rules, or by recorded form."""
        answer = None
        if not self.record_mode and self._comparison.read_environment():
            key = self._comparison.key(sent)
            answer = self._lookup.take(file, key)
        if answer is None and self._use_rules_of(file):
            key = self._comparison.key(sent)
            answer = self._lookup.take(file, key)
        if answer is None and self._lookup.by_redacted_form:
            redacted = self._comparison.redacted(sent)
            answer = self._lookup.take(file, self._comparison.key_of_redacted(redacted))
        if answer is None:
            file.verify(key)
        return key, answer

    def _use_rules_of(self, file: CassetteFile) -> bool:
        """Use the cassette's own `match_on` if the test sets none; return whether it has one."""
        rules = self._comparison.rules
        if rules.match_on != DEFAULT_MATCH_ON or not (match_on := file.match_on):
            return False
        self._comparison.rules = replace(rules, match_on=match_on)
        self._lookup.compare_by(self._comparison.rules)
        return True

    def rewind(self) -> None:
        """Start again from the first recording of each request."""
        with self._lock:
            self._lookup.positions = Counter()

    def _faulted(self, sent: Request, key: str) -> Response:
        """Return the response to a call with a fault; the next identical one gets its recording."""
        from ember_testing.replay.faults import faulted  # late: few tests use faults

        def recorded() -> Response:
            answer = self._lookup.find(self._recorder.file, key)
            if answer is None:
                raise self._miss(self._comparison.redacted(sent), key)
            return self._play(answer, sent)

        return faulted(self.settings.faults[self._calls], sent, recorded)

    def _count_call(self) -> int:
        """Return the number of this call, from 1, across all processes of the test."""
        if (shared := self.outcome.shared) is not None:
            self._calls = shared[_CALLS]
            shared[_CALLS] = self._calls + 1
        self._calls += 1
        return self._calls

    def _play(self, answer: Answer, sent: Request) -> Response:
        self.prices.apply(answer.id)
        self._count_played(answer.id, answer.elapsed, answer.cost_usd)
        pieces = [data for _, data in answer.pieces]
        self._comparison.add_issued_ids(answer.body)
        return response_of(
            answer,
            self.prices.applied_while_read(answer.id, pieces),
            timing=self.settings.timing,
            unplayable=partial(self._unplayable, answer.id, sent),
        )

    def _count_played(self, number: int, elapsed: float | None, cost: float | None) -> None:
        self.played.add(number)
        self.outcome.tally.replayed += 1
        self.outcome.tally.avoided += elapsed or 0.0
        self.outcome.count_cost("saved", cost)
        self.outcome.report("played", [number, elapsed, cost])

    def _unplayable(self, number: int, sent: Request, what: str) -> ReplayFailure:
        url = self._comparison.redaction.url(sent.url)
        return self.outcome.fail(
            CassetteMiss(
                f"recording {number} of {sent.method} {url} {what}\n"
                f"to record it anew: {self.command(anew=True)}"
            )
        )

    # Results -----------------------------------------------------------------------------------

    @property
    def failures(self) -> list[ReplayFailure]:
        """The failures so far, in this process and in those that the test forked."""
        worker.drain()
        self.collect()
        return self.outcome.failures

    # Forked processes --------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Take the locks, and move the counts to a file that both processes use."""
        self._lock.acquire()
        LOCK.acquire()
        try:
            positions = self._lookup.positions
            if not isinstance(positions, SharedCounts):
                shared = SharedCounts({**positions, _CALLS: self._calls})
                self.outcome.shared = self._lookup.positions = shared
                hangs.watch_forks(lambda: self.outcome.on_failure())
            if self.record_mode:
                self._recorder.for_writing()  # one file, whichever process records first
        except CassetteError as error:
            self.outcome.problems.append(str(error))

    def after_fork(self, *, forked: bool) -> None:
        """Release the locks, in both processes; `forked` in the child."""
        if forked:
            self.outcome.is_forked = True
            self._recorder.fork()
        LOCK.release()
        self._lock.release()

    @contextmanager
    def _lock_shared_counts(self) -> Generator[None]:
        """Keep the test's other processes from counting inside the block."""
        if self.outcome.shared is None:
            yield
            return
        self._recorder.use_own_connection()
        with self.outcome.shared.locked():
            yield

    def collect(self) -> None:
        """Count the forked processes' calls since the last time."""
        if self.outcome.shared is None:
            return
        with self._lock:
            for kind, value in self.outcome.new_calls():
                if kind == "played":
                    self._count_played(*value)
                else:
                    self._recorder.count_of_fork(*value)

    # The end ---------------------------------------------------------------------------------

    def close(self, passed: bool) -> None:
        """End the session: keep the recording, or drop it; a failed test keeps its old cassette.

        Raises:
            CassetteError: A file could not be written, or would have held a credential.
        """
        if self.outcome.is_forked:
            return  # the parent process ends the session
        worker.drain()
        with self._lock:
            self._recorder.finish_exchanges()
            self.collect()
            if self.outcome.shared is not None:
                self.outcome.shared.end()
                hangs.ignore_forks()
            if passed and not self.record_mode:
                self.outcome.problems += self.settings.unmet_faults(self._calls)
            self._recorder.close(passed)
            self.outcome.raise_problems()

    def stale(self, days: float | None) -> int:
        """Return how many of the replayed recordings are older than `days`."""
        file = self._recorder.file
        if days is None or file is None:
            return 0
        oldest = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        times = {number: at for number, at, _ in file.times()}
        return sum(times.get(number, oldest) < oldest for number in self.played.numbers())

    def unused(self) -> int:
        """Return how many recordings of the file were not replayed."""
        self.collect()
        file, played = self._recorder.file, len(set(self.played.numbers()))
        if file is None or self.record_mode or played == file.horizon:  # the ids begin at 1
            return 0
        return file.size() - played

    # A miss ----------------------------------------------------------------------------------

    def command(self, anew: bool = False) -> str:
        """Return the command that records what is missing, or everything anew."""
        return record_command(self._target, self.path, anew=anew)

    def _miss(self, request: Request, key: str) -> ReplayFailure:
        self.outcome.tally.missed += 1
        file = self._recorder.file
        return self.outcome.fail(
            CassetteMiss(
                explain(
                    request,
                    self.path,
                    file,
                    n=self._lookup.count(key),
                    recorded=self._lookup.recorded(file, key) if file else 0,
                    compare=len(self.outcome.failures) < _EXPLAINED,
                    command=self.command(),
                    rules=self._comparison.rules,
                    orphans=self.orphans,
                )
            )
        )
