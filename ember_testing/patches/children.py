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
from ember_testing.patches.hosts import is_loopback
from ember_testing.patches.keys import PLACEHOLDER, providers
from ember_testing.patches.patch import Patch
from ember_testing.patches.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ember_testing.patches.hosts import Permissions

__all__ = [
    "CHANGE",
    "EVENTS",
    "OPEN",
    "Blocking",
    "Reporting",
    "enforce",
    "unseen_libraries",
    "watch",
]

EVENTS = frozenset({"import", "os.exec", "os.posix_spawn", "os.system"})
"""The audit events that `watch` handles."""

OPEN = 'what remains open is listed in ember_testing/README.md, "What remains open"'
"""The end of each refusal."""

CHANGE = threading.RLock()
"""Held while the policy changes, and while this process forks."""

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


class Blocking(NamedTuple):
    """The policy of a replay or of a fake: what is not permitted fails."""

    permissions: Permissions
    fail: Callable[[ReplayFailure], ReplayFailure]  # called for each attempt
    why: str
    # What to do about a connection to this machine, any other connection, and one of a child.
    for_loopback: str
    for_host: str
    for_child: str


class Reporting(NamedTuple):
    """The policy of a recording: what a replay will not permit is reported."""

    permissions: Permissions
    report: Callable[[str], None]


_in_force: Blocking | Reporting | None = None
_c_changes: set[str] = set()
_hooked = False
_starting = threading.local()


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
        and isinstance(blocking, Blocking)
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


def enforce(policy: Blocking | Reporting | None, *, pause: bool = False) -> None:
    """Give children an environment for this policy; None leaves their environment unchanged.

    While blocked, children have no keys, and proxies that refuse. While a cassette records, they
    have proxies that report what they reach, unless proxies are already set.

    Args:
        policy: The policy from now on.
        pause: Whether the patches are paused: another replay follows soon.
    """
    global _in_force
    with CHANGE:
        before = _in_force
        if before is policy:
            return
        _in_force = policy
        if policy is None:
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
    if isinstance(before, Blocking) or isinstance(policy, Blocking):
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
    with CHANGE:
        state = _in_force
        if state is None:
            return {}
        if isinstance(state, Reporting) and (
            _PROXY_NAMES & given.keys() or (_is_forked and not _reporter.is_parents)
        ):
            return {}  # it must reach its hosts as without the plugin
        port = (_refuser if isinstance(state, Blocking) else _reporter).start()
    proxy = f"http://127.0.0.1:{port}"
    names = _PROXIES if isinstance(state, Blocking) else _REPORTING_PROXIES
    values = {each: proxy for name in names for each in (name, name.lower())}
    values["NO_PROXY"] = values["no_proxy"] = state.permissions.hosts.no_proxy()
    values["NODE_USE_ENV_PROXY"] = "1"  # without it Node.js's fetch ignores proxies
    return values | (dict.fromkeys(_keys(), PLACEHOLDER) if isinstance(state, Blocking) else {})


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
    with CHANGE:
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
    if not isinstance(blocking, Blocking):
        return None
    if is_loopback(host) or blocking.permissions.hosts.allows(host):
        return None
    remedy = blocking.for_child.format(host=host)
    reason = f"{_who()} tried to reach {host}:{port}, blocked: {blocking.why}; {remedy}; {OPEN}"
    blocking.fail(NetworkBlocked(reason))
    return reason


def _who() -> str:
    """Name the possible callers: C libraries of this process use the same proxies."""
    return " or ".join(["a child process", *_loaded()])


def _report(host: str, port: int) -> None:
    reporting = _in_force
    if isinstance(reporting, Reporting) and not (
        is_loopback(host) or reporting.permissions.covers(host)
    ):
        reporting.report(f"{host}:{port} by {_who()}")


_refuser = Proxy(_refuse)
_reporter = Proxy(_report)
"""Once used, it listens until this process ends: a child may outlive the test."""
_paused: list[Proxy] = []
_is_forked = False  # this process may call exec at any time


def _before_fork() -> None:
    CHANGE.acquire()
    _paused[:] = [each for each in (_refuser, _reporter) if each.pause()]


def _resume() -> None:
    for each in _paused:
        each.start()
    CHANGE.release()


def _after_fork() -> None:
    global _is_forked
    _is_forked = True
    _refuser.abandon()
    _reporter.abandon()
    CHANGE.release()
