"""The conftest.py of one client's process: redirect the providers' hosts, and write outcomes.

It is copied next to the cells and runs in the client's environment, which has pytest, Ember and
the client. `MATRIX_PORT` is the port of the server; without it nothing is redirected.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest

PHASE = os.environ["MATRIX_PHASE"]


def pytest_configure() -> None:
    """Redirect connections to providers to this machine, for every library and asyncio."""
    if "MATRIX_PORT" not in os.environ:
        return
    port, hosts = int(os.environ["MATRIX_PORT"]), os.environ["MATRIX_HOSTS"].split()
    look_up, connect, connect_ex = (
        socket.getaddrinfo,
        socket.socket.connect,
        socket.socket.connect_ex,
    )

    def here(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in hosts:
            return look_up(host, *arguments, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    def redirected(connect: Callable[..., Any]) -> Callable[..., Any]:
        def to_server(used: socket.socket, address: Any) -> Any:
            return connect(used, ("127.0.0.1", port) if address == ("127.0.0.1", 443) else address)

        return to_server

    certifi.where = lambda: os.environ["SSL_CERT_FILE"]  # some packages ignore the variable
    socket.getaddrinfo = here
    socket.socket.connect = redirected(connect)  # type: ignore[method-assign]  # the point
    socket.socket.connect_ex = redirected(connect_ex)  # type: ignore[method-assign]  # the point


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of each test to a file, for the table."""
    if report.when == "call" or report.outcome != "passed":
        line = {
            "cell": report.nodeid.rpartition("::test_")[2],
            "when": report.when,
            "outcome": report.outcome,
            "text": report.longrepr[2] if report.skipped else report.longreprtext,
        }
        with Path(f"{PHASE}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Assert that a replayed outcome equals the recorded one."""
    path = Path(f"outcome-{request.node.name}.json")

    def same(outcome: Any) -> None:
        if PHASE == "record":
            path.write_text(json.dumps(outcome))
        assert outcome == json.loads(path.read_text())

    return same
