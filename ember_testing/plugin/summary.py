"""The summary lines at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_testing.replay.budget import dollars
from ember_testing.replay.tally import counted

if TYPE_CHECKING:
    from ember_testing.replay.tally import Tally


def summary(tally: Tally) -> list[str]:
    """Return the lines for the end of the run, figures first; empty if nothing happened."""
    if not tally:
        return []
    parts = [f"{tally.replayed} replayed", f"{tally.recorded} recorded"]
    if tally.missed:
        parts.append(f"{tally.missed} without a recording")
    if tally.spent:
        parts.append(f"{dollars(tally.spent)} spent")
    if tally.saved:
        parts.append(f"{dollars(tally.saved)} saved")
    if tally.unpriced and (tally.spent or tally.saved):
        parts.append(f"{tally.unpriced} of unknown cost")
    if tally.avoided >= 0.05:
        parts.append(f"{tally.avoided:.1f} s of provider time avoided")
    if tally.waits:
        parts.append(f"{tally.waits:.1f} s of waits left out")
    if tally.unused:
        parts.append(counted(tally.unused, "unused recording"))
    if tally.stale:
        parts.append(counted(tally.stale, "stale recording"))
    return [", ".join(parts), *dict.fromkeys(tally.notes)]
