"""The environment of child processes during a replay: no API keys, and proxies that refuse.

While a cassette records, children get proxies that let everything through and report it, because no
recorder sees their calls. Only the child's environment is changed, never `os.environ`. Children are
started by `_posixsubprocess.fork_exec` (subprocess, asyncio, multiprocessing's spawn and
forkserver), `os.posix_spawn`, `os.execve` and, with the C library's environment, `os.system` and
`os.execv`. For the last two, and for C libraries that read proxies there (libcurl, gRPC), the C
library's environment is changed, which Python code does not see. A child made by `os.fork` alone
continues to replay and needs none of this.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_testing.exceptions import NetworkBlocked, ReplayFailure
from ember_testing.patches.hosts import Hosts, is_loopback
from ember_testing.patches.keys import PLACEHOLDER, providers
from ember_testing.patches.patch import Patch
from ember_testing.patches.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "EVENTS",
    "OPEN",
    "close_children",
    "close_children_for_fakes",
    "open_children",
    "open_children_for_fakes",
    "report_children",
    "unseen_libraries",
    "watch",
]

EVENTS = frozenset({"import", "os.exec", "os.posix_spawn", "os.system"})
"""The audit events that `watch` handles."""

OPEN = 'what remains open is listed in ember_testing/README.md, "What remains open"'
"""The end of each refusal."""

# Read by the vendors' SDKs, in addition to the variables of Ember's table of servers.
_VENDORS = (
    "AI21_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AWS_BEARER_TOKEN_BEDROCK",
    "AZURE_AI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY",
    "CEREBRAS_API_KEY", "COHERE_API_KEY", "CO_API_KEY", "DASHSCOPE_API_KEY", "DEEPSEEK_API_KEY",
    "ELEVENLABS_API_KEY", "FIREWORKS_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "GROQ_API_KEY",
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "JINA_API_KEY", "MISTRAL_API_KEY", "MOONSHOT_API_KEY",
    "NVIDIA_API_KEY", "OLLAMA_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY",
    "PERPLEXITY_API_KEY", "PPLX_API_KEY", "REPLICATE_API_TOKEN", "TOGETHER_API_KEY",
    "VOYAGE_API_KEY", "WATSONX_APIKEY", "XAI_API_KEY", "ZAI_API_KEY",
)  # fmt: skip
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY")
_PROXY_NAMES = frozenset(os.fsencode(each) for name in _PROXIES for each in (name, name.lower()))
# The forwarding proxy understands only the protocol that clients use with these two.
_REPORTING_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY")
# Compiled libraries whose sockets raise no audit events, by the module that loads them; first those
# that read proxies from the C library's environment.
_HONOUR_PROXIES = {
    "curl_cffi": "libcurl (curl_cffi)",
    "pycurl": "libcurl (pycurl)",
    "grpc._cython.cygrpc": "gRPC",
    "primp": "reqwest (primp)",
    "hf_xet": "reqwest (hf_xet)",
}
_UNSEEN = _HONOUR_PROXIES | {
    "psycopg2._psycopg": "libpq (psycopg2)",
    "psycopg.pq": "libpq (psycopg)",
    "MySQLdb._mysql": "libmysqlclient (mysqlclient)",
    "pymssql._pymssql": "FreeTDS (pymssql)",
    "pyodbc": "ODBC (pyodbc)",
    "confluent_kafka.cimpl": "librdkafka (confluent_kafka)",
    "tls_client.cffi": "tls-client",
}
# `importlib.import_module` raises no event for a package, only for its compiled module.
_PACKAGES_WITH_PROXIES = frozenset(name.partition(".")[0] for name in _HONOUR_PROXIES)


class _Blocking(NamedTuple):
    """Children reach only these hosts; `fail` is called for each other attempt."""

    hosts: Hosts
    fail: Callable[[ReplayFailure], ReplayFailure]
    why: str = (
        "this test replays; mark it ember_replay(allow_hosts=[{host!r}]) to let it through, or "
        "fake what the child asks"
    )


class _Reporting(NamedTuple):
    """Children reach everything; `tell` gets each connection except those to these hosts."""

    hosts: Hosts
    ignored: Hosts
    report: Callable[[str], None]


_change = threading.RLock()
_of_cassette: _Blocking | _Reporting | None = None
_fakes: dict[object, _Blocking] = {}  # by the fake; the innermost is last
_in_force: _Blocking | _Reporting | None = None  # the cassette's, or else the innermost fake's
_c_changes: set[str] = set()
_hooked = False
_starting = threading.local()


def close_children(*, hosts: Hosts, fail: Callable[[ReplayFailure], ReplayFailure]) -> None:
    """Give children an environment in which no provider can be reached, from now on.

    Args:
        hosts: Hosts that children may reach all the same.
        fail: Called for each attempt.
    """
    _enforce(_Blocking(hosts, fail))


def close_children_for_fakes(
    owner: object, *, fail: Callable[[ReplayFailure], ReplayFailure]
) -> None:
    """Close children while models are faked, unless a cassette decides what they may reach.

    Args:
        owner: The fake.
        fail: Called for each attempt.
    """
    why = "models are faked here; give the child the address of a fault_server to ask"
    with _change:
        _fakes[owner] = _Blocking(Hosts(), fail, why)
        _enforce(_of_cassette)


def open_children_for_fakes(owner: object) -> None:
    """Undo `close_children_for_fakes` for this fake."""
    with _change:
        if _fakes.pop(owner, None) is not None:
            _enforce(_of_cassette)


def report_children(*, hosts: Hosts, ignored: Hosts, report: Callable[[str], None]) -> None:
    """Give children proxies that report what they reach, unless proxies are already set.

    Args:
        hosts: Hosts that a replay lets children reach.
        ignored: Hosts whose calls a replay may refuse.
        report: Called in a thread for any other host: `HOST:PORT by a child process`.
    """
    _enforce(_Reporting(hosts, ignored, report))


def open_children(*, pause: bool = False) -> None:
    """Leave the environment of children unchanged, unless models are faked.

    Args:
        pause: Whether the patches are paused: another replay follows soon.
    """
    _enforce(None, pause=pause)


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Handle an audit event: a child is about to start, or a library to be loaded."""
    blocking = _in_force
    if blocking is None:
        return
    if event == "import":
        if str(arguments[0]).partition(".")[0] in _PACKAGES_WITH_PROXIES and not _c_changes:
            _change_c_environment()
    elif event == "os.system" or (event == "os.exec" and arguments[2] is None):
        _change_c_environment()
    elif (
        event in ("os.exec", "os.posix_spawn")
        and isinstance(blocking, _Blocking)
        and not getattr(_starting, "by_us", False)
    ):
        raise blocking.fail(
            NetworkBlocked(
                f"{event} of {arguments[0]!r} blocked: the function was imported "
                "by name before this test, so that its child would have providers' keys; call it "
                "through its module, or mark the test ember_replay(allow_subprocess=True)"
            )
        )


