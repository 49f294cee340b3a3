"""The prices of calls: stored with a recording, and applied again when it is replayed.

A test that asserts a cost must still pass after a price change. While prices are collected or
pinned, a lookup of this module replaces `ember.pricing.cost.find_prices`.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from ember_testing.cassettes.schema import damaged
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from datetime import datetime

    from ember.pricing.cost import PriceQuery
    from ember.pricing.snapshot import Prices
    from ember_testing.cassettes.file import CassetteFile

    Charges = list[tuple[PriceQuery, str]]


class RecordedPrices:
    """A cassette's prices; the recording whose answer is being read decides which apply.

    Two streams with different prices may be open at once: handing out a stream's pieces sets its
    recording in the context of the thread or task that reads them.

    Args:
        rows: The columns of the table `prices`, sorted by `since`.

    Raises:
        ValueError: A row holds no valid prices.
    """

    def __init__(self, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        self._prices: dict[PriceQuery, list[tuple[int, Prices]]] = {}
        self._last: int | None = None
        if rows:
            from ember.pricing.cost import PriceQuery  # imported late: it loads part of Ember

            for since, *query, text in rows:
                prices = prices_from_text(text)
                self._prices.setdefault(PriceQuery(*query), []).append((since, prices))

    def __bool__(self) -> bool:
        return bool(self._prices)

    def apply(self, number: int | None) -> None:
        """Set the recording that answers next; None for a live answer at current prices."""
        self._last = number
        if self._prices:
            _current.set((self, number))

    def get(self, query: PriceQuery) -> Prices | None:
        """Return the prices of a query in the answer that is being read."""
        owner, number = _current.get() or (None, None)
        if owner is not self:  # read in another context than its pieces
            number = self._last
        found = None
        for since, prices in self._prices.get(query, ()):
            if number is not None and since <= number:
                found = prices
        return found

    def applied_while_read(self, number: int, pieces: Sequence[bytes]) -> Sequence[bytes]:
        """Return the pieces of a recorded answer; iterating over them puts its prices in force."""
        return _PricedPieces(self, number, pieces) if self._prices else pieces


def recorded_prices(file: CassetteFile) -> RecordedPrices:
    """Return a cassette's prices.

    Raises:
        CassetteError: They are damaged; the file has been closed.
    """
    try:
        return RecordedPrices(file.prices())
    except CassetteError:
        file.close()
        raise
    except (ValueError, TypeError, RecursionError) as error:
        file.close()
        raise damaged(file.path, error) from None


_current: ContextVar[tuple[RecordedPrices, int | None] | None] = ContextVar("current", default=None)


class _PricedPieces(list[bytes]):
    def __init__(self, prices: RecordedPrices, number: int, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces)
        self._prices = prices
        self._number = number

    def __iter__(self) -> Iterator[bytes]:
        for piece in super().__iter__():
            self._prices.apply(self._number)
            yield piece
        self._prices.apply(self._number)


class _PriceLookup:
    """Ember's price lookup, which pinned prices override and whose results can be collected."""

    def __init__(self) -> None:
        self.recorded: RecordedPrices | None = None
        self._collecting: ContextVar[Charges | None] = ContextVar("collecting", default=None)
        self._lock = threading.Lock()
        self._users = 0
        self._original: Callable[..., Prices | None] | None = None

    def find_prices(
        self, query: PriceQuery, reported: float | None, at: datetime | None
    ) -> Prices | None:
        """Return the pinned prices of a query; else Ember's own, which are collected."""
        if self.recorded and (pinned := self.recorded.get(query)) is not None:
            return pinned
        assert self._original is not None
        prices = self._original(query, reported, at)
        if prices is not None and (charges := self._collecting.get()) is not None:
            charges.append((query, json.dumps(prices, default=str)))
        return prices

    def install(self) -> None:
        """Replace Ember's lookup; balance each call with `uninstall`."""
        from ember.pricing import cost  # imported late: it loads part of Ember

        with self._lock:
            self._users += 1
            if self._users == 1 and cost.find_prices != self.find_prices:
                self._original, cost.find_prices = cost.find_prices, self.find_prices

    def uninstall(self) -> None:
        """Restore Ember's lookup, unless other code has replaced it in the meantime."""
        from ember.pricing import cost  # imported late: it loads part of Ember

        with self._lock:
            self._users -= 1
            if self._users == 0 and cost.find_prices == self.find_prices:
                assert self._original is not None
                cost.find_prices = self._original

    @contextmanager
    def collected(self) -> Generator[Charges]:
        found: Charges = []
        self.install()
        token = self._collecting.set(found)
        try:
            yield found
        finally:
            self._collecting.reset(token)
            self.uninstall()


_lookup = _PriceLookup()
collected = _lookup.collected
"""Collect the charges inside the block, each with its prices as JSON text."""


def use(prices: RecordedPrices | None) -> None:
    """Use these prices from now on, in every thread; None for Ember's own."""
    before, _lookup.recorded = _lookup.recorded, prices
    if before is None and prices is not None:
        _lookup.install()
    elif before is not None and prices is None:
        _lookup.uninstall()


def prices_from_text(text: str) -> Prices:
    """Parse the JSON text collected by `collected` into exact numbers.

    Raises:
        ValueError: The text is invalid.
    """
    prices: object = json.loads(text)
    if not isinstance(prices, dict):
        raise ValueError(f"prices {text!r}: expected an object")
    try:
        return {name: _exact(rate) for name, rate in cast("dict[str, Any]", prices).items()}
    except ArithmeticError as error:
        raise ValueError(f"prices {text!r}: {error!r}") from None


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(each) for each in cast("list[object]", value)]
    return Decimal(value) if isinstance(value, str) else value
