"""Budgets: a limit on the cost of a recording, checked before each call; and amounts as text.

The rule: a call is estimated at one input token for every three bytes of its body (including images
in base64) and at the most output tokens it allows (`max_tokens` and the like, times the number of
answers; 4,096 without a limit), at current prices. It is sent only if the estimate fits into the
remaining budget. Once it has ended, its actual cost replaces the estimate.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ember_testing.exceptions import BudgetExceeded
from ember_testing.replay.side_file import SideFile

BYTES_A_TOKEN = 3
UNLIMITED_OUTPUT = 4096
"""Output tokens counted for a request that sets no limit."""

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
_SCHEMA = "create table if not exists calls (id integer primary key, usd real not null)"


def estimate(method: str, url: str, body: bytes) -> float | None:
    """Return the most US dollars that a request may cost, by the module's rule.

    Returns `nan` if no price is known, None if it is not a call to a model.
    """
    # Imported late because these load all of ember.
    from ember.exceptions import UnknownPriceWarning
    from ember.models.schemas import UsageStats
    from ember.pricing.cost import cost
    from ember_testing.wires.parsing import read_request
    from ember_testing.wires.vendors import price_table

    request = read_request(url, body) if method == "POST" else None
    if request is None or request.api == "other":
        return None
    usage = UsageStats(
        prompt_tokens=math.ceil(len(body) / BYTES_A_TOKEN), completion_tokens=_output(request.body)
    )
    with warnings.catch_warnings():  # the caller raises an error instead
        warnings.simplefilter("ignore", UnknownPriceWarning)
        seller = price_table(request.route)
        return cost(seller, request.model, usage, requested_model=request.model, base_url=url)


def _output(body: Mapping[str, Any]) -> int:
    generation = body.get("generationConfig")
    config = cast("Mapping[str, Any]", generation if isinstance(generation, Mapping) else {})
    limits = [value for name in _LIMITS for value in (body.get(name), config.get(name))]
    limit = next((value for value in limits if isinstance(value, int)), UNLIMITED_OUTPUT)
    answers = body.get("n") or config.get("candidateCount") or 1
    return limit * (answers if isinstance(answers, int) else 1)


class Budget:
    """A budget shared by threads and by the processes of one run.

    Args:
        limit: US dollars.
        ledger: A file shared by all processes of the run; None for this process alone.

    Raises:
        ValueError: The limit is negative or not finite.
    """

    def __init__(self, limit: float, ledger: Path | None = None) -> None:
        if not (math.isfinite(limit) and limit >= 0):
            raise ValueError(f"budget={limit!r}: expected US dollars, 0 or more")
        self.limit = limit
        self._lock = threading.Lock()
        self._is_owner = ledger is None
        if ledger is None:  # a file all the same, for processes that a test forks
            handle, name = tempfile.mkstemp(prefix="ember-", suffix=".ledger")
            os.close(handle)
            ledger = Path(name)
        self._ledger = SideFile(ledger, _SCHEMA)

    def reserve(self, method: str, url: str, body: bytes) -> int | None:
        """Reserve the estimated cost of a call, before it is sent.

        Returns:
            The reservation for `settle`; None if it is not a call to a model.

        Raises:
            BudgetExceeded: The estimate does not fit, or no price is known.
        """
        amount = estimate(method, url, body)
        if amount is None:
            return None
        where = f"{method} {url}"
        if math.isnan(amount):
            model = json.loads(body).get("model", "") if body[:1] == b"{" else ""
            name = "".join(filter(str.isalnum, model or "MODEL")).upper()
            raise BudgetExceeded(
                f"{where} not sent: no price is known for it, so the budget of "
                f"${self.limit:g} cannot be kept; set EMBER_COST_{name}_INPUT and _OUTPUT (US "
                "dollars per million tokens), or record without a budget"
            )
        with self._lock, self._ledger.transaction() as connection:
            spent = self._sum()
            if spent + amount <= self.limit:
                row = connection.execute("insert into calls (usd) values (?)", (amount,))
                return row.lastrowid
        raise BudgetExceeded(
            f"{where} not sent: it may cost ${amount:.6f}, and ${spent:.6f} of the budget of "
            f"${self.limit:g} are spent or set aside; raise the budget, or lower the call's "
            "max_tokens"
        )

    def settle(self, reservation: int, amount: float | None) -> None:
        """Replace the estimate of a call with its actual cost in US dollars; None keeps it."""
        if amount is not None:
            with self._lock:
                self._ledger.connection.execute(
                    "update calls set usd = ? where id = ?", (amount, reservation)
                )

    @property
    def spent(self) -> float:
        """US dollars spent or reserved."""
        with self._lock:
            return self._sum()

    def _sum(self) -> float:
        query = "select coalesce(sum(usd), 0) from calls"
        return float(self._ledger.connection.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the ledger; the process that made it deletes it."""
        self._ledger.close(delete=self._is_owner)


def dollars(amount: float) -> str:
    """Return US dollars as text with the significant digits."""
    if amount >= 1:
        return f"${amount:.2f}"
    return f"${amount:.4f}" if amount >= 0.0001 or amount == 0 else "<$0.0001"
