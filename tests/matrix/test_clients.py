"""The packages with which people call models: see `tests.matrix.matrix`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.matrix import try_client


@pytest.mark.matrix
def test_client_package_is_recorded_and_replayed(
    client: str,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """A client's calls are recorded, replayed to the same outcome, and missed when changed."""
    row = try_client(client, Path(pytestconfig.getoption("matrix")), tmp_path)
    record_property("matrix", dataclasses.asdict(row))
    assert row.wrong == []
