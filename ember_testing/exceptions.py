"""The exceptions and warnings of recorded and replayed tests.

BaseException
└── ReplayFailure       a replayed test did something that is not recorded; no `except Exception`,
    │                   and so no retry, swallows it
    ├── BudgetExceeded  a call that might cost more than is left of the budget; it was not sent
    ├── CassetteMiss    a request that has no recording (left)
    └── NetworkBlocked  a connection, by any library, that would leave the process
Exception
└── CassetteError       the cassette file cannot be used: no permission, damaged, foreign, too new
Warning
└── RecordingWarning    something was deliberately not recorded, and why
"""

from __future__ import annotations


class ReplayFailure(BaseException):
    """A replayed test that departed from its recording.

    It derives from `BaseException` because code under test catches `Exception` for good reasons (a
    retry, a fallback model), and would let a test with a stale cassette pass.
    """


class CassetteMiss(ReplayFailure):
    """A request for which the cassette has no recording, or none that is unused."""


class BudgetExceeded(ReplayFailure):
    """A call that was not sent because it might cost more than is left of the budget."""


class NetworkBlocked(ReplayFailure):
    """A connection or a name look-up that would leave the process during a replay."""


class CassetteError(Exception):
    """A cassette file that cannot be read or written; the message names it and says what to do."""


class RecordingWarning(UserWarning):
    """A warning that something was deliberately not written to the cassette."""


def missing_extra(feature: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error to raise for a failed import: one line, with what to install.

    Args:
        feature: The feature that needs the package, as the user calls it.
        error: The import error, which names the package.
    """
    message = (
        f"{feature} needs {error.name}, of the extra `testing`: pip install 'ember-models[testing]'"
    )
    return ModuleNotFoundError(message, name=error.name)
