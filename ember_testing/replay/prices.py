"""The prices that calls are charged at: noted with a recording, in force again while it replays.

A test that asserts a cost shall replay exactly after a price change. While prices are noted or
pinned, a look-up of this module stands in the place of `ember.pricing.cost.find_prices`.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from datetime import datetime

    from ember.pricing.cost import Charge
    from ember.pricing.snapshot import Prices

    Noted = list[tuple[Charge, str]]


class Pins:
    """A cassette's prices, following the calls that are played.

    Args:
        rows: The columns of `schema.PRICES`, sorted by `since`.

    Attributes:
        table: What is in force; the same object throughout, changed in place.
    """

    def __init__(self, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        self.table: dict[Charge, Prices] = {}
        self._rows: list[tuple[int, Charge, Prices]] = []
        if rows:
            from ember.pricing.cost import Charge  # imported late: it loads part of Ember

            self._rows = [(row[0], Charge(*row[1:5]), prices_from_text(row[5])) for row in rows]
        self._changes = len({charge for _, charge, _ in self._rows}) < len(self._rows)
        if not self._changes:
            self.table = {charge: prices for _, charge, prices in self._rows}
        self._off = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def follow(self, number: int | None) -> None:
        """The next answer is that of this recording; None for a live one, charged as of today."""
        if not self._rows or (not self._changes and not self._off and number is not None):
            return
        self._off = number is None
        self.table.clear()
        if number is not None:
            self.table.update(
                {charge: prices for since, charge, prices in self._rows if since <= number}
                if self._changes
                else {charge: prices for _, charge, prices in self._rows}
            )


class _Lookup:
    """Ember's look-up of prices, with pinned prices before it and notes taken after it."""

    def __init__(self) -> None:
        self.pins: Mapping[Charge, Prices] | None = None
        self._notes: ContextVar[Noted | None] = ContextVar("notes", default=None)
        self._lock = threading.Lock()
        self._users = 0
        self._original: Callable[..., Prices | None] | None = None

    def find_prices(
        self, charge: Charge, reported: float | None, at: datetime | None
    ) -> Prices | None:
        """The pinned prices of a charge; else Ember's own, noted for a session."""
        if self.pins and (pinned := self.pins.get(charge)) is not None:
            return pinned
        assert self._original is not None
        prices = self._original(charge, reported, at)
        if prices is not None and (notes := self._notes.get()) is not None:
            notes.append((charge, json.dumps(prices, default=str)))
        return prices

    def put_in(self) -> None:
        """Stand in the place of Ember's look-up; to be taken out as often as it is put in."""
        from ember.pricing import cost  # imported late: it loads part of Ember

        with self._lock:
            self._users += 1
            if self._users == 1 and cost.find_prices != self.find_prices:
                self._original, cost.find_prices = cost.find_prices, self.find_prices

    def take_out(self) -> None:
        """Put Ember's look-up back, unless somebody else has replaced it in the meantime."""
        from ember.pricing import cost  # imported late: it loads part of Ember

        with self._lock:
            self._users -= 1
            if self._users == 0 and cost.find_prices == self.find_prices:
                assert self._original is not None
                cost.find_prices = self._original

    @contextmanager
    def noted(self) -> Generator[Noted]:
        found: Noted = []
        self.put_in()
        token = self._notes.set(found)
        try:
            yield found
        finally:
            self._notes.reset(token)
            self.take_out()


_lookup = _Lookup()
noted = _lookup.noted
"""Collect what is charged inside the block: the charge, and its prices as JSON text."""


def pin(pins: Mapping[Charge, Prices] | None) -> None:
    """Charge at these prices from now on, before any other, in every thread; None for Ember's own.

    Args:
        pins: May be changed afterwards: it is looked at with each call.
    """
    before, _lookup.pins = _lookup.pins, pins
    if before is None and pins is not None:
        _lookup.put_in()
    elif before is not None and pins is None:
        _lookup.take_out()


def prices_from_text(text: str) -> Prices:
    """What `noted` gave as text, in exact numbers again.

    Raises:
        ValueError: The text is not what `noted` gives.
    """
    prices: object = json.loads(text)
    if not isinstance(prices, dict):
        raise ValueError(f"prices {text!r}: expected an object")
    return {name: _exact(rate) for name, rate in cast("dict[str, Any]", prices).items()}


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(each) for each in cast("list[object]", value)]
    return Decimal(value) if isinstance(value, str) else value
