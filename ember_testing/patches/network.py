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
from typing import TYPE_CHECKING, Any, cast

from ember_testing.exceptions import NetworkBlocked, ReplayFailure
from ember_testing.patches import children, environment
from ember_testing.patches.children import CHANGE, Blocking, Reporting
from ember_testing.patches.exchange import is_sending
from ember_testing.patches.hosts import Permissions, is_address, is_loopback
from ember_testing.patches.patch import Patch
from ember_testing.patches.transport import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_REVERSE = frozenset({"socket.gethostbyaddr", "socket.getnameinfo"})  # the name of an address


_of_cassette: Blocking | Reporting | None = None
_fakes: dict[int, Blocking] = {}  # by the fake's id; the innermost is last
_hooked = False
_pairing = threading.local()
_own_ports: set[object] = set()
_allowed_names: set[str] = set()  # allowed names that were looked up


def close_network(
    permissions: Permissions, *, fail: Callable[[ReplayFailure], ReplayFailure], command: str
) -> None:
    """Stop every connection and name look-up from now on, in all threads and child processes.

    Args:
        permissions: What is let through all the same.
        fail: Called for each attempt, so that swallowing the error does not hide it.
        command: The command that records instead, for the message.
    """
    _enforce(
        Blocking(
            permissions,
            fail,
            "this test replays",
            "a server of the test's own needs @pytest.mark.ember_replay(allow_loopback=True)",
            f"recorded are calls by {RECORDED}; to record: {command}",
            "mark it ember_replay(allow_hosts=[{host!r}]) to let it through, or fake what the "
            "child asks",
        )
    )


def open_network(*, pause: bool = False) -> None:
    """Let everything through again; `pause` as in `children.enforce`."""
    _enforce(None, pause=pause)


def record_network(permissions: Permissions, *, report: Callable[[str], None]) -> None:
    """Let everything through while a cassette records, even if models are faked.

    Args:
        permissions: What a replay will let through.
        report: Called for each unrecorded connection that a replay will refuse: `HOST:PORT by
            LIBRARY`.
    """
    _enforce(Reporting(permissions, report))


def close_for_fakes(
    owner: object, *, allow_loopback: bool, fail: Callable[[ReplayFailure], ReplayFailure]
) -> None:
    """Stop every connection and name look-up while models are faked.

    Args:
        owner: The fake; a second call for the same fake replaces the first.
        allow_loopback: Let connections to this machine through.
        fail: Called for each attempt.
    """
    with CHANGE:
        _fakes[id(owner)] = Blocking(
            Permissions(allow_loopback=allow_loopback),
            fail,
            "models are faked here",
            "a server of the test's own needs fake_model.allow_loopback = True",
            f"fake_model answers calls of models by {RECORDED}; mock the rest, or fake the custom "
            "provider that sends it",
            "give the child the address of a fault_server to ask",
        )
        _enforce(_of_cassette)


def open_for_fakes(owner: object) -> None:
    """Undo `close_for_fakes` for this fake."""
    with CHANGE:
        if _fakes.pop(id(owner), None) is not None:
            _enforce(_of_cassette)


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


def _enforce(of_cassette: Blocking | Reporting | None, *, pause: bool = False) -> None:
    global _of_cassette, _hooked
    with CHANGE:
        _of_cassette = of_cassette
        if not isinstance(of_cassette, Blocking):
            _allowed_names.clear()
        is_open = of_cassette is None and not _fakes
        if not (is_open or _hooked):
            sys.addaudithook(_audit)
            environment.watch()
            _hooked = True
        if sys.platform == "win32":
            # On Windows a socket pair, which event loops need, is a connection to this machine.
            (_pairs.uninstall if is_open else _pairs.install)()
        # Of a cassette and a fake, the cassette decides what children may reach.
        if of_cassette is None or of_cassette.permissions.allow_subprocess:
            children.enforce(next(reversed(_fakes.values()), None), pause=pause)
        else:
            children.enforce(of_cassette)


def _in_force() -> Blocking | None:
    replay = _of_cassette
    if isinstance(replay, Reporting):
        return None
    fake = next(reversed([*_fakes.values()]), None)
    if fake is None or replay is None:
        return fake or replay
    allow_loopback = fake.permissions.allow_loopback or replay.permissions.allow_loopback
    return fake._replace(permissions=replay.permissions._replace(allow_loopback=allow_loopback))


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
    if isinstance(_of_cassette, Reporting) and event in _CONNECTS:
        _report(_of_cassette, arguments[0], arguments[1])
    if (blocking := _in_force()) is None:
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


def _report(reporting: Reporting, used: socket.socket, address: Any) -> None:
    """Report a connection that no seam makes."""
    if (place := _internet_address(used, address)) is None or is_sending():
        return
    host, port = place
    if not (_is_own_connection(port) or reporting.permissions.covers(host)):
        reporting.report(f"{host}:{port} by {_library()}")


def _internet_address(used: socket.socket, address: Any) -> tuple[str, object] | None:
    """Return host and port; None for a Unix socket, or a datagram on a connected socket."""
    if used.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return None
    return str(cast("object", address[0])), cast("object", address[1])


def _is_own_connection(port: object) -> bool:
    return port in _own_ports or getattr(_pairing, "now", False)


def _library() -> str:
    """Return the package that connects: the nearest outside the standard library."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]  # documented
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in sys.stdlib_module_names and name != "ember_testing":
            return name
        frame = frame.f_back
    return "the standard library"


def _check_connection(blocking: Blocking, used: socket.socket, address: Any) -> None:
    if (place := _internet_address(used, address)) is None:
        return
    (host, port), allowed, local = place, blocking.permissions, is_loopback(place[0])
    if local and (allowed.allow_loopback or _is_own_connection(port)):
        return
    if allowed.hosts and (allowed.hosts.allows(host) or host in _addresses()):
        return
    if allowed.ignored.allows(host):
        raise _refused(f"connection to {host}:{port}")
    remedy = blocking.for_loopback if local else blocking.for_host
    used.close()  # libraries close it only after an OSError, which this is not
    raise blocking.fail(
        NetworkBlocked(f"connection to {host}:{port} blocked: {blocking.why}; {remedy}")
    )


def _check_lookup(blocking: Blocking, host: Any, *, reverse: bool = False) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name and blocking.permissions.hosts.allows(name):
        _allowed_names.add(name)
        return
    if (
        name
        and blocking.permissions.ignored.allows(name)
        and not (is_address(name) and not reverse)
    ):
        raise _refused(f"name look-up of {name!r}")
    if name is None or name == "" or is_loopback(name) or (is_address(name) and not reverse):
        return  # answered without the network
    if name == socket.gethostname():
        return  # servers look it up when they bind
    raise blocking.fail(
        NetworkBlocked(f"name look-up of {name!r} blocked: {blocking.why}; {blocking.for_host}")
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
