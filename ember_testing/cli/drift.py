"""Send recorded requests again, within a budget, to see whether providers answer as recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from ember_testing.cli.diff import shape_of_body
from ember_testing.exceptions import BudgetExceeded
from ember_testing.replay.budget import Budget
from ember_testing.replay.redaction import Redaction
from ember_testing.replay.secrets import REDACTED, secrets_of_environment
from ember_testing.wires.body import as_bytes, as_text, headers_from_json
from ember_testing.wires.parsing import read_row

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONNECTION = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding"}
_MAX_SHAPE_LINES = 6  # lines about changes of shape, for each kind of change


class DriftResult(NamedTuple):
    """The result of sending one call again."""

    call: int  # its number
    title: str  # the request in one line
    lines: list[str]  # the differences, or why it was not sent; empty if it answers as recorded
    cost: float | None  # USD; None if unknown
    sent: bool


class _NotSent(Exception):
    """A request cannot be sent; the message says what is missing."""


def drift(
    rows: Iterable[Mapping[str, Any]], budget: Budget, timeout: float = 60.0
) -> Iterator[DriftResult]:
    """Send recorded requests again and compare the answers' status, shape, model and usage.

    Args:
        rows: Columns of the calls.
        budget: Limit of the total cost.
        timeout: Seconds to wait for each chunk of an answer.

    Yields:
        The result for each call, in order. After the first call that does not fit the budget
        nothing more is sent. Calls of `local/` models are sent to the embedded model.
    """
    import httpx  # late: the command's help does not need it

    is_spent = False
    with httpx.Client(timeout=timeout) as client:
        for row in rows:
            lines: list[str] = []
            cost: float | None = None
            sent = False
            try:
                if is_spent:
                    raise _NotSent("the budget is spent")
                lines, cost = _send(client, row, budget)
                sent = True
            except _NotSent as error:
                lines = [f"not sent: {error}"]
            except BudgetExceeded as error:
                is_spent = True
                lines = [str(error)]
            yield DriftResult(row["id"], f"{row['method']} {row['url']}", lines, cost, sent)


def _send(
    client: Any,  # an httpx.Client, which is imported late
    row: Mapping[str, Any],
    budget: Budget,
) -> tuple[list[str], float | None]:
    """Send a request again; return the differences and the cost in USD.

    Raises:
        _NotSent: A key is missing, or the host could not be reached.
        BudgetExceeded: It might cost more than is left.
    """
    import httpx

    url, headers = _with_keys(row)
    address = _embedded_address(row, url)
    body = as_bytes(row["request_body"] or b"")
    reservation = budget.reserve(row["method"], url, body)
    started = time.perf_counter()
    try:
        response = client.request(row["method"], address, headers=headers, content=body)
    except httpx.TransportError as error:
        if row["error_type"] == type(error).__name__:
            return [], None
        redaction = Redaction(secrets_of_environment(os.environ))
        message = redaction.text(f"{type(error).__name__}: {error}")
        if not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return [f"no answer: {message}"], None
        if reservation is not None:
            budget.settle(reservation, 0.0)
        raise _NotSent(message) from error
    new: dict[str, Any] = {
        **row,
        "status": response.status_code,
        "response_headers": "[]",
        "response_body": as_text(response.content),
        "elapsed": time.perf_counter() - started,
    }
    new.update(read_row(new).columns)
    if reservation is not None:
        budget.settle(reservation, new["cost_usd"])
    return compare(row, new), new["cost_usd"]


def _with_keys(row: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return URL and headers of a recorded request, redacted keys replaced from the environment.

    Raises:
        _NotSent: A key is needed but not set.
    """
    headers: list[tuple[str, str]] = []
    for name, value in headers_from_json(row["request_headers"]):
        if name.lower() in _CONNECTION:
            continue
        if value == REDACTED:
            key = _key(row)
            value = f"Bearer {key}" if name.lower() == "authorization" else key
        headers.append((name, value))
    url: str = row["url"]
    if REDACTED in url:
        url = url.replace(REDACTED, quote(_key(row), safe=""))
    return url, headers


def _key(row: Mapping[str, Any]) -> str:
    from ember.models.routing import built_in  # late: loads all of ember
    from ember.providers.servers import SERVERS

    server = SERVERS.get(_provider(row))
    key = built_in(server.name).api_key if server is not None else None
    if not key:
        names = " or ".join(server.key_vars) if server is not None else ""
        remedy = f"set {names}" if names else "its provider is none that Ember knows"
        raise _NotSent(f"the recorded key is redacted: {remedy}")
    return key


def _provider(row: Mapping[str, Any]) -> str:
    """Return the provider whose key is needed; for a local address, that of the API format."""
    from ember.pricing.snapshot import is_local  # late: loads all of ember
    from ember_testing.wires.parsing import read_request
    from ember_testing.wires.vendors import UNKNOWN

    if row["provider"] != UNKNOWN or not is_local(row["url"]):
        return row["provider"] or ""
    request = read_request(row["url"], as_bytes(row["request_body"] or b""))
    return request.route if request is not None else ""


def _embedded_address(row: Mapping[str, Any], url: str) -> str:
    """Return the URL to send to, which is the embedded model's address for its own calls.

    Raises:
        _NotSent: The embedded model cannot be started.
    """
    split = urlsplit(url)
    if row["provider"] != "local" or split.netloc != "local":
        return url
    from ember.exceptions import ModelProviderError
    from ember.providers.local import address

    try:
        host, port = address()
    except ModelProviderError as error:
        raise _NotSent(str(error)) from None
    return split._replace(netloc=f"{host}:{port}").geturl()


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences between a recorded answer and a new one; pure.

    Args:
        old: Columns of the recorded call.
        new: Columns of the new call. The text is expected to differ and is not compared.
    """
    names = ["status", "provider", "model", "prompt_tokens"]
    # A model's text differs each time: its length may vary, but it must not become empty.
    if bool(old["completion_tokens"]) != bool(new["completion_tokens"]):
        names.append("completion_tokens")
    lines = [
        f"{name}: recorded {old[name]}, now {new[name]}" for name in names if old[name] != new[name]
    ]
    before, now = (shape_of_body(row["response_body"] or "") for row in (old, new))
    for symbol, paths in (("-", before - now), ("+", now - before)):
        listed = sorted(paths)
        lines += [f"{symbol} {path}" for path in listed[:_MAX_SHAPE_LINES]]
        if len(listed) > _MAX_SHAPE_LINES:
            lines.append(f"{symbol} and {len(listed) - _MAX_SHAPE_LINES} more")
    return lines
