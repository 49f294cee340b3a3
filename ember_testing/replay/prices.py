"""The prices that calls are charged at: noted with a recording, in force again while it replays.

A test that asserts a cost shall replay exactly after a price change. While prices are noted or
pinned, a look-up of this module stands in the place of `ember.pricing.cost.find_prices`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast, overload

from ember_testing.cassettes.schema import damaged
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from datetime import datetime

    from ember.pricing.cost import Charge
    from ember.pricing.snapshot import Prices
    from ember_testing.cassettes.file import CassetteFile

    Noted = list[tuple[Charge, str]]


class Pins:
    """A cassette's prices; which are in force tells the recording whose answer is being read.

    Two streams may be open at once, each with its own: as its pieces are handed out, in whatever
    thread or task reads them, its recording is noted there.

    Args:
        rows: The columns of the table `prices`, sorted by `since`.

    Raises:
        ValueError: They hold what are no prices.
    """

    def __init__(self, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        self._prices: dict[Charge, list[tuple[int, Prices]]] = {}
        self._last: int | None = None
        if rows:
            from ember.pricing.cost import Charge  # imported late: it loads part of Ember

            for since, *charge, text in rows:
                prices = prices_from_text(text)
                self._prices.setdefault(Charge(*charge), []).append((since, prices))

    def __bool__(self) -> bool:
        return bool(self._prices)

    def follow(self, number: int | None) -> None:
        """The next answer is that of this recording; None for a live one, charged as of today."""
        self._last = number
        if self._prices:
            _reading.set((self, number))

    def get(self, charge: Charge) -> Prices | None:
        """The prices of a charge in the answer that is being read."""
        owner, number = _reading.get() or (None, None)
        if owner is not self:  # it is read elsewhere than its pieces were taken
            number = self._last
        found = None
        for since, prices in self._prices.get(charge, ()):
            if number is not None and since <= number:
                found = prices
        return found

    def following(self, number: int, pieces: Sequence[bytes]) -> Sequence[bytes]:
        """The pieces of a recorded answer, whose prices are in force where they are taken."""
        return _Followed(self, number, pieces) if self._prices else pieces


def pins_of(file: CassetteFile) -> Pins:
    """The prices that a cassette holds.

    Raises:
        CassetteError: They are damaged; the file is closed then.
    """
    try:
        return Pins(file.prices())
    except CassetteError:
        file.close()
        raise
    except (ValueError, TypeError, RecursionError) as error:
        file.close()
        raise damaged(file.path, error) from None


_reading: ContextVar[tuple[Pins, int | None] | None] = ContextVar("reading", default=None)


class _Followed(Sequence[bytes]):
    def __init__(self, pins: Pins, number: int, pieces: Sequence[bytes]) -> None:
        self._pins = pins
        self._number = number
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._pins.follow(self._number)
            yield piece
        self._pins.follow(self._number)

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._pieces[index]


class _Lookup:
    """Ember's look-up of prices, with pinned prices before it and notes taken after it."""

    def __init__(self) -> None:
        self.pins: Pins | None = None
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


def pin(pins: Pins | None) -> None:
    """Charge at these prices from now on, in every thread; None for Ember's own."""
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
    try:
        return {name: _exact(rate) for name, rate in cast("dict[str, Any]", prices).items()}
    except ArithmeticError as error:
        raise ValueError(f"prices {text!r}: {error!r}") from None


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(each) for each in cast("list[object]", value)]
    return Decimal(value) if isinstance(value, str) else value
