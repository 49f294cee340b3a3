"""A live call while it is being recorded: its pieces and their times, its end, its row."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from ember_testing.wires.body import as_text, cut_alike, decoded, headers_to_json
from ember_testing.wires.readings import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_testing.replay.redaction import Redaction
    from ember_testing.replay.request import Request
    from ember_testing.wires.body import Headers

_NOT_YET_READ: dict[str, Any] = dict.fromkeys(COLUMNS)


class Keeper(Protocol):
    """Whoever takes the finished calls: a session."""

    test: str

    @property
    def redaction(self) -> Redaction:
        """What is known to be secret by now."""
        ...

    @property
    def rules_text(self) -> str:
        """The rules that made the key, as they are stored."""
        ...

    def keep(self, take: Take, row: dict[str, Any], chunks: Sequence[tuple[float, bytes]]) -> None:
        """Write a finished call down."""
        ...

    def note(self, sentence: str) -> None:
        """Say something at the end of the run."""
        ...


class Take:
    """One call that is being recorded.

    Args:
        session: Where it goes.
        request: The request, redacted.
        key: Its key.
        n: The how-manieth of its kind it is.
        reservation: What was set aside for it in the budget.

    Attributes:
        recorded_at: ISO 8601, UTC; an import sets it to when the answer came.
    """

    def __init__(
        self,
        session: Keeper,
        request: Request,
        key: str,
        n: int,
        reservation: int | None = None,
    ) -> None:
        self.reservation = reservation
        self._session = session
        self._request = request
        self._key = key
        self._n = n
        self._started = time.perf_counter()
        self.recorded_at = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        self._chunks: list[tuple[float, bytes]] = []
        self._status: int | None = None
        self._headers: Headers = ()
        self._http_version = ""
        self._reason = ""
        self._headers_after: float | None = None
        self._over = False

    def head(self, status: int, headers: Headers, http_version: str, reason: str) -> None:
        """The response has begun.

        Args:
            status: Its status.
            headers: As they came.
            http_version: Such as `HTTP/1.1`.
            reason: The words behind the status.
        """
        self._headers_after = time.perf_counter() - self._started
        self._status, self._headers = status, headers
        self._http_version, self._reason = http_version, reason

    def piece(self, data: bytes) -> None:
        """A piece of the response has come."""
        self._chunks.append((time.perf_counter() - self._started, data))

    def finish(self, outcome: str, error: Exception | None = None) -> None:
        """The call is over; the first of several ends counts.

        Args:
            outcome: `complete`, `closed`, `cut` or `failed`; closed before the response's head is
                `cancelled`.
            error: What broke it.
        """
        if self._over:
            return
        self._over = True
        if outcome == "closed" and self._status is None:
            outcome = "cancelled"
        elapsed = time.perf_counter() - self._started
        redaction = self._session.redaction
        request = self._request
        headers, chunks, body = self._response()
        row: dict[str, Any] = {
            "key": self._key,
            "n": self._n,
            "rules": self._session.rules_text,
            "method": request.method,
            "url": request.url,
            "request_headers": headers_to_json(request.headers),
            "request_body": as_text(request.body),
            "status": self._status,
            "http_version": self._http_version or None,
            "reason": self._reason or None,
            "response_headers": headers_to_json(headers) if headers else None,
            "response_body": as_text(body) if self._status is not None else None,
            "outcome": outcome,
            "error_type": type(error).__name__ if error else None,
            "error_message": redaction.text(str(error)) if error else None,
            "headers_after": self._headers_after,
            "elapsed": elapsed,
            "recorded_at": self.recorded_at,
            "pieces": len(chunks),
            "test": self._session.test or None,
            **_NOT_YET_READ,
        }
        self._session.keep(self, row, chunks)

    def _response(self) -> tuple[Headers, Sequence[tuple[float, bytes]], bytes]:
        """Headers, pieces and decoded body, redacted."""
        redaction = self._session.redaction
        headers = redaction.headers(self._headers)
        raw = b"".join(data for _, data in self._chunks)
        plain = decoded(self._headers, raw)
        body = redaction.response_body(plain)
        if plain is not raw and body != plain:
            # A credential inside a compressed body: only the decoded one can be kept without it.
            dropped = ("content-encoding", "content-length")
            headers = tuple(pair for pair in headers if pair[0].lower() not in dropped)
            headers += (("content-length", str(len(body))),)
            return headers, [(self._chunks[0][0], body)], body
        if plain is not raw or body == raw:  # compressed without a credential, or plain without
            return headers, self._chunks, body
        pieces = cut_alike(body, [data for _, data in self._chunks])
        offsets = [offset for offset, _ in self._chunks]
        return headers, list(zip(offsets, pieces, strict=True)), body
