"""End a marked test that hangs after a miss in one of its threads or processes."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest

from ember_testing.patches.hangs import HangWatch

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
        self._session: Session | None = None
        self._watch: HangWatch | None = None

    def watch(self, session: Session) -> None:
        """Watch the test of this session."""
        self._session = session
        session.on_failure = self.failed

    def failed(self) -> None:
        """Start watching after a failure in any thread: the test may now wait forever."""
        if self._watch is not None:
            self._watch.begin()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Watch the setup: fixtures may wait forever."""
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Watch the test: it may wait forever."""
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Watch the teardown: fixtures may wait forever."""
        return (yield from self._watched(item))

    def _watched(self, item: pytest.Item) -> Generator[None]:
        if item not in self._marked:
            return (yield)
        watch = self._watch = HangWatch()
        try:
            return (yield)
        except KeyboardInterrupt:
            if not watch.interrupted or self._session is None:
                raise
            failures = "\n\n".join(dict.fromkeys(map(str, self._session.failures)))
            pytest.fail(
                f"{failures}\nThe test was waiting for the thread, task or process that met this.",
                pytrace=False,
            )
        finally:
            self._watch = None
            # The interrupt may arrive while the phase is ending normally.
            with suppress(KeyboardInterrupt) if watch.interrupted else nullcontext():
                watch.end()
