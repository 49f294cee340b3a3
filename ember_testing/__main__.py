"""`python -m ember_testing`: one call of the embedded model, recorded live and replayed offline.

Exit codes: 0 success, 1 the model failed, 2 a package is missing (the message has the command).
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from pathlib import Path

from ember.api import models
from ember.exceptions import EmberError, ModelProviderError
from ember.models.schemas import ChatResponse
from ember_testing import NetworkBlocked, cassette

_MODEL, _PROMPT = "local/smollm2", "Name three primary colors."


def main() -> int:
    """Run the command and return its exit code."""
    path = Path(tempfile.mkdtemp(prefix="ember-")) / "primary-colors.sqlite"
    try:
        _show(path)
    except EmberError as error:
        print(f"ember: {error}", file=sys.stderr)
        return 2 if isinstance(error, ModelProviderError) else 1
    return 0


def _show(path: Path) -> None:
    print(f'models("{_MODEL}", "{_PROMPT}")\n')
    models(_MODEL, "Say hi.", max_tokens=1)  # start the engine, which is not timed
    with cassette(path, record="all"):
        live, live_seconds = _ask()
    print(f"{live.text}\n")
    _row("live, recorded", live, live_seconds)
    with cassette(path):
        replayed, replayed_seconds = _ask()
    _row("replayed", replayed, replayed_seconds)
    same = "the same answer" if replayed.text == live.text else "ANOTHER ANSWER"
    print(f"\n{same}, {live_seconds / replayed_seconds:,.0f} times as fast; {_left_open(path)}")
    print(f"the cassette: {path}")
    # With the interpreter: after a fresh installation, the command may not be on PATH.
    print(f"to read it:   {sys.executable} -m ember_testing.cli show {path}")


def _ask() -> tuple[ChatResponse, float]:
    started = time.perf_counter()
    response = models(_MODEL, _PROMPT, temperature=0, max_tokens=60)
    return response, time.perf_counter() - started


def _left_open(path: Path) -> str:
    """Try to open a connection during a replay, as any library might."""
    with socket.socket() as somewhere:
        try:
            with cassette(path):
                somewhere.connect(("127.0.0.1", 9))
        except NetworkBlocked:
            return "the network was closed"
        except OSError:
            pass
    return "THE NETWORK WAS OPEN"


def _row(name: str, response: ChatResponse, seconds: float) -> None:
    usage = response.usage
    print(
        f"{name:<15} {usage.prompt_tokens:>4} + {usage.completion_tokens:<4} tokens   "
        f"${usage.cost:.6f}   {seconds * 1000:>8.2f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
