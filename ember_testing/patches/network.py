"""Block the network while a test replays or fakes, whichever library uses it.

An audit hook (PEP 578) sees what patched functions would miss: an earlier `from socket import
getaddrinfo`, `_socket.socket`, asyncio's loops. It cannot be removed, so it is added with the first
replay and costs one check of a variable afterwards. Binding, Unix sockets, pipes, socket pairs (as
of an event loop) and connections that were already open are not checked.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember_testing.exceptions import NetworkBlocked, ReplayFailure
from ember_testing.patches import children, environment
from ember_testing.patches.exchange import is_sending
from ember_testing.patches.hosts import Hosts, is_address, is_loopback
from ember_testing.patches.patch import Patch
from ember_testing.patches.transport import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_REVERSE = frozenset({"socket.gethostbyaddr", "socket.getnameinfo"})  # the name of an address


class _Blocking(NamedTuple):
    allow_loopback: bool
    hosts: Hosts
    ignored: Hosts
    fail: Callable[[ReplayFailure], ReplayFailure]
    why: str
    for_loopback: str
    remedy: str


class _Reporting(NamedTuple):
    """A recording, to which unrecorded connections are reported."""

    allow_loopback: bool
    hosts: Hosts
    ignored: Hosts
    report: Callable[[str], None]


_blocking: _Blocking | None = None
_reporting: _Reporting | None = None
_recording = False
_fakes: dict[int, _Blocking] = {}  # by the fake's id; the innermost is last
_hooked = False
_pairing = threading.local()
_own_ports: set[object] = set()
_allowed_names: set[str] = set()  # allowed names that were looked up


def close_network(
    *,
    allow_loopback: bool,
    hosts: Hosts,
    ignored: Hosts,
    fail: Callable[[ReplayFailure], ReplayFailure],
    command: str,
) -> None:
    """Stop every connection and name look-up from now on, in all threads.

    Args:
        allow_loopback: Let connections to this machine through.
        hosts: Let connections to these hosts through.
        ignored: Refuse connections to these hosts with ECONNREFUSED, and report nothing.
        fail: Called for each attempt, so that swallowing the error does not hide it.
        command: The command that records instead, for the message.
    """
    global _blocking, _recording, _reporting
    _recording, _reporting = False, None
    _blocking = _Blocking(
        allow_loopback,
        hosts,
        ignored,
        fail,
        "this test replays",
        "a server of the test's own needs @pytest.mark.ember_replay(allow_loopback=True)",
        f"recorded are calls by {RECORDED}; to record: {command}",
    )
    _hook()


def open_network() -> None:
    """Let everything through again."""
    global _blocking, _recording, _reporting
    _blocking, _recording, _reporting = None, False, None
    _allowed_names.clear()
    _unhook()


def record_network(
    *, allow_loopback: bool, hosts: Hosts, ignored: Hosts, report: Callable[[str], None]
) -> None:
    """Let everything through while a cassette records, even if models are faked.

    Args:
        allow_loopback: A replay will let connections to this machine through.
        hosts: A replay will let connections to these hosts through.
        ignored: A replay will refuse connections to these hosts, as the test expects.
        report: Called for each unrecorded connection that a replay will refuse: `HOST:PORT by
            LIBRARY`.
    """
    global _recording, _reporting
    open_network()
    _recording, _reporting = True, _Reporting(allow_loopback, hosts, ignored, report)
    _hook()


def close_for_fakes(
    owner: object, *, allow_loopback: bool, fail: Callable[[ReplayFailure], ReplayFailure]
) -> None:
    """Stop every connection and name look-up while models are faked.

    Args:
        owner: The fake; a second call for the same fake replaces the first.
        allow_loopback: Let connections to this machine through.
        fail: Called for each attempt.
    """
    _fakes[id(owner)] = _Blocking(
        allow_loopback,
        Hosts(),
        Hosts(),
        fail,
        "models are faked here",
        "a server of the test's own needs fake_model.allow_loopback = True",
        f"fake_model answers calls of models by {RECORDED}; mock the rest, or fake the custom "
        "provider that sends it",
    )
    _hook()
    children.close_children_for_fakes(id(owner), fail=fail)


def open_for_fakes(owner: object) -> None:
    """Undo `close_for_fakes` for this fake."""
    _fakes.pop(id(owner), None)
    children.open_children_for_fakes(id(owner))
    _unhook()


@contextmanager
def own_port(port: int) -> Generator[None]:
    """Let connections to a local server of the toolkit through inside the block."""
    _own_ports.add(port)
    try:
        yield
    finally:
        _own_ports.discard(port)


def is_own(host: str, port: int | None) -> bool:
    """Return whether a server of the toolkit listens there."""
    return port in _own_ports and is_loopback(host)


def _hook() -> None:
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        environment.watch()
        _hooked = True
    if sys.platform == "win32":
        # On Windows a socket pair, which event loops need, is a connection to this machine.
        _pairs.install()


def _unhook() -> None:
    if sys.platform == "win32" and _blocking is None and not _fakes:
        _pairs.uninstall()


def _in_force() -> _Blocking | None:
    replay = _blocking
    if _recording or not _fakes:
        return replay
    fake = next(reversed([*_fakes.values()]), None)
    if fake is not None and replay is not None:
        return fake._replace(
            allow_loopback=fake.allow_loopback or replay.allow_loopback,
            hosts=replay.hosts,
            ignored=replay.ignored,
        )
    return fake


def _marked(socketpair: Callable[..., Any]) -> Callable[..., Any]:
    def pair(*arguments: Any, **named: Any) -> Any:
        _pairing.now = True
        try:
            return socketpair(*arguments, **named)
        finally:
            _pairing.now = False

    return pair


_pairs = Patch(socket, "socketpair", _marked)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    handle = _HANDLERS.get(event)  # of a dozen events among the many that a process raises
    if handle is not None:
        handle(event, arguments)


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    """Handle an audit event of a socket."""
    if _reporting is not None and event in _CONNECTS:
        _report(_reporting, arguments[0], arguments[1])
    if _blocking is None and not _fakes:
        return
    blocking = _in_force()
    if blocking is None:
        return
    if event in _CONNECTS:
        _check_connection(blocking, arguments[0], arguments[1])
    elif event in _LOOKUPS:
        _check_lookup(blocking, arguments[0])
    else:
        host: Any = arguments[0]  # or host and port, or more
        _check_lookup(blocking, host[0] if isinstance(host, tuple) else host, reverse=True)


_HANDLERS: dict[str, Callable[[str, tuple[Any, ...]], None]] = {
    **dict.fromkeys(_CONNECTS | _LOOKUPS | _REVERSE, _check),
    **dict.fromkeys(children.EVENTS, children.watch),
    **dict.fromkeys(environment.EVENTS, environment.note_change),
}


def _report(reporting: _Reporting, used: socket.socket, address: Any) -> None:
    """Report a connection that no seam makes."""
    if used.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return
    host, port = str(cast("object", address[0])), cast("object", address[1])
    own = port in _own_ports or getattr(_pairing, "now", False)
    if own or is_sending() or reporting.hosts.allows(host) or reporting.ignored.allows(host):
        return
    if not (reporting.allow_loopback and is_loopback(host)):
        reporting.report(f"{host}:{port} by {_library()}")


def _library() -> str:
    """Return the package that connects: the nearest outside the standard library."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  # documented
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in sys.stdlib_module_names and name != "ember_testing":
            return name
        frame = frame.f_back
    return "the standard library"


