"""Sums over cassettes by model: calls, tokens, cost, time and age. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ember_testing.cassettes.calls import Call


@dataclass(slots=True)
class Totals:
    """Sums over calls."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # USD, of the calls whose cost is known
    unpriced: int = 0  # calls whose cost is unknown
    errors: int = 0  # calls with a status of 400 or above, or without an answer
    seconds: float = 0.0
    oldest: str = ""  # ISO 8601
    newest: str = ""

    def add(self, call: Call) -> None:
        """Count one call."""
        self.calls += 1
        self.prompt_tokens += call.prompt_tokens or 0
        self.completion_tokens += call.completion_tokens or 0
        self.cost += call.cost or 0.0
        self.unpriced += call.cost is None
        self.errors += call.status is None or call.status >= 400
        self.seconds += call.seconds or 0.0
        self.oldest = min(self.oldest or call.recorded_at, call.recorded_at)
        self.newest = max(self.newest, call.recorded_at)

    def as_dict(self, now: datetime | None = None) -> dict[str, Any]:
        """Return the sums in JSON types, with the age in days of the oldest recording."""
        return {**asdict(self), "age_days": age(self.oldest, now)}


def age(moment: str, now: datetime | None = None) -> float | None:
    """Return the days since a time in ISO 8601; None if it is empty."""
    if not moment:
        return None
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    return round(((now or datetime.now(timezone.utc)) - then).total_seconds() / 86400, 1)


def by_model(calls: Iterable[Call]) -> dict[str, Totals]:
    """Return the sums of each model, named `provider/model`, and of `all` last."""
    found: dict[str, Totals] = {}
    total = Totals()
    for call in calls:
        name = f"{call.provider}/{call.model}" if call.provider else "no known provider"
        found.setdefault(name, Totals()).add(call)
        total.add(call)
    return {**dict(sorted(found.items())), "all": total}