def _loaded() -> list[str]:
    """Return the loaded libraries that read a proxy from the C library's environment."""
    return [name for module, name in _HONOUR_PROXIES.items() if sys.modules.get(module)]


def unseen_libraries() -> list[str]:
    """Return the loaded libraries whose connections no guard sees."""
    return [name for module, name in _UNSEEN.items() if sys.modules.get(module)]


# Environments ------------------------------------------------------------------------------------


def _enforce(of_cassette: _Blocking | _Reporting | None, *, pause: bool = False) -> None:
    global _of_cassette, _in_force, _hooked
    with _change:
        _of_cassette = of_cassette
        before, state = _in_force, of_cassette or next(reversed(_fakes.values()), None)
        if before is state:
            return
        _in_force = state
        if state is None:
            for patch in _patches():
                patch.uninstall(pause=pause)
            _restore_c_environment()
            _refuser.stop()
        else:
            _watch_forks()
            for patch in _patches():
                patch.install()
            _restore_c_environment()
            if _loaded():
                _change_c_environment()
    if isinstance(before, _Blocking) or isinstance(state, _Blocking):
        _end_forkserver()


def _watch_forks() -> None:
    global _hooked
    if not _hooked and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_resume, after_in_child=_after_fork
        )
        _hooked = True


def _variables_to_change(given: Mapping[bytes, bytes]) -> Mapping[str, str]:
    """Return the variables to change in a child's environment.

    Args:
        given: The unchanged environment.
    """
    with _change:
        state = _in_force
        if state is None:
            return {}
        if isinstance(state, _Reporting) and (
            _PROXY_NAMES & given.keys() or (_is_forked and not _reporter.is_parents)
        ):
            return {}  # it must reach its hosts as without the plugin
        port = (_refuser if isinstance(state, _Blocking) else _reporter).start()
    proxy = f"http://127.0.0.1:{port}"
    names = _PROXIES if isinstance(state, _Blocking) else _REPORTING_PROXIES
    values = {each: proxy for name in names for each in (name, name.lower())}
    values["NO_PROXY"] = values["no_proxy"] = state.hosts.no_proxy()
    values["NODE_USE_ENV_PROXY"] = "1"  # without it Node.js's fetch ignores proxies
    return values | (dict.fromkeys(_keys(), PLACEHOLDER) if isinstance(state, _Blocking) else {})


