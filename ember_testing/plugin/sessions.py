"""The session of a test: begun before its fixtures, ended after them."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, cast

import pytest

from ember_testing.plugin.failures import SESSION, messages
from ember_testing.plugin.options import (
    MARKER,
    arguments_of,
    folder_of,
    max_age,
    mode_of,
    path_of,
    unused_rule,
)
from ember_testing.plugin.run import BEGAN, DESELECTED, budget_of, count, run_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ember_testing.replay.session import Session
    from ember_testing.replay.settings import Settings
    from ember_testing.wires.response import Request

PASSED = pytest.StashKey[bool]()
"""Whether a marked test has passed its call phase."""
_running_key = pytest.StashKey["Session"]()
_folders_key = pytest.StashKey[set["Path"]]()


def begin_session(
    config: pytest.Config, path: Path, settings: Settings, *, test: str, target: str = "", run: str
) -> Session:
    """Open a cassette in the run's mode and make it the innermost.

    Args:
        config: The run's config.
        path: The cassette.
        settings: The replay settings.
        test: Node id of the test, or the name of a fixture.
        target: Node id for the command that records, if `test` is none.
        run: The name of the run if other tests use the cassette too, else "".

    Raises:
        CassetteError: The cassette cannot be used.
    """
    from ember_testing.plugin.hangs import HANGS, HangHooks
    from ember_testing.replay.active import activate
    from ember_testing.replay.session import Session

    mode = mode_of(config)
    record = None if mode == "none" else cast("Literal['new', 'all']", mode)
    budget = budget_of(config) if record else None
    session = Session(path, record, settings, test=test, target=target, run=run, budget=budget)
    hangs: HangHooks | None = config.pluginmanager.get_plugin(HANGS)
    if hangs is not None:
        session.outcome.on_failure = hangs.failed
    activate(session)
    return session


def begin(item: pytest.Item) -> None:
    """Begin the session of a marked test."""
    from ember_testing.exceptions import CassetteError
    from ember_testing.plugin.hangs import HANGS, HangHooks
    from ember_testing.replay.settings import Settings

    arguments = {**arguments_of(item)}
    name = arguments.pop("cassette", None)
    try:
        session = begin_session(
            item.config,
            path_of(item, name),
            Settings(**arguments),
            test=item.nodeid,
            run=run_name(item.config) if name else "",
        )
    except (ValueError, CassetteError) as error:
        raise pytest.fail.Exception(f"{MARKER}: {error}", pytrace=False) from None
    if name is None:
        session.orphans = _orphans_of(item, session)
    _note_leftovers(item.config, session)
    hangs: HangHooks | None = item.config.pluginmanager.get_plugin(HANGS)
    if hangs is not None:
        hangs.session = session
    item.config.stash[_running_key] = item.stash[SESSION] = session
    item.stash[PASSED] = False


def replay_follows(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Return whether the next test to run is one that replays."""
    stops = item.session.shouldstop or item.session.shouldfail
    marked = nextitem is not None and nextitem.get_closest_marker(MARKER) is not None
    return marked and not stops and mode_of(item.config) == "none"


def end(
    item: pytest.Item, session: Session, passed: bool, torn_down: bool, replay_follows: bool
) -> None:
    """End the session of a marked test.

    Args:
        item: The test.
        session: Its session.
        passed: Whether it passed, with its teardown.
        torn_down: Whether its teardown raised nothing.
        replay_follows: As in `active.deactivate`.
    """
    from ember_testing.exceptions import CassetteError
    from ember_testing.replay.active import deactivate
    from ember_testing.replay.tally import counted

    deactivate(session, replay_follows=replay_follows)
    del item.config.stash[_running_key]
    shared = bool(arguments_of(item).get("cassette"))
    unused = session.unused() if passed and not shared else 0
    session.outcome.tally.unused = unused
    session.outcome.tally.stale = session.stale(max_age(item.config))
    if unused and (rule := unused_rule(item.config)) != "ignore":
        session.outcome.note(f"not used: {counted(unused, 'recording')} of {session.path}")
    else:
        rule = "ignore"
    try:
        session.close(passed)
    except CassetteError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    finally:
        count(item, session, passed)
    in_call: bool = item.stash.get(PASSED, False)
    if session.failures and in_call and torn_down:
        pytest.fail(
            messages(session.failures), pytrace=False
        )  # a miss after the call phase had passed
    if rule == "fail" and torn_down:
        pytest.fail(
            f"not used: {counted(unused, 'recording')} of {session.path} (ember_unused=fail); to "
            f"record anew: {session.command(anew=True)}",
            pytrace=False,
        )


def abandon(config: pytest.Config) -> None:
    """Drop what an interrupted test has recorded: pytest does not tear it down."""
    session = config.stash.get(_running_key, None)
    if session is not None:
        from ember_testing.exceptions import CassetteError
        from ember_testing.replay.active import deactivate

        deactivate(session)
        with suppress(CassetteError):  # the file stays as it is
            session.close(passed=False)
    restore()


def restore() -> None:
    """Restore what was left for a test that replays, if none began."""
    active = sys.modules.get("ember_testing.replay.active")
    if active is not None:  # something was recorded or replayed
        active.restore()


def _note_leftovers(config: pytest.Config, session: Session) -> None:
    """Report files of recordings that were killed before this run, once per folder."""
    folder = session.path.parent
    looked_at = config.stash.setdefault(_folders_key, set())
    if folder in looked_at:
        return
    looked_at.add(folder)
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".part") and entry.stat().st_mtime < config.stash[BEGAN]:
                session.outcome.tally.notes.append(
                    f"left by a recording that was killed, delete it: {entry.path}"
                )


def _orphans_of(item: pytest.Item, session: Session) -> Callable[[Request], list[str]]:
    """Return a function that finds, on a miss, cassettes whose test no longer exists."""
    folder, root = folder_of(item.config), item.config.rootpath

    def look(request: Request) -> list[str]:
        from ember_testing.replay.orphans import orphan_lines

        marked = [each for each in item.session.items if each.get_closest_marker(MARKER)]
        used = {path_of(each, None) for each in marked}
        functions = {each.nodeid.partition("[")[0] for each in marked}
        config = item.config
        narrow = config.stash[DESELECTED] or any("[" in each for each in config.args)

        def is_orphan(path: Path) -> bool:
            if path in used or "@" in path.name.partition("[")[0]:
                return False
            module = path.relative_to(folder).parent.with_suffix(".py").as_posix()
            names = path.stem.partition("[")[0].split(".")
            if "::".join([module, *names]) in functions:
                return not narrow  # the parameters have changed
            try:
                source = (root / module).read_text(encoding="utf-8", errors="replace")
            except OSError:
                return True
            name = re.sub(r"-[0-9a-f]{8}$", "", names[-1])
            return re.search(rf"\bdef {re.escape(name)}\b", source) is None

        return orphan_lines(request, session.path, item.nodeid, session.settings.rules(), is_orphan)

    return look
