"""Report a miss as the reason for a test's failure, whatever the test raised in the end.

Code under test turns a miss into other errors: a client wraps it, a task group puts it into an
exception group, a portal cancels the tasks that wait for it, a fallback fails without the answer.
Those errors are shown below the miss.
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

__all__ = ["SESSION", "AsyncFailures", "caused_by_failure", "fail_report", "messages"]

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""The session of a marked test, from its setup to the report of its teardown."""

_LONGEST_LINE = 200  # characters of an error raised after the miss


def messages(failures: Sequence[BaseException]) -> str:
    """Join the messages of several failures without duplicates."""
    return "\n\n".join(dict.fromkeys(str(failure) for failure in failures))


def fail_report(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    text: str,
    failures: Sequence[BaseException] = (),
) -> None:
    """Fail a phase of a test with a reason, which precedes any other error.

    Args:
        item: The test.
        call: The phase.
        report: The phase's report; changed in place.
        text: The reason.
        failures: The exceptions with this reason.
    """
    error = call.excinfo.value if call.excinfo else None
    is_stated = isinstance(error, pytest.fail.Exception) and text in str(error)
    place = _place(item, [*([error] if error else []), *failures])
    text = (str(error) if is_stated else text) + place
    if report.failed and call.excinfo and not (is_stated or _is_failure(error)):
        lines = str(error).strip().splitlines()
        words = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        text += f"\nthen raised: {words[:_LONGEST_LINE]}"
        if not _explains(error):
            way = str(call.excinfo.getrepr(style="short"))
            report.sections.append(("raised after the miss", way))
    report.outcome = "failed"
    report.longrepr = text
    # A missing recording is not the failure that xfail expects.
    vars(report).pop("wasxfail", None)


def _is_failure(error: BaseException | None) -> bool:
    from ember_testing.exceptions import ReplayFailure

    return isinstance(error, ReplayFailure)


def caused_by_failure(error: BaseException | None) -> bool:
    """Return whether a failure of a replay or a fake led to this error, or is in this group."""
    return any(map(_is_failure, _related(error)))


def _explains(error: BaseException | None) -> bool:
    """Return whether the code raised this error explicitly from a failure."""
    return any(map(_is_failure, _related(error, context=False)))


def _related(error: BaseException | None, *, context: bool = True) -> Iterator[BaseException]:
    """Iterate over an error, the members of a group, their causes and contexts."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # Exception groups have it; Python 3.10 lacks the class.
        waiting += cast("Sequence[BaseException]", getattr(each, "exceptions", ()))
        waiting.append(each.__cause__)
        if context:
            waiting.append(each.__context__)


def _place(item: pytest.Item, errors: Sequence[BaseException]) -> str:
    """Return the line of the test that failed, else the last line in the project.

    Frames inside the HTTP client would not help the reader.
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
    """Ends async tests and fixtures with an outcome of pytest instead of a miss.

    A miss is not an `Exception`, so that code under test does not swallow it. If it left the test,
    a runner of async tests (such as anyio's, in which one task serves many tests) would end as on
    an interrupt, and later tests would fail.
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
        """Set up a fixture; its teardown, after the `yield`, is in the same function."""
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
    if isinstance(function, types.MethodType):  # plugins check which object it is bound to
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
    """Raise an outcome in place of an error that a failure caused and that is not an Exception."""
    __tracebackhide__ = True
    stops = (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)
    if isinstance(error, (*stops, pytest.fail.Exception, pytest.skip.Exception)):
        return
    failures = [*filter(_is_failure, _related(error))]
    session = item.stash.get(SESSION, None)
    if isinstance(error, asyncio.CancelledError) and session is not None:
        failures = [*session.failures]  # another task's failure may have cancelled this one
    if failures:
        raise pytest.fail.Exception(messages(failures), pytrace=False) from error
