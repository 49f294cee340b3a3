"""A miss is what its test is said to have failed by, whatever the test raised in the end.

Code under test turns a miss into other errors: a client wraps it, a task group puts it into a
group, a portal cancels what waits for it, a fallback trips over the missing answer. Those are told
below it.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from contextlib import aclosing
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence

    from ember_testing.replay.session import Session

__all__ = ["SESSION", "AsyncFailures", "caused_by_failure", "headline", "messages"]

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""Of a marked test, from its set-up to the report of its teardown."""

_LONGEST_LINE = 200  # characters of what was raised afterwards


def messages(failures: Sequence[BaseException]) -> str:
    """What several failures say, each sentence once."""
    return "\n\n".join(dict.fromkeys(str(failure) for failure in failures))


def headline(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    text: str,
    failures: Sequence[BaseException] = (),
) -> None:
    """Fail a phase of a test, or let what it failed by come first.

    Args:
        item: The test.
        call: The phase.
        report: Of the phase; changed in place.
        text: What the test failed by.
        failures: The same, as they were raised.
    """
    error = call.excinfo.value if call.excinfo else None
    told = isinstance(error, pytest.fail.Exception) and text in str(error)
    place = _place(item, [*([error] if error else []), *failures])
    text = (str(error) if told else text) + place
    if report.failed and call.excinfo and error is not None and not (told or _is_failure(error)):
        lines = str(error).strip().splitlines()
        words = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        text += f"\nthen raised: {words[:_LONGEST_LINE]}"
        if not _explains(error):
            way = str(call.excinfo.getrepr(style="short"))
            report.sections.append(("raised after the miss", way))
    report.outcome = "failed"
    report.longrepr = text
    # An expected failure is another one than a recording that is missing.
    vars(report).pop("wasxfail", None)


def _is_failure(error: BaseException | None) -> bool:
    from ember_testing.exceptions import ReplayFailure

    return isinstance(error, ReplayFailure)


def caused_by_failure(error: BaseException | None) -> bool:
    """Whether a failure of a replay or a fake led to this error, or is in this group."""
    return any(map(_is_failure, _related(error)))


def _explains(error: BaseException) -> bool:
    """Whether the code raised this error because of a failure, and says so itself."""
    return any(map(_is_failure, _related(error, context=False)))


def _related(error: BaseException | None, *, context: bool = True) -> Iterator[BaseException]:
    """An error, the members of a group, and what they were raised from or after."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # Groups have it; the class itself is not there on Python 3.10.
        waiting += cast("Sequence[BaseException]", getattr(each, "exceptions", ()))
        waiting.append(each.__cause__)
        if context:
            waiting.append(each.__context__)


def _place(item: pytest.Item, errors: Sequence[BaseException]) -> str:
    """The test's own line, else the last one of the project's that led to it.

    The way through the HTTP client's files tells nobody anything.
    """
    found: dict[bool, str] = {}
    for error in (related for each in errors for related in _related(each)):
        step = error.__traceback__
        while step is not None:
            path = Path(step.tb_frame.f_code.co_filename)
            own = path == item.path
            if own or (True not in found and _is_of_project(path, item.config.rootpath)):
                shown = item.location[0] if own else path.relative_to(item.config.rootpath)
                found[own] = f"\n{shown}:{step.tb_lineno}"
            step = step.tb_next
        if True in found:
            break
    return found.get(True) or found.get(False) or ""


def _is_of_project(path: Path, root: Path) -> bool:
    installed = {"site-packages", "dist-packages", "ember_testing"}
    return (
        root in path.parents
        and not installed & {*path.parts}
        and Path(sys.prefix) not in path.parents
    )


class AsyncFailures:
    """Ends async tests and fixtures by an outcome of pytest's, where they would end by a miss.

    A miss is no `Exception`, so that code under test does not swallow it; where it leaves the test,
    the runners of async tests (anyio's, which one task serves for many) would end by it as by an
    interrupt, and with them the tests that come after.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Run a test."""
        function: Any = pyfuncitem.obj
        if not inspect.iscoroutinefunction(function):
            return (yield)
        pyfuncitem.obj = _with_outcome(function, pyfuncitem)
        try:
            return (yield)
        finally:
            pyfuncitem.obj = function

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Set a fixture up; its teardown, behind a `yield`, is the same function's."""
        function: Any = fixturedef.func
        if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            return (yield)
        item: pytest.Item = request._pyfuncitem  # pyright: ignore[reportPrivateUsage]  # session fixtures have no other way
        definition: Any = fixturedef  # whose `func` is read-only for type checkers
        definition.func = _with_outcome(function, item)
        try:
            return (yield)
        finally:
            definition.func = function


def _with_outcome(function: Callable[..., Any], item: pytest.Item) -> Callable[..., Any]:
    if isinstance(function, types.MethodType):  # plugins look whose method it is
        return types.MethodType(_with_outcome(function.__func__, item), function.__self__)

    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def generate(*arguments: Any, **named: Any) -> AsyncGenerator[Any, None]:
            __tracebackhide__ = True
            try:
                async with aclosing(function(*arguments, **named)) as values:
                    async for value in values:
                        yield value
            except BaseException as error:
                _end_by(error, item)
                raise

        return generate

    @wraps(function)
    async def run(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        try:
            return await function(*arguments, **named)
        except BaseException as error:
            _end_by(error, item)
            raise

    return run


def _end_by(error: BaseException, item: pytest.Item) -> None:
    """Raise an outcome in the place of an error that a failure led to and that is no Exception."""
    __tracebackhide__ = True
    stops = (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)
    if isinstance(error, (*stops, pytest.fail.Exception, pytest.skip.Exception)):
        return
    failures = [*filter(_is_failure, _related(error))]
    session = item.stash.get(SESSION, None)
    if isinstance(error, asyncio.CancelledError) and session is not None:
        failures = [*session.failures]  # what cancels a task may be the failure of another one
    if failures:
        raise pytest.fail.Exception(messages(failures), pytrace=False) from error
