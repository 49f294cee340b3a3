"""What a child process gets while a test replays: no provider's key, and proxies that refuse.

Only the child's own environment is changed, never `os.environ`. Children are started in few ways:
`_posixsubprocess.fork_exec` (subprocess, asyncio, multiprocessing's spawn and forkserver),
`os.posix_spawn`, `os.execve` and, with the environment that the C library holds, `os.system` and
`os.execv`. For the last two, and for C libraries that read proxies from there (libcurl, gRPC), that
one is changed, which Python code does not see. A child made by `os.fork` alone goes on replaying
and needs none of this.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ember_testing.exceptions import NetworkBlocked, ReplayFailure
from ember_testing.patches.guard import Guard
from ember_testing.patches.hosts import Hosts, is_loopback
from ember_testing.patches.keys import PLACEHOLDER, providers
from ember_testing.patches.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["EVENTS", "OPEN", "close_children", "open_children", "unseen_libraries", "watch"]

EVENTS = frozenset({"import", "os.exec", "os.posix_spawn", "os.system"})
"""The audit events that `watch` takes."""

OPEN = 'what remains open is listed in ember_testing/README.md, "What remains open"'
"""The end of each refusal."""

# Read by the vendors' SDKs, beside those of Ember's table of servers.
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
# C libraries that open sockets which no audit event shows, by the module that loads them.
_UNSEEN = {
    "curl_cffi": "libcurl (curl_cffi)",
    "pycurl": "libcurl (pycurl)",
    "grpc._cython.cygrpc": "gRPC",
    "psycopg2._psycopg": "libpq (psycopg2)",
    "psycopg.pq": "libpq (psycopg)",
}
_HONOURS_PROXIES = ("curl_cffi", "pycurl", "grpc._cython.cygrpc")

_change = threading.RLock()
_fail: Callable[[ReplayFailure], ReplayFailure] | None = None
_hosts = Hosts()
_lent: set[str] = set()
_hooked = False
_starting = threading.local()


def close_children(*, hosts: Hosts, fail: Callable[[ReplayFailure], ReplayFailure]) -> None:
    """Give children an environment from which no provider is reached, from now on.

    Args:
        hosts: Those that children may reach all the same.
        fail: Is told of each attempt.
    """
    global _fail, _hosts, _hooked
    with _change:
        _fail, _hosts = fail, hosts
        if not _hooked and hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork, after_in_parent=_resume, after_in_child=_after_fork
            )
            _hooked = True
        for patch in _patches():
            patch.put_in()
        if any(name in sys.modules for name in _HONOURS_PROXIES):
            _lend()
    _end_forkserver()


def open_children() -> None:
    """Give children what they would get anyway."""
    global _fail
    with _change:
        if _fail is None:
            return
        _fail = None
        for patch in _patches():
            patch.take_out()
        for name in _lent:
            if name in os.environ:
                os.putenv(name, os.environ[name])
            else:
                os.unsetenv(name)
        _lent.clear()
        _guard.stop()
    _end_forkserver()


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Take note of an audit event: of a child about to start, of a library about to be loaded."""
    if _fail is None:
        return
    if event == "import":
        if arguments[0] in _HONOURS_PROXIES:
            _lend()
    elif event == "os.system" or (event == "os.exec" and arguments[2] is None):
        _lend()
    elif event in ("os.exec", "os.posix_spawn") and not getattr(_starting, "by_us", False):
        raise _fail(
            NetworkBlocked(
                f"{event} of {arguments[0]!r} blocked: the function was imported "
                "by name before this test, so that its child would have providers' keys; call it "
                "through its module, or mark the test ember_replay(allow_subprocess=True)"
            )
        )


def unseen_libraries() -> list[str]:
    """The libraries in this process whose connections no guard sees."""
    return [name for module, name in _UNSEEN.items() if module in sys.modules]


# Environments ------------------------------------------------------------------------------------


def _changes() -> Mapping[str, str]:
    """What is different in a child's environment."""
    with _change:
        proxy = f"http://127.0.0.1:{_guard.start()}"
        past = _hosts.no_proxy()
    values = dict.fromkeys(_keys(), PLACEHOLDER)
    for name in _PROXIES:
        values[name] = values[name.lower()] = proxy
    values["NO_PROXY"] = values["no_proxy"] = past
    values["NODE_USE_ENV_PROXY"] = "1"  # without it Node.js's fetch takes no notice of proxies
    return values


@lru_cache(maxsize=1)
def _keys() -> frozenset[str]:
    return frozenset(_VENDORS).union(*providers())


def _changed(environment: Mapping[Any, Any] | None) -> dict[bytes, bytes]:
    given = os.environ if environment is None else environment
    found = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
    found.update((name.encode(), os.fsencode(value)) for name, value in _changes().items())
    return found


def _lend() -> None:
    """Change the environment that the C library holds, for as long as children are closed."""
    values = _changes()
    with _change:
        for name, value in values.items():
            os.putenv(name, value)
        _lent.update(values)


# The ways to start a child -----------------------------------------------------------------------


def _fork_exec(original: Callable[..., Any]) -> Callable[..., Any]:
    def fork_exec(*arguments: Any) -> Any:
        if _fail is None:
            return original(*arguments)
        given = arguments[5]
        if given is not None:
            lines = (os.fsencode(line).partition(b"=") for line in given)
            given = {name: value for name, _, value in lines}
        environment = [name + b"=" + value for name, value in _changed(given).items()]
        return original(*arguments[:5], environment, *arguments[6:])

    return fork_exec


def _with_environment(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of `os.posix_spawn`, `os.posix_spawnp` and `os.execve`, whose third argument it is."""

    def start(path: Any, argv: Any, env: Any, /, *arguments: Any, **named: Any) -> Any:
        if _fail is None:
            return original(path, argv, env, *arguments, **named)
        _starting.by_us = True
        try:
            return original(path, argv, _changed(env), *arguments, **named)
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
    """End multiprocessing's fork server: its children have the environment that it began with."""
    module = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)
    if server is not None and getattr(server, "_forkserver_pid", None) is not None:
        server._stop()


# The guard ---------------------------------------------------------------------------------------


def _refuse(host: str, port: int) -> str:
    reason = (
        f"a child process tried to reach {host}:{port}, blocked: this test replays; mark it "
        f"ember_replay(allow_hosts=[{host!r}]) to let it through, or fake what the child asks; "
        f"{OPEN}"
    )
    fail = _fail
    if fail is not None:
        fail(NetworkBlocked(reason))
    return reason


_guard = Guard(_refuse, lambda host: is_loopback(host) or _hosts.allows(host))
_paused = False


def _before_fork() -> None:
    global _paused
    _change.acquire()
    _paused = _guard.pause()


def _resume() -> None:
    if _paused:
        _guard.start()
    _change.release()


def _after_fork() -> None:
    _guard.abandon()
    _change.release()
