"""The cassettes in use: the innermost answers, and the process is closed while it replays."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

from ember_testing.patches import keys, network, sleep, tls
from ember_testing.patches.transport import Answerer, Exchange, install, remove
from ember_testing.replay import prices
from ember_testing.replay.request import LOOPBACK
from ember_testing.replay.session import Session
from ember_testing.wires.response import Request, Response

__all__ = ["activate", "deactivate"]

_change = threading.RLock()
_sessions: list[Session] = []  # the innermost is last


def activate(session: Session) -> None:
    """Let this cassette answer from now on."""
    with _change:
        if not _sessions:
            install(_answerer)
        _sessions.append(session)
        _guard()


def deactivate(session: Session) -> None:
    """Let the cassette around it answer again, or the network."""
    with _change:
        _sessions.remove(session)
        if not _sessions:
            remove(_answerer)
        _guard()


def _innermost() -> Session | None:
    sessions = _sessions
    return sessions[-1] if sessions else None


def _wants(url: str) -> bool:
    session = _innermost()
    if session is None:
        return False
    return not (session.settings.allow_loopback and urlsplit(url).hostname in LOOPBACK)


def _answer(request: Request) -> Response | Exchange | None:
    __tracebackhide__ = True  # a miss is told without the way it came
    session = _innermost()
    return None if session is None else session.begin(request)


_answerer = Answerer(_wants, _answer)


def _leave_out(seconds: float) -> bool:
    """Whether a wait may be left out: while a cassette records it is a provider's wish."""
    session = _innermost()
    if session is None:
        return True
    if session.record:
        return False
    session.tally.waits += seconds
    return True


sleep.watch(_leave_out)


def _guard() -> None:
    session = _innermost()
    prices.pin(session.pins.table if session is not None and session.pins else None)
    keys.take_out(_answerer)
    if session is None or session.record:
        tls.take_out()
        network.open_network(recording=session is not None)
        return
    keys.put_in(_answerer, keys.missing())  # calls that are only replayed need none
    tls.put_in()
    network.close_network(
        allow_loopback=session.settings.allow_loopback,
        fail=session.fail,
        command=session.command(),
    )
