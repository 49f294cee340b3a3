"""End a marked test that hangs after a miss in one of its threads or processes."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest

from ember_testing.patches.hangs import HangWatch
from ember_testing.plugin.failures import messages

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ember_testing.replay.session import Session

HANGS = "ember-hangs"
"""The name under which the plugin is registered."""


class HangHooks:
    """The hooks around the phases of a test.

    Args:
        marked: The tests with the marker.
    """

    def __init__(self, marked: Iterable[pytest.Item]) -> None:
        self._marked = frozenset(marked)
        self.session: Session | None = None  # of the running test
        self._watch: HangWatch | None = None

    def failed(self) -> None:
        """Start watching after a failure in any thread: the test may now wait forever."""
        if self._watch is not None:
            self._watch.begin()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Watch a phase: the test or a fixture may wait forever."""
        if item not in self._marked:
            return (yield)
        watch = self._watch = HangWatch()
        try:
            return (yield)
        except KeyboardInterrupt:
            if not watch.interrupted or self.session is None:
                raise
            pytest.fail(
                f"{messages(self.session.failures)}\n"
                "The test was waiting for the thread, task or process that met this.",
                pytrace=False,
            )
        finally:
            self._watch = None
            # The interrupt may arrive while the phase is ending normally.
            with suppress(KeyboardInterrupt) if watch.interrupted else nullcontext():
                watch.end()

    pytest_runtest_setup = pytest_runtest_teardown = pytest_runtest_call
