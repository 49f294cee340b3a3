"""What recorded calls say: provider, model, tokens, cost, text; read from their rows.

Reading an answer takes as long as writing it down, so it is done for all calls of a session at its
end, or when somebody looks at one of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_testing.wires.body import as_bytes, headers_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = ("provider", "model", "prompt_tokens", "completion_tokens", "cost_usd", "text")


class Read(NamedTuple):
    """What one row says.

    Args:
        columns: Values for `COLUMNS`, null where nothing is known.
        charges: What was charged (`pricing.cost.Charge`), with its prices as JSON text.
        problem: Why it could not be read, None if it could.
    """

    columns: dict[str, Any]
    charges: Sequence[tuple[tuple[Any, ...], str]]
    problem: str | None = None


def read_row(row: Mapping[str, Any]) -> Read:
    """Read one recorded call.

    Args:
        row: `method, url, request_body, status, response_headers, response_body` of the table
            `calls`.
    """
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    if row["status"] is None:
        return Read(columns, [])
    # Imported late: they load all of Ember.
    from ember_testing.replay.prices import noted
    from ember_testing.wires.exchange import read_exchange

    with noted() as charges:
        try:
            reading = read_exchange(
                row["method"],
                row["url"],
                as_bytes(row["request_body"] or b""),
                row["status"],
                dict(headers_from_json(row["response_headers"])),
                as_bytes(row["response_body"] or b""),
            )
        except (
            Exception
        ) as error:  # an answer of a shape that nobody foresaw is recorded all the same
            problem = f"usage and cost not read: {type(error).__name__}: {error}"
            return Read(columns, [], problem)
    if reading is None:
        return Read(columns, [])
    columns.update(
        provider=reading.provider,
        model=reading.model,
        prompt_tokens=reading.prompt_tokens,
        completion_tokens=reading.completion_tokens,
        cost_usd=reading.cost,
        text=reading.text,
    )
    # A lone surrogate, which JSON can escape, is no UTF-8, and SQLite takes none.
    for name, value in columns.items():
        if isinstance(value, str):
            columns[name] = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return Read(columns, charges)


@lru_cache(maxsize=16)
def sets_prices(variables: tuple[str, ...]) -> bool:
    """Whether variables of these names set prices.

    A test may do that for as long as it runs only, and so its calls are read at once.
    """
    return any(name.startswith(("EMBER_COST_", "EMBER_MODEL_COSTS_JSON")) for name in variables)
