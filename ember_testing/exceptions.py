"""What a recorded or replayed test can fail with.

BaseException
└── ReplayFailure       a replayed test did what its recording does not hold; no `except Exception`,
    │                   and so no retry, swallows it
    ├── BudgetExceeded  a call that might cost more than is left of the budget; it was not sent
    ├── CassetteMiss    a request that has no recording (left)
    └── NetworkBlocked  a connection, by any library, that would leave the process
Exception
└── CassetteError       the cassette file cannot be used: missing rights, damaged, foreign, newer
Warning
└── RecordingWarning    something that came was not written down, and why
"""

from __future__ import annotations


class ReplayFailure(BaseException):
    """A replayed test left its recording.

    It derives from `BaseException` because code under test catches `Exception` for good reasons of
    its own (a retry, a fallback model), and would turn a stale cassette into a green test.
    """


class CassetteMiss(ReplayFailure):
    """A request that the cassette holds no recording for, or no further one."""


class BudgetExceeded(ReplayFailure):
    """A call that was not sent, because it might cost more than is left of the budget."""


class NetworkBlocked(ReplayFailure):
    """A connection or a name look-up that would leave the process during a replay."""


class CassetteError(Exception):
    """A cassette file that cannot be read or written; the message names it and the remedy."""


class RecordingWarning(UserWarning):
    """Something was deliberately not written into the cassette."""


def missing_extra(feature: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """What to raise in the place of an import that failed: one line, with what to install.

    Args:
        feature: What needs the package, as the user calls it.
        error: The import's own, which names the package.
    """
    message = (
        f"{feature} needs {error.name}, of the extra `testing`: pip install 'ember-models[testing]'"
    )
    return ModuleNotFoundError(message, name=error.name)
