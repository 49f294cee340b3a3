"""What ten million prompts a day mean for one machine, from what a call costs here and now.

    python tests/benchmarks/scale.py [--prompts 10000000] [--seconds 2] [--rounds 3]

Measured are the processor time of a call with 1,000 tasks of one event loop at work, the memory
that a connection with a call on it takes, and the calls of 128 threads a second. What is then
computed: how many calls are in flight, and how many sockets, megabytes and processes that takes.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import resource
import statistics
import sys
from pathlib import Path

from client import measured, serving

DAY = 24 * 60 * 60
PEAK = 3.0
"""How many times the mean load the busiest hour has."""


async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a request and keep its caller waiting until it gives up."""
    await reader.read()
    writer.close()


async def kilobytes_in_flight(calls: int) -> float:
    """The memory that one call waiting for its answer takes in this process."""
    from ember.api import models

    server = await asyncio.start_server(held, "127.0.0.1", 0, backlog=2048)
    port = server.sockets[0].getsockname()[1]
    os.environ["OPENAI_API_KEY"] = "sk-benchmark"
    url = f"http://127.0.0.1:{port}/v1"

    async def waiting(count: int) -> list[asyncio.Task[object]]:
        tasks: list[asyncio.Task[object]] = [
            asyncio.ensure_future(models.acall("gpt-4", "Hi", base_url=url)) for _ in range(count)
        ]
        await asyncio.sleep(2)
        return tasks

    first = await waiting(100)
    before = resident()
    more = await waiting(calls)
    grown = resident() - before
    for task in (*first, *more):
        task.cancel()
    await asyncio.gather(*first, *more, return_exceptions=True)
    server.close()
    # Half of what grew is the server's own side of each connection, at most.
    return grown * 1024 / calls


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=10_000_000, help="a day")
    parser.add_argument("--seconds", type=float, default=2.0, help="that an answer takes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with serving() as base_url:
        figures = {
            name: statistics.median(measured(name, ("ember",), options.rounds, base_url)["ember"])
            for name in ("tasks-1000-cpu", "threads", "memory")
        }
    sys.path.insert(0, str(Path(__file__).parents[2]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    each = asyncio.run(kilobytes_in_flight(1000))

    rate = options.prompts / DAY
    busiest = rate * PEAK
    in_flight = busiest * options.seconds
    cpu = figures["tasks-1000-cpu"] / 1e6
    processes = max(1, math.ceil(busiest * cpu / 0.7))  # an event loop at seven tenths of a core
    memory = processes * figures["memory"] + in_flight * each / 1024
    threads = max(1, math.ceil(busiest / figures["threads"]))
    walls = {
        f"open files: the soft limit of {soft:,} a process": (soft - 64) / options.seconds * DAY,
        "one event loop, a core of its own": 0.7 / cpu * DAY,
        "ports of one address to one provider, 28,000": 28_000 / options.seconds * DAY,
    }
    print("| what | figure |\n|---|---:|")
    rows = {
        "calls a second: mean / busiest hour": f"{rate:.0f} / {busiest:.0f}",
        "in flight, each with a socket": f"{rate * options.seconds:.0f} / {in_flight:.0f}",
        "CPU of a call with 1,000 in flight, ms": f"{cpu * 1e3:.2f}",
        "memory of a call in flight, with both ends in one process, KB": f"{each:.0f}",
        "processes with an event loop, for the busiest hour": f"{processes}",
        "processes with 128 threads instead, by CPU": f"{threads}",
        "memory of all of them, MB": f"{memory:.0f}",
    }
    for what, figure in rows.items():
        print(f"| {what} | {figure} |")
    print("\n| wall of one process, the first first | prompts a day there |\n|---|---:|")
    for what, prompts in sorted(walls.items(), key=lambda wall: wall[1]):
        print(f"| {what} | {prompts / PEAK / 1e6:.1f} million |")


if __name__ == "__main__":
    main()
