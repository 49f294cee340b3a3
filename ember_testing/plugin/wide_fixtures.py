"""Fixtures of a wider scope than a test (session, package, module, class) have their own cassettes.

The first test that needs such a fixture sets it up, and which test that is depends on selection,
order and pytest-xdist; in a test's cassette its calls would be found in one order only.
`setup_module`, `setup_class` and `setUpClass` are such fixtures too. Registered for runs that have
a marked test.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ember_testing.exceptions import CassetteError
from ember_testing.plugin.options import MARKER, arguments_of, folder_of, relative
from ember_testing.plugin.run import count_fixture, run_name, run_of
from ember_testing.plugin.sessions import begin_session
from ember_testing.replay.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from ember_testing.replay.session import Session

    Definition = pytest.FixtureDef[Any]

_XUNIT = re.compile(r"_?(?:xunit|unittest)_(setup_module|setup_class|setUpClass)_fixture_")
# Arguments of a test's marker that do not apply to fixtures shared with other tests.
_TEST_ONLY = frozenset({"cassette", "faults", "timing"})
# A fixture has these permissions if any test that needs it has them.
_PERMISSIONS = ("allow_loopback", "allow_subprocess")


class WideFixtures:
    """The hook around the setup of fixtures.

    Args:
        marked: The run's tests with the marker.
    """

    def __init__(self, marked: Sequence[pytest.Item]) -> None:
        self._marked = marked
        # The tests that request a wide fixture, by its id.
        self._users: defaultdict[int, list[pytest.Item]] = defaultdict(list)
        for item in marked:
            for each in _wide_fixtures(item):
                self._users[id(each)].append(item)

    def expect(self, config: pytest.Config) -> None:
        """Note which cassettes of fixtures the run should use, for the reports on unused ones."""
        for item in self._marked:
            for fixturedef in _wide_fixtures(item):
                path, name = cassette_of(fixturedef, item)
                for each in (path, _teardown_path(path)):
                    if each.exists():
                        run_of(config).expect(relative(config, each), name, shared=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: Definition, request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Let a fixture of a marked test record to, or replay from, its own cassette."""
        if not _is_wide(fixturedef):
            return (yield)
        item: pytest.Item = request._pyfuncitem  # pyright: ignore[reportPrivateUsage]  # session fixtures have no other way
        items = self._users.get(id(fixturedef))
        if not items and item.get_closest_marker(MARKER) is None:
            return (yield)
        use = _FixtureCassette(fixturedef, items or [item], item)
        fixturedef.addfinalizer(partial(use.end, passed=True))
        use.begin()
        passed = False
        try:
            value = yield
            passed = True
            return value
        finally:
            # Finalizers run in reverse order.
            fixturedef.addfinalizer(partial(use.begin, teardown=True))
            try:
                use.end(passed)
            except pytest.fail.Exception as failure:
                _cache_failure(failure, fixturedef, request)
                raise


def _wide_fixtures(item: pytest.Item) -> Iterator[Definition]:
    """Iterate over the wide fixtures that a test requests, directly or through others."""
    info = getattr(item, "_fixtureinfo", None)
    found: dict[str, Sequence[Definition]] = getattr(info, "name2fixturedefs", {})
    for definitions in found.values():
        yield from filter(_is_wide, definitions)


def _is_wide(fixturedef: Definition) -> bool:
    # pytest treats a test's parameter as a fixture with the scope given to parametrize().
    function = getattr(fixturedef.func, "__name__", "")
    return fixturedef.scope != "function" and function != "get_direct_param_fixture_func"


class _FixtureCassette:
    """One setup of a fixture and its teardown, each with a session."""

    def __init__(
        self, fixturedef: Definition, items: Sequence[pytest.Item], item: pytest.Item
    ) -> None:
        self._config = item.config
        self._path, self._name = cassette_of(fixturedef, item)
        self._settings = _settings(items)
        self._target = item.nodeid if item in items else items[0].nodeid
        self._session: Session | None = None

    def begin(self, *, teardown: bool = False) -> None:
        """Activate the fixture's cassette."""
        try:
            self._session = begin_session(
                self._config,
                _teardown_path(self._path) if teardown else self._path,
                self._settings,
                test=self._name,
                target=self._target,
                run=run_name(self._config),
            )
        except CassetteError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    def end(self, passed: bool) -> None:
        """Deactivate the cassette; fail the fixture if a call in it failed.

        Args:
            passed: Whether the fixture raised nothing.
        """
        session, self._session = self._session, None
        if session is None:  # its cassette could not be opened
            return
        from ember_testing.replay.active import deactivate

        deactivate(session)
        messages = [str(failure) for failure in session.failures]
        passed = passed and not messages
        try:
            session.close(passed)
        except CassetteError as broken:
            messages.append(str(broken))
        count_fixture(self._config, session, passed)
        if messages:
            text = "\n\n".join(dict.fromkeys(messages))
            raise pytest.fail.Exception(f"{self._name}: {text}", pytrace=False) from None


