"""All tables of this folder, one after another, in Markdown: about ten minutes on a quiet machine.

    python tests/benchmarks/table.py [--rounds 3] [--quick] [--only PART ...]

`PART` is any of `client fakes replay commands suite scale`. Run it where the peers are installed
(README.md beside this file says how), with nothing else at work on the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def parts(rounds: int, quick: bool) -> dict[str, tuple[str, list[str]]]:
    """The title of each part, and the command that prints its table."""
    few = "1" if quick else str(rounds)
    return {
        "client": ("What a call costs", ["client.py", "--rounds", few]),
        "fakes": ("What a fake costs", ["fakes.py", "--rounds", "3" if quick else "7"]),
        "replay": (
            "What record and replay cost",
            [
                "replay.py",
                "--rounds",
                "1" if quick else "2",
                "--large",
                "2000" if quick else "20000",
            ],
        ),
        "commands": (
            "What the commands take",
            ["commands.py", "--files", "100" if quick else "1000"],
        ),
        "suite": (
            "What a suite of replayed tests takes",
            ["suite.py", "--tests", "200" if quick else "2000", "--rounds", "1"],
        ),
        "scale": ("Ten million prompts a day", ["scale.py", "--rounds", few]),
    }


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only whether all of it runs")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts only")
    chosen = parser.parse_args()
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    failed: list[str] = []
    for name, (title, command) in parts(chosen.rounds, chosen.quick).items():
        if chosen.only and name not in chosen.only:
            continue
        print(f"\n## {title}\n", flush=True)
        script, *arguments = command
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments], env=environment, check=False
        )
        if done.returncode:
            failed.append(name)
        print(f"\n({time.monotonic() - started:.0f} s so far)", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
