"""Fixtures for the tests of the providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.corpus import Player, player


@pytest.fixture(scope="module")
def played() -> Iterator[Player]:
    """A router that answers all calls of a test module with the interactions loaded into it."""
    with player() as router:
        yield router