def _cache_failure(
    failure: BaseException, fixturedef: Definition, request: pytest.FixtureRequest
) -> None:
    """Make every other test that needs the fixture fail in the same way.

    pytest caches a fixture's exception unless it is a BaseException such as a miss; since 9.1 later
    tests would end in a bare AssertionError of pytest.
    """
    cached: Any = failure if pytest.version_tuple < (8, 2) else (failure, None)
    key = fixturedef.cache_key(request)  # type: ignore[arg-type]  # pytest passes a SubRequest
    fixturedef.cached_result = (None, key, cached)


def _settings(items: Sequence[pytest.Item]) -> Settings:
    """Combine the markers of all tests that need a fixture, whichever comes first."""
    found = [arguments_of(item) for item in items]
    first = found[0]
    agreed = {
        name: value
        for name, value in first.items()
        if name not in _TEST_ONLY and all(each.get(name) == value for each in found)
    }
    for name in _PERMISSIONS:
        if any(each.get(name) for each in found):
            agreed[name] = True
    for name in ("allow_hosts", "ignore_hosts"):
        if hosts := [host for each in found for host in each.get(name, ())]:
            agreed[name] = tuple(dict.fromkeys(hosts))
    try:
        return Settings(**agreed)
    except ValueError as error:
        raise pytest.fail.Exception(f"{MARKER}: {error}", pytrace=False) from None


def _teardown_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.teardown{path.suffix}")


def cassette_of(fixturedef: Definition, item: pytest.Item) -> tuple[Path, str]:
    """Return the cassette of a fixture, and a readable name.

    The path depends on the file that defines the fixture, the node of its scope and its parameter,
    which are the same for all tests that share the fixture's value.

    Args:
        fixturedef: The fixture.
        item: One of those tests.
    """
    from ember_testing.cassettes.paths import fixture_file

    node = _scope_node(fixturedef, item)
    xunit = _XUNIT.match(fixturedef.argname)
    source = node.partition("::")[0] if xunit else _source(fixturedef, item.config.rootpath)
    classes = "" if xunit else fixturedef.baseid.partition("::")[2]
    name = ".".join(filter(None, [*classes.split("::"), xunit[1] if xunit else fixturedef.argname]))
    parameter = _parameter(fixturedef.argname, item)
    file = fixture_file(source, name, fixturedef.scope, node, parameter)
    title = f"fixture {name}{parameter and f'[{parameter}]'} of {source}"
    return folder_of(item.config) / file, title if node in ("", source) else f"{title} for {node}"


def _scope_node(fixturedef: Definition, item: pytest.Item) -> str:
    """Return the node id of the package, module or class that shares the fixture's value."""
    if fixturedef.scope == "module":
        module = item.getparent(pytest.Module)
        return module.nodeid if module else item.nodeid
    if fixturedef.scope == "class":
        return (item.getparent(pytest.Class) or item).nodeid
    return fixturedef.baseid if fixturedef.scope == "package" else ""


def _source(fixturedef: Definition, root: Path) -> str:
    """Return the file that defines a fixture, relative to rootdir, or the module of a plugin."""
    function = inspect.unwrap(fixturedef.func)
    code = getattr(function, "__code__", None)
    try:
        path = Path(code.co_filename if code is not None else inspect.getfile(function))
        return path.resolve().relative_to(root.resolve()).as_posix()
    except (TypeError, ValueError):
        return "plugins/" + str(getattr(function, "__module__", "")).replace(".", "/") + ".py"


def _parameter(name: str, item: pytest.Item) -> str:
    """Return a fixture's parameter as shown in a test's name; the index of an object."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or name not in callspec.params:
        return ""
    value: object = callspec.params[name]
    if value is None or isinstance(value, (str, int, float, complex, Enum)):
        return str(value)
    shown = getattr(value, "__name__", None)
    return shown if isinstance(shown, str) else str(callspec.indices[name])