@lru_cache(maxsize=1)
def _keys() -> frozenset[str]:
    return frozenset(_VENDORS).union(*providers())


def _child_environment(environment: Mapping[Any, Any] | None) -> dict[bytes, bytes]:
    given = os.environ if environment is None else environment
    found = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
    changes = _variables_to_change(found)
    found.update((name.encode(), os.fsencode(value)) for name, value in changes.items())
    return found


def _change_c_environment() -> None:
    """Change the C library's environment until the state changes."""
    values = _variables_to_change({os.fsencode(name): b"" for name in os.environ})
    with _change:
        for name, value in values.items():
            os.putenv(name, value)
        _c_changes.update(values)


def _restore_c_environment() -> None:
    for name in _c_changes:
        if name in os.environ:
            os.putenv(name, os.environ[name])
        else:
            os.unsetenv(name)
    _c_changes.clear()


# The ways to start a child -----------------------------------------------------------------------


def _fork_exec(original: Callable[..., Any]) -> Callable[..., Any]:
    def fork_exec(*arguments: Any) -> Any:
        if _in_force is None:
            return original(*arguments)
        given = arguments[5]
        if given is not None:
            lines = (os.fsencode(line).partition(b"=") for line in given)
            given = {name: value for name, _, value in lines}
        environment = [name + b"=" + value for name, value in _child_environment(given).items()]
        return original(*arguments[:5], environment, *arguments[6:])

    return fork_exec


def _with_environment(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `os.posix_spawn`, `os.posix_spawnp` or `os.execve`: the third argument is `env`."""

    def start(path: Any, argv: Any, env: Any, /, *arguments: Any, **named: Any) -> Any:
        if _in_force is None:
            return original(path, argv, env, *arguments, **named)
        _starting.by_us = True
        try:
            return original(path, argv, _child_environment(env), *arguments, **named)
        finally:
            _starting.by_us = False

    return start


@lru_cache(maxsize=1)
def _patches() -> tuple[Patch, ...]:
    if sys.platform == "win32":
        return ()
    import _posixsubprocess
    import subprocess

    places = [(_posixsubprocess, "fork_exec", _fork_exec), (subprocess, "_fork_exec", _fork_exec)]
    places += [(os, name, _with_environment) for name in ("posix_spawn", "posix_spawnp", "execve")]
    return tuple(Patch(*place) for place in places if hasattr(*place[:2]))


def _end_forkserver() -> None:
    """End multiprocessing's fork server, whose children inherit its old environment."""
    module = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)
    if server is not None and getattr(server, "_forkserver_pid", None) is not None:
        server._stop()


# The proxies -------------------------------------------------------------------------------------


def _refuse(host: str, port: int) -> str | None:
    blocking = _in_force
    if is_loopback(host) or not isinstance(blocking, _Blocking) or blocking.hosts.allows(host):
        return None
    reason = (
        f"{_who()} tried to reach {host}:{port}, blocked: {blocking.why.format(host=host)}; {OPEN}"
    )
    blocking.fail(NetworkBlocked(reason))
    return reason


def _who() -> str:
    """Name the possible callers: C libraries of this process use the same proxies."""
    return " or ".join(["a child process", *_loaded()])


def _report(host: str, port: int) -> None:
    reporting = _in_force
    if isinstance(reporting, _Reporting) and not (
        is_loopback(host) or reporting.hosts.allows(host) or reporting.ignored.allows(host)
    ):
        reporting.report(f"{host}:{port} by {_who()}")


_refuser = Proxy(_refuse)
_reporter = Proxy(_report)
"""Once used, it listens until this process ends: a child may outlive the test."""
_paused: list[Proxy] = []
_is_forked = False  # this process may call exec at any time


def _before_fork() -> None:
    _change.acquire()
    _paused[:] = [each for each in (_refuser, _reporter) if each.pause()]


def _resume() -> None:
    for each in _paused:
        each.start()
    _change.release()


def _after_fork() -> None:
    global _is_forked
    _is_forked = True
    _refuser.abandon()
    _reporter.abandon()
    _change.release()
