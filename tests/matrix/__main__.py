"""Print the table: see `tests.matrix.matrix`."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

from tests.matrix.matrix import CLIENTS, table, try_client


def main() -> int:
    """Try the named clients, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--folder", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--work", type=Path, help="where cassettes and logs stay, to look at")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        rows = []
        for client in options.clients or CLIENTS:
            rows.append(try_client(client, options.folder, work / client))
            for line in rows[-1].wrong:
                print(f"{client}: {line}", file=sys.stderr, flush=True)
    print(table(rows, datetime.date.today().isoformat()))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
