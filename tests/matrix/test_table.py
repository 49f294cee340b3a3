"""The table in the guide matches the matrix."""

from __future__ import annotations

from pathlib import Path

from tests.matrix.matrix import CELLS, CLIENTS, constants_of

GUIDE = Path(__file__).parents[2] / "ember_testing" / "README.md"


def test_the_guide_has_a_row_for_each_client() -> None:
    """Each client has a row, each row a client, and only unsupported cells are not "yes"."""
    section = GUIDE.read_text(encoding="utf-8").partition("## Clients that were tried")[2]
    table = [line for line in section.partition("\n## ")[0].splitlines() if line[:1] == "|"][2:]
    rows = {
        row[0].rpartition(" ")[0]: row[2:] for row in (line[2:-2].split(" | ") for line in table)
    }
    clients = [constants_of(client) for client in CLIENTS]
    assert set(rows) == {each.get("TITLE", each["PACKAGE"]) for each in clients}
    for client in clients:
        cells = dict(zip(CELLS, rows[client.get("TITLE", client["PACKAGE"])], strict=True))
        assert {name for name, cell in cells.items() if cell != "yes"} == {*client["WITHOUT"]}
