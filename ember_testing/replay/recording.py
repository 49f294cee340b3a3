"""The row of a live call, redacted, and checks for leaked credentials. No I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ember_testing.replay.prices import collected
from ember_testing.wires.body import as_bytes, as_text, decoded, headers_to_json
from ember_testing.wires.events import ends_stream
from ember_testing.wires.parsing import COLUMNS, ParsedRow, asks_model, read_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ember_testing.cassettes.file import CassetteFile
    from ember_testing.patches.exchange import Exchange
    from ember_testing.replay.redaction import Redaction
    from ember_testing.wires.body import Headers
    from ember_testing.wires.response import Request

Chunks = list[tuple[float, bytes]]

_REASONS: dict[int | None, str] = {status.value: status.phrase for status in HTTPStatus}
UNREDACTED = ("method", "reason", "http_version", "error_type", "test")
"""The columns that are recorded as they are."""
_NOT_YET_READ: dict[str, Any] = dict.fromkeys(COLUMNS)


def row_of(
    exchange: Exchange, request: Request, redaction: Redaction, replacements: dict[bytes, bytes]
) -> tuple[dict[str, Any], Chunks]:
    """Return the columns of a finished call, and the pieces of its response.

    Args:
        exchange: The call.
        request: Its request, redacted.
        redaction: Replaces the secrets known so far.
        replacements: Values that answers held under a credential's name, and their replacements;
            those of this answer are added.
    """
    headers, chunks, body = _response(exchange, redaction, replacements)
    error, outcome = exchange.error, exchange.outcome
    if outcome == "closed" and ends_stream(body):
        outcome = "complete"  # the reader left after the stream's last event and missed nothing
    row = {
        "method": request.method,
        "url": request.url,
        "request_headers": headers_to_json(request.headers),
        "request_body": as_text(request.body),
        "status": exchange.status,
        "http_version": None if exchange.http_version == "HTTP/1.1" else exchange.http_version,
        "reason": None if exchange.reason == _REASONS.get(exchange.status) else exchange.reason,
        "response_headers": headers_to_json(headers) if headers else None,
        "response_body": as_text(body) if exchange.status is not None else None,
        "outcome": outcome,
        "error_type": error.error if error else None,
        "error_message": redaction.message(error.message) if error else None,
        "headers_after": exchange.headers_after,
        "elapsed": exchange.elapsed,
        "recorded_at": exchange.recorded_at,
        **_NOT_YET_READ,
    }
    return row, chunks


def _response(
    exchange: Exchange, redaction: Redaction, replacements: dict[bytes, bytes]
) -> tuple[Headers, Chunks, bytes]:
    """Return headers, pieces and decoded body, redacted."""
    headers = redaction.headers(exchange.headers, replacements=replacements)
    chunks = exchange.chunks
    of_model = asks_model(exchange.request.url)
    raw = [data for _, data in chunks]
    whole = b"".join(raw)
    plain = decoded(exchange.headers, whole)
    if plain is whole:
        body, pieces = redaction.response(whole, raw, of_model=of_model, replacements=replacements)
        if len(body) != len(whole):
            headers = _with_length(headers, len(body))
        return headers, [(at, piece) for (at, _), piece in zip(chunks, pieces, strict=True)], body
    body, pieces = redaction.response(plain, [plain], of_model=of_model, replacements=replacements)
    if body == plain:
        return headers, chunks, body
    # A compressed body held a secret: only the decoded body can be kept redacted.
    headers = tuple(pair for pair in headers if pair[0].lower() != "content-encoding")
    return _with_length(headers, len(body)), [(chunks[0][0], body)], body


def _with_length(headers: Headers, length: int) -> Headers:
    return tuple(
        (name, str(length)) if name.lower() == "content-length" else (name, value)
        for name, value in headers
    )


def first_leak(file: CassetteFile, numbers: Sequence[int], redaction: Redaction) -> str | None:
    """Return what is wrong with the first of these calls that holds a known secret, or None."""
    for number in numbers:
        row = file.row(number)
        # The text comes from the body and is checked separately.
        leak = leak_of({**row, "text": None}, redaction) or leak_of_text(row, redaction)
        if leak is not None:
            return f"call {number} ({row['method']} {row['url']}) {leak}"
    return None


def leak_of(row: Mapping[str, Any], redaction: Redaction) -> str | None:
    """Return what is wrong with a row, or a part of it, that holds a known secret, or None.

    Its pieces need no check: together they are the body.
    """
    content = b"\n".join(
        [as_bytes(value) for value in row.values() if isinstance(value, (str, bytes))]
    )
    if redaction.holds_secret(content):
        return (
            "would hold a credential that became known after it; set it in the environment before "
            "the test's first call"
        )
    return None


def leak_of_text(columns: Mapping[str, Any], redaction: Redaction) -> str | None:
    """Check an answer's text: a secret may be spread over several events of a stream."""
    if redaction.holds_secret(as_bytes(columns["text"] or "")):
        return (
            "would hold a credential that the answer spells out over several events; keep it out "
            "of the prompt"
        )
    return None


def read_with_prices(row: Mapping[str, Any]) -> ParsedRow:
    """Read a row's response, with the prices charged for it."""
    with collected() as charges:
        return read_row(row)._replace(charges=charges)
