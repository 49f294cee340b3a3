"""The prices that calls were charged at: noted while a call is recorded, pinned while it replays.

A test that asserts a cost shall replay exactly after a price change. Whoever records notes what
`pricing.cost` charged, whoever replays pins it; without either, nothing here takes part.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any, NamedTuple, cast

__all__ = ["REPORTED", "Charge", "Rates", "note", "noted", "pin", "pinned", "rates_from_text"]

Rates = Mapping[str, Any]
"""Prices by the names that `prices/` uses."""

REPORTED: Rates = {"reported": 1}
"""Stands for the provider's own figure, which a recorded answer still holds."""


class Charge(NamedTuple):
    """What a price depends on.

    Args:
        provider: As `pricing.cost` was given it.
        model: As the response reports it.
        requested_model: As it was asked for.
        tier: The service tier.
    """

    provider: str
    model: str
    requested_model: str | None
    tier: str | None


_notes: ContextVar[list[tuple[Charge, str]] | None] = ContextVar("notes", default=None)
_pins: Mapping[Charge, Rates] | None = None  # of the process: a pool's threads see it too


@contextmanager
def noted() -> Generator[list[tuple[Charge, str]]]:
    """Collect what is charged inside the block: the charge, and its prices as JSON text."""
    found: list[tuple[Charge, str]] = []
    token = _notes.set(found)
    try:
        yield found
    finally:
        _notes.reset(token)


def note(charge: Charge, rates: Rates) -> None:
    """Tell whoever collects, if anybody does."""
    if (found := _notes.get()) is not None:
        found.append((charge, json.dumps(rates, default=str)))


def pin(pins: Mapping[Charge, Rates] | None) -> Mapping[Charge, Rates] | None:
    """Charge at these prices from now on, before any other; None for the usual ones.

    Args:
        pins: May be changed afterwards: it is looked at with each call.

    Returns:
        What was pinned before, to be put back.
    """
    global _pins
    before, _pins = _pins, pins
    return before


def pinned(charge: Charge) -> Rates | None:
    """The pinned prices of a charge, if there are any."""
    return _pins.get(charge) if _pins else None


def rates_from_text(text: str) -> Rates:
    """What `noted` gave as text, in exact numbers again.

    Raises:
        ValueError: The text is not what `noted` gives.
    """
    rates: object = json.loads(text)
    if not isinstance(rates, dict):
        raise ValueError(f"prices {text!r}: expected an object")
    return {name: _exact(rate) for name, rate in cast("dict[str, Any]", rates).items()}


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(each) for each in cast("list[object]", value)]
    return Decimal(value) if isinstance(value, str) else value
