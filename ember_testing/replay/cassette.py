"""`ember_testing.cassette`: cassettes without pytest."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.exceptions import RecordingWarning
from ember_testing.replay.active import activate, deactivate
from ember_testing.replay.budget import Budget
from ember_testing.replay.session import Session
from ember_testing.replay.settings import DEFAULT_MATCH_ON, RecordMode, Settings
from ember_testing.replay.vcr_names import VcrRequest, vcr_response

if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Generator, Mapping, Sequence

    from ember_testing.cassettes.calls import Call, Calls
    from ember_testing.faults import Fault
    from ember_testing.replay.redaction import Rule


class Cassette:
    """The calls replayed and recorded so far."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rewound_at = 0  # number of replayed calls at the last `rewind`

    @property
    def path(self) -> Path:
        """The cassette's file."""
        return self._session.path

    @property
    def played(self) -> Calls:
        """The calls answered from the file, in order."""
        self._session.collect()
        return self._session.played

    @property
    def recorded(self) -> Calls:
        """The calls that were sent and recorded, in the order in which they ended."""
        self._session.collect()
        return self._session.recorded

    @property
    def recorded_at(self) -> datetime:
        """When the oldest call so far, or else the oldest of the file, was recorded; in UTC.

        The current time if nothing is recorded yet. A test that sets the clock to it, before the
        first call, sends the same dates as when it was recorded.
        """
        times = [call.recorded_at for call in (*self.played, *self.recorded)]
        if not times and self._session.record_mode != "all" and self.path.exists():
            with CassetteFile(self.path) as file:
                times = [at for _, at, _ in file.times()]
        if not times:
            return datetime.now(timezone.utc)
        return min(map(datetime.fromisoformat, times))

    # The interface of vcrpy's cassette, for tests written for it.

    @property
    def play_count(self) -> int:
        """The number of calls answered from the file since the last `rewind`."""
        return len(self.played) - self._rewound_at

    @property
    def all_played(self) -> bool:
        """Whether every recording was replayed or was recorded by this test."""
        numbers = self.played.numbers()[self._rewound_at :]
        return len(set(numbers)) >= len(self) - len(self.recorded)

    @property
    def requests(self) -> list[VcrRequest]:
        """The requests of all recordings, with vcrpy's names: `uri`, `body` (bytes), `headers`."""
        return [VcrRequest(call) for call in self._recordings()]

    @property
    def responses(self) -> list[dict[str, Any]]:
        """The responses, with vcrpy's names: `["body"]["string"]`, `["status"]["code"]`."""
        return [vcr_response(call) for call in self._recordings()]

    def rewind(self) -> None:
        """Start again from the first recording, with a `play_count` of 0."""
        self._rewound_at = len(self.played)
        self._session.rewind()

    def __len__(self) -> int:
        return len(self._recordings())

    def __bool__(self) -> bool:
        return True

    def _recordings(self) -> list[Call]:
        """Return the recordings of the file and those that the test has added, in order."""
        recorded = list(self.recorded)
        if self._session.record_mode == "all" or not self.path.exists():
            return recorded
        with CassetteFile(self.path) as file:
            return list(calls_of(file))

    def __repr__(self) -> str:
        return (
            f"Cassette({str(self.path)!r}, {len(self.played)} played, "
            f"{len(self.recorded)} recorded)"
        )


@contextmanager
def cassette(
    path: str | os.PathLike[str],
    record: RecordMode | None = None,
    *,
    match_on: Sequence[str] = DEFAULT_MATCH_ON,
    ignore: Sequence[str | re.Pattern[str]] = (),
    null_is_absent: bool = False,
    redact: Sequence[str | Rule] = (),
    repeats: str = "error",
    record_errors: bool = False,
    timing: bool = False,
    allow_loopback: bool = False,
    allow_hosts: Sequence[str] = (),
    ignore_hosts: Sequence[str] = (),
    allow_subprocess: bool = False,
    prices: str = "recorded",
    faults: Mapping[int, Fault] | None = None,
    budget: float | None = None,
) -> Generator[Cassette]:
    """Record or replay the calls of every client in the process, sync and async.

    Without `record` nothing leaves the process inside the block. If the block raises, calls
    recorded with `"new"` are kept (they are paid for); with `"all"` the old file stays.

    Args:
        path: The cassette's file.
        record: None to replay only, `"new"` to record what is missing, `"all"` to record anew.
        match_on: Parts of the request that are compared: method, scheme, host, port, path, query,
            url, body, `header:NAME`.
        ignore: Parts that vary and are not compared: JSON paths of the body (`metadata.run_id`),
            `query.NAME`, `form.NAME`, `form.NAME.filename`, and patterns in texts.
        null_is_absent: Treat a null at the top of a JSON body as a missing key.
        redact: Values to redact besides credentials: patterns, and functions that return the
            redacted text.
        repeats: After the last recording of a request: `"error"`, or `"last"` to repeat it.
        record_errors: Keep recorded answers of status 400 and above.
        timing: Replay the pauses too.
        allow_loopback: Let calls to this machine through, neither recorded nor replayed.
        allow_hosts: Hosts that may be reached, neither recorded nor replayed: names, patterns
            (`*.internal`), addresses, networks (`10.0.0.0/8`).
        ignore_hosts: Hosts whose calls are neither recorded nor replayed; in a replay they fail
            with a refused connection.
        allow_subprocess: Leave the environment of child processes unchanged.
        prices: The prices of replayed calls: `"recorded"`, those in force when the call was
            recorded, or `"current"`.
        faults: Faults by the number of the call in a replay, from 1, such as
            `{3: rate_limit()}`; see `ember_testing.faults`.
        budget: US dollars that recording may cost, by the rule of `ember_testing.replay.budget`.

    Yields:
        The calls replayed and recorded so far.

    Raises:
        BudgetExceeded: A call was not sent because it might cost more than is left.
        CassetteMiss: A request has no recording; raised again at the end if it was swallowed.
        NetworkBlocked: Other traffic would have left the process; raised again in the same way.
        CassetteError: The file cannot be read or written.
        ValueError: An argument has an invalid value.
    """
    settings = {
        "match_on": match_on,
        "ignore": ignore,
        "null_is_absent": null_is_absent,
        "redact": redact,
        "repeats": repeats,
        "record_errors": record_errors,
        "timing": timing,
        "allow_loopback": allow_loopback,
        "allow_hosts": allow_hosts,
        "ignore_hosts": ignore_hosts,
        "allow_subprocess": allow_subprocess,
        "prices": prices,
        "faults": faults or {},
    }
    with opened(Path(path), record, budget, settings) as session:
        activate(session)
        try:
            yield Cassette(session)
        finally:
            deactivate(session)


@contextmanager
def opened(
    path: Path, record: RecordMode | None, budget: float | None, settings: Mapping[str, Any]
) -> Generator[Session]:
    """Open a session until the block ends; then warn of its notes and raise its failures.

    For the arguments see `cassette`; `settings` are those of `Settings`.
    """
    if record not in (None, "new", "all"):
        raise ValueError(f"record={record!r}: expected None, 'new' or 'all'")
    purse = Budget(budget) if budget is not None else None
    session = Session(path, record, Settings(**settings), budget=purse)
    passed = False
    try:
        yield session
        passed = True
    finally:
        session.close(passed=passed or session.record_mode == "new")
        if purse is not None:
            purse.close()
        for note in session.outcome.tally.notes:
            warnings.warn(note, RecordingWarning, stacklevel=5)
        if session.failures and not isinstance(sys.exc_info()[1], type(session.failures[0])):
            raise session.failures[0]
