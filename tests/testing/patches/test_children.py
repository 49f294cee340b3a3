"""The environment of child processes during a replay: no keys, and a proxy that refuses."""

# ruff: noqa: SIM117, PT031 - the tests are about `with` blocks and what happens at their ends
from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import pty
import shlex
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from os import posix_spawn as spawn_imported_before
from pathlib import Path
from typing import Any

import httpx
import pytest

import ember_testing
from ember_testing import NetworkBlocked, RecordingWarning
from ember_testing.patches.hosts import Hosts
from ember_testing.patches.keys import PLACEHOLDER
from ember_testing.patches.proxy import Proxy
from tests.loopback import serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children are started elsewise")

# Writes the child's environment to a file; run without the site module, which is slow.
DUMP = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
SHELL = f"{shlex.quote(sys.executable)} -S -c {shlex.quote(DUMP)}"


def dump(file: str) -> None:
    """Write the environment of a child of multiprocessing to a file."""
    Path(file).write_text(json.dumps(dict(os.environ)))


def argv(file: Path) -> list[str]:
    """Return the command of a child that writes its environment to a file."""
    return [sys.executable, "-S", "-c", DUMP, str(file)]


def by_run(file: Path) -> None:
    """Start a child with `subprocess.run`."""
    subprocess.run(argv(file), check=True)


def by_own_environment(file: Path) -> None:
    """Start a child with an explicit environment."""
    subprocess.run(argv(file), check=True, env={**os.environ, "MORE": "1"})


def by_bytes(file: Path) -> None:
    """Start a child with an explicit environment of bytes."""
    subprocess.run(argv(file), check=True, env=dict(os.environb))


def by_shell(file: Path) -> None:
    """Start a child through a shell and read its output."""
    subprocess.check_output(f"{SHELL} {file}", shell=True)


def by_system(file: Path) -> None:
    """Start a child with the C library's environment."""
    assert os.system(f"{SHELL} {file}") == 0


def by_popen(file: Path) -> None:
    """Start a child with `os.popen`."""
    with os.popen(f"{SHELL} {file}") as pipe:
        pipe.read()


def by_posix_spawn(file: Path) -> None:
    """Start a child with `os.posix_spawn`."""
    os.waitpid(os.posix_spawn(sys.executable, argv(file), os.environ), 0)


def by_asyncio(file: Path) -> None:
    """Start a child from an event loop."""

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(*argv(file))
        await process.wait()

    asyncio.run(run())


def by_multiprocessing(method: str) -> Callable[[Path], None]:
    """Return a function that starts a process of multiprocessing without fork."""

    def start(file: Path) -> None:
        process: Any = multiprocessing.get_context(method).Process(target=dump, args=(str(file),))
        process.start()
        process.join()

    return start


WAYS: dict[str, Callable[[Path], None]] = {
    "run": by_run,
    "env": by_own_environment,
    "env in bytes": by_bytes,
    "shell": by_shell,
    "os.system": by_system,
    "os.popen": by_popen,
    "os.posix_spawn": by_posix_spawn,
    "asyncio": by_asyncio,
    "spawn": by_multiprocessing("spawn"),
    "forkserver": by_multiprocessing("forkserver"),
}


@pytest.mark.parametrize("way", WAYS)
def test_child_process_gets_no_key_and_a_proxy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """However a child is started, only keys and proxies in its own environment are changed."""
    file = tmp_path / "environment"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:password@db")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    with ember_testing.cassette(path):
        before = dict(os.environ)
        WAYS[way](file)
        assert dict(os.environ) == before
    found = json.loads(file.read_text())
    assert found["OPENAI_API_KEY"] == found["ANTHROPIC_API_KEY"] == PLACEHOLDER
    assert found["HF_TOKEN"] == PLACEHOLDER
    assert found["https_proxy"] == found["HTTP_PROXY"]
    assert found["https_proxy"].startswith("http://127.0.0.1:")
    assert found["no_proxy"] == "localhost,127.0.0.1,::1"
    assert found["DATABASE_URL"] == "postgres://user:password@db"
    assert found["PATH"] == os.environ["PATH"]
    assert ("MORE" in found) == (way == "env")
    file.unlink()
    WAYS[way](file)
    found = json.loads(file.read_text())
    assert found["OPENAI_API_KEY"] == "sk-real"
    assert "https_proxy" not in found


