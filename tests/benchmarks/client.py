"""What a call costs with Ember, with httpx by hand and with the vendors' packages, in one run.

    python tests/benchmarks/client.py [--rounds 5] [--against FOLDER] [--plot FILE] [NAME ...]

Each measure runs in a fresh process, against a server in another one (`server.py`), and in turn
for all clients; the table, in Markdown, gives the median of the rounds, and the median of each
round's ratio. With `--against`, the Ember of another checkout takes part as `before`, and the
ratio is to that. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from clients import BODY, CLIENTS, HEADERS, PEERS
from plot import Line, drawn

HERE = Path(__file__).parent
BOTH, ALL, EMBER = ("ember", "httpx"), ("ember", "httpx", *PEERS), ("ember",)
FLOOR = ("ember", "transport", "httpx")
PEER_ROUNDS = 2
"""The vendors' packages take several times longer, and nothing is decided by them."""


class Row(NamedTuple):
    """A line of the table.

    Args:
        name: The measure.
        what: What is measured, in words.
        unit: Of the figures.
        bar: What the project has set itself, of the ratio unless it has a unit.
        clients: Who takes part.
        base: Whose figure the ratio is to; none for an empty text.
    """

    name: str
    what: str
    unit: str
    bar: str
    clients: Sequence[str]
    base: str = "httpx"


TABLE = (
    Row("import", "import", "ms", "<= 1.04", ALL),
    Row("start", "process start to first answer", "ms", "<= 1.0", ALL),
    Row("first", "first call of a process", "ms", "<= 0.5", ALL),
    Row("sync", "one sync call, warm", "us", "<= 0.62", ALL),
    Row("tls", "the same over TLS", "us", "", BOTH),
    Row("threads-1-cpu", "a sync call, CPU, 1 thread", "us", "<= 1.30", FLOOR, "transport"),
    Row("threads-32-cpu", "the same, 32 threads", "us", "<= 1.30", FLOOR, "transport"),
    Row("threads-128-cpu", "the same, 128 threads", "us", "<= 1.30", FLOOR, "transport"),
    Row("tasks-1-cpu", "an async call, CPU, 1 task", "us", "<= 1.30", FLOOR, "transport"),
    Row("tasks-200-cpu", "the same, 200 tasks", "us", "<= 1.30", FLOOR[:2], "transport"),
    Row("tasks-1000-cpu", "the same, 1,000 tasks", "us", "<= 1.30", FLOOR[:2], "transport"),
    Row("threads", "128 threads", "calls/s", ">= 1.7", ALL),
    Row("async-200", "200 async calls at once", "calls/s", ">= 6.5", ALL),
    Row("async", "one async call, warm, CPU", "us", "", ALL),
    Row("stream-cpu", "a streamed answer of 500 chunks, CPU", "us", "<= 1.05", BOTH),
    Row("stream", "the same, wall time", "us", "", ("ember", "httpx", "openai")),
    Row("memory", "resident memory after 1,000 calls", "MB", "", ALL),
    Row("memory-100k", "growth from 1,000 to 100,000 calls", "MB", "flat", EMBER, ""),
    Row("memory-names", "growth over 1,000 model names", "MB", "flat", EMBER, ""),
    Row("kept", "objects that a kept result holds", "", "", BOTH),
    Row("leaked", "objects that stay for each dropped result", "", "0", EMBER, ""),
    Row("dispatch-1", "dispatch, null provider, 1 thread", "calls/s", "150,000", EMBER, ""),
    Row("dispatch-32", "dispatch, null provider, 32 threads", "calls/s", "no lower", EMBER, ""),
)
_ONCE = {"memory", "memory-100k", "memory-names", "kept", "leaked"}
# What one process imports must be nothing but the client: no argparse, no asyncio of ours.
_FRESH = {
    "import": "import time\nstarted = time.perf_counter()\n{load}\n"
    "print((time.perf_counter() - started) * 1e3)",
    "start": "{setting}{load}\n{ask}",
    "first": "{setting}{load}\nimport time\nstarted = time.perf_counter()\n{ask}\n"
    "print((time.perf_counter() - started) * 1e3)",
}


