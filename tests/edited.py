"""A cassette changed by hand, by somebody who knows how its digests are made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ember_testing.cassettes.rows import COLUMNS, digest
from ember_testing.cassettes.schema import seal_prices


def edit(path: Path, statement: str, *values: object) -> None:
    """Change a cassette with SQL, and make its digests fit again."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        reseal(connection)
        connection.commit()


def reseal(connection: sqlite3.Connection) -> None:
    """Give each call, each price and the table `cassette` the digest of what it holds."""
    calls = connection.execute(f"select id, {', '.join(COLUMNS)} from calls").fetchall()
    for number, *values in calls:
        connection.execute("update calls set digest = ? where id = ?", (digest(values), number))
    columns = "since, provider, model, requested_model, tier, rates"
    for number, *values in connection.execute(f"select rowid, {columns} from prices").fetchall():
        connection.execute("update prices set digest = ? where rowid = ?", (digest(values), number))
    seal_prices(connection)
