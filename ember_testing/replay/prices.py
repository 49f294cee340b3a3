"""The prices that a replayed call was charged at, in force again while it replays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember.pricing.price_pins import Charge, Rates


class Pins:
    """A cassette's prices, following the calls that are played.

    Args:
        rows: The columns of `schema.PRICES`, sorted by `since`.

    Attributes:
        table: What is in force; the same object throughout, changed in place.
    """

    def __init__(self, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        self.table: dict[Charge, Rates] = {}
        self._rows: list[tuple[int, Charge, Rates]] = []
        if rows:
            from ember.pricing.price_pins import Charge, rates_from_text  # late: it knows Ember

            self._rows = [(row[0], Charge(*row[1:5]), rates_from_text(row[5])) for row in rows]
        self._changes = len({charge for _, charge, _ in self._rows}) < len(self._rows)
        if not self._changes:
            self.table = {charge: rates for _, charge, rates in self._rows}
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
                {charge: rates for since, charge, rates in self._rows if since <= number}
                if self._changes
                else {charge: rates for _, charge, rates in self._rows}
            )