@contextlib.contextmanager
def serving(*certificate: str) -> Generator[str]:
    """The server, in a process of its own; yields its base URL."""
    server = subprocess.Popen(
        [sys.executable, str(HERE / "server.py"), *certificate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    scheme = "https" if certificate else "http"
    try:
        yield f"{scheme}://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


@contextlib.contextmanager
def certificate() -> Generator[tuple[str, str]]:
    """A certificate for 127.0.0.1 and its key, as files, made by `openssl`."""
    with tempfile.TemporaryDirectory() as folder:
        certificate_file, key = f"{folder}/certificate.pem", f"{folder}/key.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
            " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
            " -addext keyUsage=critical,digitalSignature,keyCertSign"
        )
        files = ("-out", certificate_file, "-keyout", key)
        subprocess.run([*command.split(), *files], check=True, stderr=subprocess.DEVNULL)
        yield certificate_file, key


def run(name: str, who: str, base_url: str, before: Path | None, **more: str) -> float:
    """One figure of one client, from a fresh process."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as where it is installed
    root = before if who == "before" else HERE.parents[1]
    who = "ember" if who == "before" else who
    environment |= {
        "PYTHONPATH": str(root),
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-benchmark",
        "ANTHROPIC_BASE_URL": base_url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": "sk-benchmark",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network for prices
        "PYTHONWARNINGS": "ignore",  # anthropic's, that the model is retired
        "LLM_USER_PATH": tempfile.gettempdir(),  # where llm looks for its settings
        **more,
    }
    command = [sys.executable, str(HERE / "measures.py"), name, who]
    if name in _FRESH:
        setting = f"URL, HEADERS, BODY = {f'{base_url}/chat/completions', HEADERS, BODY!r}\n"
        client = CLIENTS[who]
        code = _FRESH[name].format(setting=setting, load=client.load, ask=client.ask)
        command = [sys.executable, "-c", code]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    wall = (time.perf_counter() - started) * 1e3
    return wall if name == "start" else float(done.stdout.split()[-1])


Figures = dict[str, list[float]]


def measured(
    name: str,
    clients: Sequence[str],
    rounds: int,
    base_url: str,
    before: Path | None = None,
    **more: str,
) -> Figures:
    """The figure of each client and round, measured in turn; every other round the other way."""
    figures: Figures = {who: [] for who in clients}
    for number in range(rounds):
        for who in clients[:: -1 if number % 2 else 1]:
            if who not in PEERS or number < PEER_ROUNDS:
                figures[who].append(run(name, who, base_url, before, **more))
    return figures


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    pairs = zip(of, to, strict=True)
    return statistics.median(one / other if other else 1.0 for one, other in pairs)


def able(row: Row) -> list[str]:
    """Who of a line's clients has an async form, where the measure needs one."""
    is_async = row.name.startswith(("async", "tasks"))
    return [who for who in row.clients if CLIENTS[who].awaited or not is_async]


def report(names: list[str], rounds: int, before: Path | None) -> None:
    """Measure and print the table."""
    print(f"{_machine()}; {rounds} rounds\n")
    columns = ("ember", "before") if before else ("ember", "httpx", "transport", *PEERS)
    print(f"| what | unit | {' | '.join(columns)} | ratio | to | bar |")
    print(f"|---|---|{'---:|' * len(columns)}---:|---|---|")
    found: dict[str, Figures] = {}
    for row in TABLE:
        if names and row.name not in names:
            continue
        clients = ("ember", "before") if before else able(row)
        base = "before" if before else row.base
        times = 1 if row.name in _ONCE and not before else rounds
        with contextlib.ExitStack() as stack:
            more, files = {}, ()
            if row.name == "tls":
                files = stack.enter_context(certificate())
                more["SSL_CERT_FILE"] = files[0]
            base_url = stack.enter_context(serving(*files))
            try:
                figures = measured(row.name, clients, times, base_url, before, **more)
            except subprocess.CalledProcessError as error:
                print(f"| {row.what} | not measured: {error.cmd[-2:]} failed |", flush=True)
                continue
        found[row.name] = figures
        cells = [
            f"{statistics.median(figures[who]):,.1f}" if who in figures else "" for who in columns
        ]
        of = f"{ratio(figures['ember'], figures[base]):.2f}" if base else ""
        bar = "<= 1.00" if before and "/s" not in row.unit else ">= 1.00" if before else row.bar
        print(
            f"| {row.what} | {row.unit} | {' | '.join(cells)} | {of} | {base} | {bar} |", flush=True
        )
    if {"tasks-1-cpu", "tasks-1000-cpu"} <= found.keys():
        growth = {
            who: ratio(found["tasks-1000-cpu"][who], found["tasks-1-cpu"][who])
            for who in (("ember", "before") if before else ("ember", "transport"))
        }
        cells = "".join(
            f" {growth.get(who, 0):.2f} |" if who in growth else " |" for who in columns
        )
        print(f"| CPU a call at 1,000 async / at 1 | |{cells} | | <= 1.2 |")


def plot(path: Path, rounds: int) -> None:
    """Draw the processor time of a call against the calls in flight."""
    panels: dict[str, list[Line]] = {}
    with serving() as base_url:
        for title, kind, counts in (
            ("threads", "threads", (1, 8, 32, 128)),
            ("async tasks", "tasks", (1, 10, 100, 1000)),
        ):
            lines: dict[str, list[tuple[int, float]]] = {}
            for n in counts:
                row = Row(f"{kind}-{n}-cpu", "", "us", "", ALL)
                figures = measured(row.name, able(row), rounds, base_url)
                for who, costs in figures.items():
                    lines.setdefault(who, []).append((n, statistics.median(costs)))
            panels[title] = [Line(who, points) for who, points in lines.items()]
            for line in panels[title]:
                print(title, line.name, *(f"{n}: {cost:,.0f} us" for n, cost in line.points))
    path.write_text(drawn("Processor time of a call, microseconds", panels), encoding="utf-8")


def _machine() -> str:
    versions = [f"Python {platform.python_version()}"]
    for package in ("httpx", *PEERS):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    cores = os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores; {', '.join(versions)}"


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the cost by calls in flight"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="a checkout whose Ember is compared with"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    chosen = parser.parse_args()
    if chosen.plot:
        plot(chosen.plot, chosen.rounds)
    else:
        report(chosen.names, chosen.rounds, chosen.against)


if __name__ == "__main__":
    main()
