"""Recorded calls as tests see them, and lazy lists of them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from ember_testing.exceptions import CassetteError
from ember_testing.wires.body import headers_from_json
from ember_testing.wires.parsing import read_row

if TYPE_CHECKING:
    from ember_testing.cassettes.file import CassetteFile
    from ember_testing.wires.body import Headers

# The columns whose names a `Call` keeps.
_SAME_NAMES = (
    *("id", "n", "method", "url", "status", "outcome", "provider", "model"),
    *("prompt_tokens", "completion_tokens", "text", "recorded_at", "test"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its response, with credentials redacted.

    Attributes:
        id: Its id in the cassette.
        n: Its position among the recordings of identical requests, from 1.
        method: Such as `POST`.
        url: The whole URL.
        request_headers: Name and value pairs, in order.
        body: The request's body: `str` if it is text, else `bytes`.
        status: None if no response came.
        response_headers: Name and value pairs, in order.
        response_body: The whole response, decompressed: `str` if it is text, else `bytes`.
        outcome: `complete`, `closed` (by the caller, early), `cut` (broke off), `failed`.
        error: The connection error's class and message, for `cut` and `failed`.
        provider: Such as `openai`; `unknown` for a model at an unknown address, None if no model
            was called.
        model: The model that the provider reported.
        prompt_tokens: Input tokens; None if not reported.
        completion_tokens: Output tokens; None if not reported.
        cost: US dollars; None if unknown.
        text: The answer's text; for an embedding, how many vectors it has.
        seconds: From sending the request to the end of the response, when it was recorded.
        recorded_at: ISO 8601, UTC.
        test: Node id of the test that recorded it.
    """

    id: int
    n: int
    method: str
    url: str
    request_headers: Headers
    body: str | bytes
    status: int | None
    response_headers: Headers
    response_body: str | bytes
    outcome: str
    error: str | None
    provider: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    text: str | None
    seconds: float | None
    recorded_at: str
    test: str | None

    def json(self) -> Any:
        """Return the request's body, parsed as JSON.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


def from_row(row: dict[str, Any]) -> Call:
    """Return a call from the columns of the table `calls`."""
    return Call(
        **{name: row[name] for name in _SAME_NAMES},
        request_headers=headers_from_json(row["request_headers"]),
        body=row["request_body"] or "",
        response_headers=headers_from_json(row["response_headers"]),
        response_body=row["response_body"] or "",
        error=f"{row['error_type']}: {row['error_message']}" if row["error_type"] else None,
        cost=row["cost_usd"],
        seconds=row["elapsed"],
    )


class Calls(Sequence[Call]):
    """Calls in the order in which they were made; each is read from the cassette on access.

    A call takes eight bytes of memory, so that a long replay does not grow.
    """

    def __init__(self, load: Callable[[Sequence[int]], list[dict[str, Any]]]) -> None:
        self._load = load
        self._ids = array("q")

    def add(self, call_id: int) -> None:
        """Append the call with this id."""
        self._ids.append(call_id)

    def numbers(self) -> Sequence[int]:
        """Return the calls' ids in the cassette."""
        return self._ids

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """Replace each id by its new one; calls without one are dropped."""
        self._ids = array("q", [numbers[old] for old in self._ids if old in numbers])

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> list[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | list[Call]:
        wanted = self._ids[index]
        ids = [wanted] if isinstance(wanted, int) else list(wanted)
        rows = self._load(ids)
        if len(rows) != len(ids):
            raise CassetteError(
                "these calls are not in the cassette any more: the recording was dropped, because "
                "its test failed"
            )
        calls = [from_row(row) for row in rows]
        return calls[0] if isinstance(wanted, int) else calls

    def __repr__(self) -> str:
        return f"<{len(self)} calls>"


def rows_of(file: CassetteFile, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield all columns of these calls; responses that a killed recording left unread are read."""
    for number in numbers:
        row = file.row(number)
        if row["provider"] is None and row["status"] is not None:
            row.update(read_row(row).columns)
        yield row


def calls_of(file: CassetteFile) -> Calls:
    """Return all calls of a file, which must stay open, in the order of recording."""
    calls = Calls(lambda numbers: list(rows_of(file, numbers)))
    for number in file.numbers():
        calls.add(number)
    return calls
