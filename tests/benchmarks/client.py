"""What a call costs with Ember, with httpx by hand and with the vendors' packages, in one run.

    python tests/benchmarks/client.py [--rounds 5] [--plot cost-per-call.svg] [NAME ...]

Each measure runs in a fresh process, against a server in another one (`server.py`), and in turn
for all clients; the table gives the median of the rounds. See README.md beside this file.
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
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clients import BODY, CLIENTS, HEADERS, PEERS
from plot import Line, drawn

HERE = Path(__file__).parent
BOTH, ALL, EMBER = ("ember", "httpx"), ("ember", "httpx", *PEERS), ("ember",)

# name, what, unit, bar as text, who takes part; a ratio is to httpx's figure.
TABLE = (
    ("import", "import", "ms", "<= 1.15", ALL),
    ("start", "process start to first answer", "ms", "<= 1.10", ALL),
    ("first", "first call after import", "ms", "<= 10 ms", ALL),
    ("sync", "one sync call, warm, median", "us", "<= 0.65", ALL),
    ("sync-cpu", "the same, CPU", "us", "", ALL),
    ("tls", "the same over TLS", "us", "", BOTH),
    ("async", "one async call, warm, CPU", "us", "<= 0.75", ALL),
    ("threads", "128 threads", "calls/s", ">= 3.0", ALL),
    ("async-200", "200 async calls at once", "calls/s", ">= 3.0", ALL),
    ("async-1000", "1,000 async calls at once, CPU a call", "us", "<= 1.3 of one", BOTH),
    ("stream", "a streamed answer of 500 chunks", "us", "<= 1.1", ("ember", "httpx", "openai")),
    ("stream-cpu", "the same, CPU", "us", "", BOTH),
    ("memory", "resident memory after 1,000 calls", "MB", "<= +4 MB", ALL),
    ("memory-100k", "growth from 1,000 to 100,000 calls", "MB", "flat", EMBER),
    ("memory-names", "growth over 1,000 model names", "MB", "flat", EMBER),
    ("kept", "objects that a kept result holds", "", "", BOTH),
    ("leaked", "objects that stay for each dropped result", "", "0", BOTH),
    ("dispatch-1", "dispatch, null provider, 1 thread", "calls/s", ">= 150,000", EMBER),
    ("dispatch-32", "dispatch, null provider, 32 threads", "calls/s", "not lower", EMBER),
)
_ONCE = {"memory-100k", "memory-names", "kept", "leaked"}
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


def run(name: str, who: str, base_url: str, **more: str) -> float:
    """One figure of one client, from a fresh process."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as where it is installed
    environment |= {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-benchmark",
        "ANTHROPIC_BASE_URL": base_url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": "sk-benchmark",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network for prices
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


def medians(
    name: str, clients: tuple[str, ...], rounds: int, base_url: str, **more: str
) -> dict[str, float]:
    """The median figure of each client, measured in turn."""
    figures: dict[str, list[float]] = {who: [] for who in clients}
    for _ in range(rounds):
        for who in clients:
            figures[who].append(run(name, who, base_url, **more))
    return {who: statistics.median(found) for who, found in figures.items()}


def report(names: list[str], rounds: int) -> None:
    """Measure and print the table."""
    print(_machine())
    heads = "".join(f"{who:>10}" for who in ("ember", "httpx", *PEERS))
    print(f"{'what':42} {'unit':8}{heads} {'ratio':>6}  bar")
    found: dict[str, dict[str, float]] = {}
    for name, what, unit, bar, clients in TABLE:
        if names and name not in names:
            continue
        clients = tuple(who for who in clients if who in ALL)
        times = 1 if name in _ONCE else rounds
        if name == "tls":
            with certificate() as files, serving(*files) as base_url:
                found[name] = medians(name, clients, times, base_url, SSL_CERT_FILE=files[0])
        else:
            with serving() as base_url:
                found[name] = medians(name, clients, times, base_url)
        of = found[name]
        row = "".join(f"{of[who]:10,.1f}" if who in of else f"{'':10}" for who in ALL)
        ratio = f"{of['ember'] / of['httpx']:6.2f}" if of.get("httpx") else f"{'':6}"
        print(f"{what:42} {unit:8}{row} {ratio}  {bar}", flush=True)
    for who in BOTH:
        if "async" in found and "async-1000" in found:
            growth = found["async-1000"][who] / found["async"][who]
            print(f"{who}: CPU a call at 1,000 async against 1: {growth:.2f}")


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
                for who, cost in medians(f"{kind}-{n}-cpu", ALL, rounds, base_url).items():
                    lines.setdefault(who, []).append((n, cost))
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
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    chosen = parser.parse_args()
    if chosen.plot:
        plot(chosen.plot, chosen.rounds)
    else:
        report(chosen.names, chosen.rounds)


if __name__ == "__main__":
    main()
