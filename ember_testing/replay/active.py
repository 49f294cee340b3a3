"""The cassettes in use: the innermost one answers, and blocks the network while it replays."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ember_testing.patches import children, keys, network, sleep, tls
from ember_testing.patches.exchange import Answerer, Reply
from ember_testing.patches.patch import uninstall_paused
from ember_testing.patches.transport import install, remove
from ember_testing.replay import prices
from ember_testing.replay.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ember_testing.wires.response import Request

__all__ = ["activate", "deactivate", "restore"]

_change = threading.RLock()
_sessions: list[Session] = []  # the innermost is last
# Connections seen by each recording session, in order.
_unrecorded: dict[Session, dict[str, None]] = {}
_inherited: set[Session] = set()  # opened by the process that forked this one
_watches_forks = False


def activate(session: Session) -> None:
    """Make this the innermost cassette, which answers from now on."""
    with _change:
        _watch_forks()
        if not _sessions:
            install(_answerer)
        _sessions.append(session)
        _apply()


def deactivate(session: Session, *, replay_follows: bool = False) -> None:
    """Remove this cassette, so that the enclosing one or the network answers again.

    Args:
        session: The session of the cassette.
        replay_follows: Leave patches, which do nothing meanwhile, and the placeholders of keys for
            another replay; if none begins before other tests run, `restore` must be called.
    """
    with _change:
        _sessions.remove(session)
        if not _sessions:
            remove(_answerer, pause=replay_follows)
        if unrecorded := _unrecorded.pop(session, None):
            session.outcome.note(_unrecorded_note(unrecorded))
        if unseen := children.unseen_libraries():
            session.outcome.tally.notes.append(
                f"loaded, with sockets that no guard sees: {', '.join(unseen)}; {children.OPEN}"
            )
        _apply(replay_follows=replay_follows)


def restore() -> None:
    """Restore everything after a `deactivate` that no replay has followed."""
    with _change:
        if not _sessions:
            _restore()


def _restore() -> None:
    keys.restore_placeholders(_answerer)
    uninstall_paused()


def _unrecorded_note(connections: Iterable[str]) -> str:
    return (
        f"not recorded: connections to {', '.join(connections)}; a replay refuses them, unless "
        "allow_hosts= or allow_loopback=True lets them through"
    )


def _note_unrecorded(session: Session, connection: str) -> None:
    noted = _unrecorded.setdefault(session, {})
    if connection not in noted:
        noted[connection] = None
        if session in _inherited:  # its end is in another process: report now
            session.outcome.note(_unrecorded_note([connection]))


def _watch_forks() -> None:
    """Let processes forked by a test replay from the same cassette."""
    global _watches_forks
    if not _watches_forks and hasattr(os, "register_at_fork"):
        _watches_forks = True
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=partial(_after_fork, forked=False),
            after_in_child=partial(_after_fork, forked=True),
        )


def _before_fork() -> None:
    _change.acquire()
    for session in _sessions:
        session.before_fork()


def _after_fork(*, forked: bool) -> None:
    for session in reversed(_sessions):
        session.after_fork(forked=forked)
    if forked:
        _inherited.update(_sessions)
    _change.release()


def _innermost() -> Session | None:
    sessions = _sessions
    return sessions[-1] if sessions else None


def _accepts(url: str) -> bool:
    session = _innermost()
    if session is None:
        return False
    parts = urlsplit(url)
    host = parts.hostname or ""
    return not (network.is_own(host, parts.port) or session.settings.permissions.covers(host))


def _answer(request: Request) -> Reply | None:
    __tracebackhide__ = True  # keep this frame out of a miss's traceback
    session = _innermost()
    return None if session is None else session.answer(request)


async def _answer_async(request: Request) -> Reply | None:
    __tracebackhide__ = True
    session = _innermost()
    return None if session is None else await session.answer_async(request)


_answerer = Answerer(_accepts, _answer, _answer_async)


def _skips_wait(seconds: float) -> bool:
    """Return whether to skip a wait: while recording, the provider may have asked for it."""
    session = _innermost()
    if session is None:
        return True
    if session.record_mode:
        return False
    session.outcome.tally.waits += seconds
    return True


sleep.watch(_skips_wait)


def _apply(*, replay_follows: bool = False) -> None:
    session = _innermost()
    prices.use(session.prices if session is not None and session.prices else None)
    if session is None or session.record_mode:
        tls.PATCH.uninstall(pause=replay_follows)
        if session is None:
            network.open_network(pause=replay_follows)
        else:
            report = partial(_note_unrecorded, session)
            network.record_network(session.settings.permissions, report=report)
        if not replay_follows:
            _restore()
        return
    keys.set_placeholders(_answerer)  # replayed calls need no real key
    tls.PATCH.install()
    network.close_network(
        session.settings.permissions, fail=session.outcome.fail, command=session.command()
    )