def _check_connection(blocking: _Blocking, used: socket.socket, address: Any) -> None:
    if used.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return  # a Unix socket, or a datagram on a socket that was checked when it connected
    host, port = str(cast("object", address[0])), cast("object", address[1])
    local = is_loopback(host)
    own = port in _own_ports or getattr(_pairing, "now", False)
    if local and (blocking.allow_loopback or own):
        return
    if blocking.hosts and (blocking.hosts.allows(host) or host in _addresses()):
        return
    if blocking.ignored.allows(host):
        raise _refused(f"connection to {host}:{port}")
    remedy = blocking.for_loopback if local else blocking.remedy
    used.close()  # libraries close it only after an OSError, which this is not
    raise blocking.fail(
        NetworkBlocked(f"connection to {host}:{port} blocked: {blocking.why}; {remedy}")
    )


def _check_lookup(blocking: _Blocking, host: Any, *, reverse: bool = False) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name and blocking.hosts.allows(name):
        _allowed_names.add(name)
        return
    if name and blocking.ignored.allows(name) and not (is_address(name) and not reverse):
        raise _refused(f"name look-up of {name!r}")
    if name is None or name == "" or is_loopback(name) or (is_address(name) and not reverse):
        return  # answered without the network
    if name == socket.gethostname():
        return  # servers look it up when they bind
    raise blocking.fail(
        NetworkBlocked(f"name look-up of {name!r} blocked: {blocking.why}; {blocking.remedy}")
    )


def _refused(what: str) -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, f"{what} refused: ignore_hosts in a replay")


def _addresses() -> frozenset[str]:
    """Return the addresses of allowed names that were looked up: a connection has no name."""
    found: set[str] = set()
    for name in tuple(_allowed_names):
        with suppress(OSError):
            found.update(str(each[4][0]) for each in socket.getaddrinfo(name, None))
    return frozenset(found)