def test_request_of_a_child_process_is_refused_and_fails_the_test(path: Path) -> None:
    """The child reads the reason; if its error is swallowed, the test fails at the end."""
    code = "import urllib.request as u; u.urlopen('https://api.openai.com/v1/models')"
    with pytest.raises(NetworkBlocked, match=r"child process tried to reach api\.openai\.com:443"):
        with ember_testing.cassette(path):
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            assert "403 a child process tried to reach api.openai.com:443, blocked" in done.stderr
    with pytest.raises(NetworkBlocked, match="What remains open"):
        with ember_testing.cassette(path):
            subprocess.run(
                [sys.executable, "-c", code.replace("https", "http")],
                capture_output=True,
                check=False,
            )


def by_fork_and_exec(command: list[str]) -> None:
    """Call fork and exec directly."""
    if not (pid := os.fork()):
        os.execv(command[0], command)
    os.waitpid(pid, 0)


BECOMES: dict[str, Callable[[list[str]], object]] = {
    "fork and exec": by_fork_and_exec,
    "spawnv": lambda command: os.spawnv(os.P_WAIT, command[0], command),
    "spawnve": lambda command: os.spawnve(os.P_WAIT, command[0], command, dict(os.environ)),
    "spawnlp": lambda command: os.spawnlp(os.P_WAIT, command[0], *command),
    "pty": lambda command: pty.spawn(command, lambda handle: os.read(handle, 1024)),
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("way", BECOMES)
def test_forked_process_that_executes_a_program_reaches_no_provider(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It gets no key and cannot reach a provider; a running guard reports its attempt."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    file, start = tmp_path / "environment", BECOMES[way]
    code = "import urllib.request as u; u.urlopen('https://api.openai.com/v1/models')"
    with ember_testing.cassette(path):
        start(argv(file))
    found = json.loads(file.read_text())
    assert found["OPENAI_API_KEY"] == PLACEHOLDER
    assert found["https_proxy"].startswith("http://127.0.0.1:")
    with pytest.raises(NetworkBlocked, match=r"child process tried to reach api\.openai\.com:443"):
        with ember_testing.cassette(path):
            by_run(file)
            start([sys.executable, "-c", code])
    with pytest.warns(RecordingWarning, match=r"api\.openai\.com:443 by a child process"):
        with ember_testing.cassette(path, record="new"):
            by_run(file)
            start([sys.executable, "-c", code])


def test_forked_process_that_executes_a_program_keeps_its_environment_while_recording(
    tmp_path: Path,
) -> None:
    """If no proxy is listening yet, its environment is unchanged."""
    code = f"""
import os, pathlib, runpy, sys
sys.path[:0] = {sys.path!r}
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
import ember_testing
here = runpy.run_path({__file__!r})
with ember_testing.cassette("c.sqlite", record="new"):
    for name, way in here["BECOMES"].items():
        way(here["argv"](pathlib.Path(name)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    for name in BECOMES:
        found = json.loads((tmp_path / name).read_text())
        assert "https_proxy" not in found
        assert "HTTP_PROXY" not in found


def test_child_processes_reach_no_provider_while_models_are_faked(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds without a cassette; with one, the cassette's settings apply."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    code = "import urllib.request as u; u.urlopen('https://api.openai.com/v1/models')"

    def ask() -> None:
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    with pytest.raises(NetworkBlocked, match=r"api\.openai\.com:443, blocked: models are faked"):
        with ember_testing.fake_model():
            by_run(tmp_path / "faked")
            ask()
    assert json.loads((tmp_path / "faked").read_text())["OPENAI_API_KEY"] == PLACEHOLDER
    with pytest.raises(NetworkBlocked, match=r"this test replays"):
        with ember_testing.cassette(path), ember_testing.fake_model():
            ask()
    by_run(tmp_path / "after")
    assert json.loads((tmp_path / "after").read_text())["OPENAI_API_KEY"] == "sk-real"


def test_harmless_child_process_runs_and_reaches_this_machine(path: Path) -> None:
    """Programs such as git still run, and a child reaches a local server."""
    with serving() as server, ember_testing.cassette(path):
        assert subprocess.run(["echo", "x"], capture_output=True, check=True).stdout == b"x\n"
        code = f"import urllib.request as u; print(u.urlopen({server.url!r}).status)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout == b"200\n"
    assert len(server.received) == 1


def test_allow_subprocess_leaves_the_environment_unchanged(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`allow_subprocess=True` leaves the environment alone."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    with ember_testing.cassette(path, allow_subprocess=True):
        by_run(tmp_path / "environment")
    assert json.loads((tmp_path / "environment").read_text())["OPENAI_API_KEY"] == "sk-real"


def test_function_imported_by_name_is_refused(path: Path, tmp_path: Path) -> None:
    """A function that no patch of a module's attribute reaches is refused, with the remedy."""
    with pytest.raises(NetworkBlocked, match=r"imported by name .*allow_subprocess=True"):
        with ember_testing.cassette(path):
            spawn_imported_before(sys.executable, argv(tmp_path / "environment"), os.environ)
    assert not (tmp_path / "environment").exists()


def test_libcurl_in_this_process_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of libcurl is set in the C library's environment only, during the replay."""
    (tmp_path / "pycurl.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    monkeypatch.setitem(sys.modules, "pycurl", None)  # restored afterwards
    del sys.modules["pycurl"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # the warning that names pycurl
        with ember_testing.cassette(path):
            assert getenv(b"https_proxy") is None
            __import__("pycurl")
            assert getenv(b"https_proxy").startswith(b"http://127.0.0.1:")
            assert "https_proxy" not in os.environ
        assert getenv(b"https_proxy") is None
        with ember_testing.cassette(path):
            assert getenv(b"https_proxy").startswith(b"http://127.0.0.1:")
    assert getenv(b"https_proxy") is None


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.0/8", "local*"])
def test_allowed_hosts_are_reached_by_every_client(path: Path, name: str) -> None:
    """A host of `allow_hosts=` is neither recorded nor replayed, with httpx or a plain socket."""
    with serving() as server:
        host = "127.0.0.1" if name[0] == "1" else "localhost"
        with ember_testing.cassette(path, allow_hosts=[name]) as cassette:
            assert httpx.get(f"http://{host}:{server.port}").status_code == 200
            socket.create_connection((host, server.port)).close()
            assert not cassette.played
        with pytest.raises(NetworkBlocked, match="allow_loopback=True"):
            with ember_testing.cassette(path, allow_hosts=["db", "*.internal", "10.0.0.0/8"]):
                socket.create_connection((host, server.port))
    assert len(server.received) == 1


@pytest.mark.parametrize("name", ["http://db", "db:5432", "", "a b"])
def test_invalid_allowed_host_is_refused(name: str) -> None:
    """A URL or a port among the hosts, which would never match, is refused."""
    with pytest.raises(ValueError, match="expected a host's name without scheme and port"):
        Hosts([name])


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tunnel"])
def test_the_guard_passes_allowed_requests_on(secure: bool) -> None:
    """For a client that ignores `NO_PROXY`, the guard is an ordinary proxy."""
    guard = Proxy(lambda host, port: None if host == "localhost" else f"no {host}:{port}")
    guard.start()
    try:
        with serving() as server, socket.create_connection(("127.0.0.1", guard.port)) as client:
            head = b"Host: localhost\r\nConnection: close\r\n\r\n"
            if secure:
                client.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % server.port)
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
                client.sendall(b"GET /x HTTP/1.1\r\n" + head)
            else:
                client.sendall(b"GET http://localhost:%d/x HTTP/1.1\r\n" % server.port + head)
            answer = b"".join(iter(lambda: client.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert [request.path for request in server.received] == ["/x"]
        assert httpx.get("http://other/", proxy=f"http://127.0.0.1:{guard.port}").text == (
            "no other:80\n"
        )
    finally:
        guard.stop()


def test_the_guards_thread_ends_with_the_replay(path: Path) -> None:
    """A fork after the replay is one of a process without additional threads."""
    import threading

    before = threading.active_count()
    with ember_testing.cassette(path):
        subprocess.run(["true"], check=True)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
