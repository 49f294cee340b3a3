"""What `ember-cassettes` takes over many cassettes: time and memory, at two sizes.

    python tests/benchmarks/commands.py [--files 5000] [--calls 20] [NAME ...]

`NAME` is any of `check list stats html diff`. Each runs in a process of its own over a fifth of
the files and over all of them: the time of a call must stay the same (linear), and memory too
(flat; `html` makes one page of all). `diff` compares two cassettes with a tenth of the calls each,
a hundredth of whose requests differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Different cassettes; the others are copies of them under other names. So many that the page of
# `html` has forgotten a text by the time it comes again.
DIFFERENT = 1000
EACH = 100  # files of a folder
COMMANDS = ("check", "list", "stats", "html", "diff")
# In a process of its own, which says what it took: the processor's time, and the most memory.
PROGRAM = """
import json, resource, sys, time
from ember_testing.cli import main
started = time.process_time()
try:
    main(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    if end.code and sys.argv[1] != "diff":
        raise
seconds = time.process_time() - started
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, memory]), file=sys.stderr)
"""


def exchange(session: Any, asked: object, answer: object) -> None:
    """One call, put into a recording as if a client had made it."""
    from ember_testing.patches.exchange import Exchange
    from ember_testing.wires.response import Request

    headers = (("content-type", "application/json"),)
    url = "https://api.openai.com/v1/chat/completions"
    body = json.dumps(asked, separators=(",", ":")).encode()
    call = session.answer(Request("POST", url, headers, body))
    assert isinstance(call, Exchange)
    call.head(200, headers, "HTTP/1.1", "OK")
    call.piece(json.dumps(answer).encode())
    call.finish("complete")


def record(path: Path, numbers: range, word: str = "word", every: int = 0) -> None:
    """A cassette of calls with about a kilobyte each way, one of `every` with another word."""
    from ember_testing.replay.session import Session

    path.parent.mkdir(parents=True, exist_ok=True)
    session = Session(path, "new")
    usage = {"prompt_tokens": 210, "completion_tokens": 190, "total_tokens": 400}
    for number in numbers:
        other = "other" if every and not number % every else ""
        text = " ".join([*(f"{word}{number + n}" for n in range(120)), other])
        messages = [{"role": "user", "content": f"Question {number}: {text}"}]
        message = {"role": "assistant", "content": f"Answer {number}: {text}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = {"id": "c", "model": "gpt-4-0613", "usage": usage, "choices": choices}
        exchange(session, {"model": "gpt-4", "messages": messages}, answer)
    session.close(True)


def make(folder: Path, files: int, calls: int) -> Path:
    """A folder with so many cassettes of so many calls."""
    target = folder / f"{files}x{calls}"
    paths = [target / f"part{n // EACH:03}" / f"test_it.{n:05}.sqlite" for n in range(files)]
    for n, path in enumerate(paths):
        if n < DIFFERENT:
            record(path, range(n * calls, (n + 1) * calls))
        else:
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(paths[n % DIFFERENT], path)
    return target


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Seconds of the processor and megabytes of one command."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        raise SystemExit("\n".join(lines[-5:]))
    seconds, memory = json.loads(lines[-1])
    return seconds, memory


def main() -> None:
    """Make the cassettes, run the commands, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(COMMANDS))
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--calls", type=int, default=20, help="of each cassette")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    sizes = (options.files // 5, options.files)
    head = " | ".join(f"{n:,} files, {n * options.calls:,} calls: s, ms a call, MB" for n in sizes)
    print(f"| `ember-cassettes` | {head} |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="ember-benchmark-") as name:
        folder = Path(name)
        for command in options.names or COMMANDS:
            cells = []
            for files in sizes:
                calls = files * options.calls
                if command == "diff":
                    calls //= 10
                    pair = [folder / f"{side}-{calls}.sqlite" for side in ("old", "new")]
                    for path, every in zip(pair, (0, 100), strict=True):
                        record(path, range(calls), "word", every)
                    arguments = [str(path) for path in pair]
                else:
                    cassettes = folder / f"{files}x{options.calls}"
                    if not cassettes.exists():
                        make(folder, files, options.calls)
                    arguments = [str(cassettes)]
                    if command == "html":
                        arguments += ["-o", str(folder / f"{files}.html")]
                seconds, memory = run(folder, command, *arguments)
                cells.append(f"{seconds:.1f}, {seconds / calls * 1e3:.2f}, {memory:.0f}")
            print(f"| `{command}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
