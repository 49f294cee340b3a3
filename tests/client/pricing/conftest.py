"""Fixtures for the tests of prices."""

from __future__ import annotations

from types import ModuleType

import pytest

from ember.pricing import cost as pricing


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove prices from the environment, and forget earlier warnings."""
    for name in list(pricing.os.environ):
        if name.startswith(("EMBER_COST_", "EMBER_MODEL_COSTS_JSON", "EMBER_PRICES")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(pricing, "_warned", {})


@pytest.fixture
def genai() -> ModuleType:
    """The package that the snapshot is generated from."""
    return pytest.importorskip(
        "genai_prices",
        reason="genai-prices, whose data the snapshot holds, is a development dependency"
        " (Python 3.11 and newer): pip install -e '.[dev]'",
    )
