"""Whether providers still answer as recorded: the recorded requests sent again, within a budget."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from ember_testing.cli.diff import shape_of_body
from ember_testing.exceptions import BudgetExceeded
from ember_testing.replay.budget import Budget
from ember_testing.replay.redaction import Redaction
from ember_testing.replay.secrets import REDACTED, secrets_of_environment
from ember_testing.wires.body import as_bytes, as_text, headers_from_json
from ember_testing.wires.exchange import read_row

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONNECTION = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding"}
_LONGEST = 6  # lines about the shape, of each kind


class Drifted(NamedTuple):
    """One call that was sent again.

    Args:
        call: Its number.
        title: What was asked, in a line.
        lines: What differs, a line each; none where the answer is as recorded.
        cost: US dollars of the new answer; None where unknown.
        sent: Whether it was sent: False where the budget did not allow it, a key is missing, or
            its host could not be reached.
    """

    call: int
    title: str
    lines: list[str]
    cost: float | None
    sent: bool


class _NotSent(Exception):
    """Why a request cannot be sent; the message names what is missing."""


def drift(
    rows: Iterable[Mapping[str, Any]], budget: Budget, timeout: float = 60.0
) -> Iterator[Drifted]:
    """Send recorded requests again and compare the answers' status, shape, model and usage.

    Args:
        rows: Columns of the calls.
        budget: What it may cost altogether.
        timeout: Seconds to wait for each piece of an answer.

    Yields:
        Each call, in its order. After the first that does not fit into the budget nothing is sent.
        Calls of `local/` models are sent to the embedded model.
    """
    import httpx  # late: the command's help needs none

    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=timeout))
        over = False
        for row in rows:
            title = f"{row['method']} {row['url']}"
            if over:
                yield Drifted(row["id"], title, ["not sent: the budget is spent"], None, False)
                continue
            try:
                url, headers = _with_keys(row)
                body = as_bytes(row["request_body"] or b"")
                reservation = budget.reserve(row["method"], url, body)
                url = _where_it_listens(row, url)
            except _NotSent as error:
                yield Drifted(row["id"], title, [f"not sent: {error}"], None, False)
                continue
            except BudgetExceeded as error:
                over = True
                yield Drifted(row["id"], title, [str(error)], None, False)
                continue
            yield _send(client, row, url, headers, body, budget, reservation)


def _send(
    client: Any,  # an httpx.Client, which is imported late
    row: Mapping[str, Any],
    url: str,
    headers: list[tuple[str, str]],
    body: bytes,
    budget: Budget,
    reservation: int | None,
) -> Drifted:
    title = f"{row['method']} {row['url']}"
    import httpx

    started = time.perf_counter()
    try:
        response = client.request(row["method"], url, headers=headers, content=body)
    except httpx.TransportError as error:
        if row["error_type"] == type(error).__name__:
            return Drifted(row["id"], title, [], None, True)
        redaction = Redaction(secrets_of_environment(os.environ))
        message = redaction.text(f"{type(error).__name__}: {error}")
        if not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return Drifted(row["id"], title, [f"no answer: {message}"], None, True)
        if reservation is not None:
            budget.settle(reservation, 0.0)
        return Drifted(row["id"], title, [f"not sent: {message}"], None, False)
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
    return Drifted(row["id"], title, compare(row, new), new["cost_usd"], True)


def _with_keys(row: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """URL and headers of a recorded request, with this environment's keys where redacted ones were.

    Raises:
        _NotSent: A key is needed and none is set.
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
    key = built_in(server.name).key() if server is not None else None
    if not key:
        names = " or ".join(server.key_vars) if server is not None else ""
        remedy = f"set {names}" if names else "its provider is none that Ember knows"
        raise _NotSent(f"the recorded key is redacted: {remedy}")
    return key


def _provider(row: Mapping[str, Any]) -> str:
    """Whose key a request needs: at an address nearby, of whose words it speaks."""
    from ember.pricing.snapshot import is_local  # late: load all of ember
    from ember_testing.wires.exchange import read_request
    from ember_testing.wires.vendors import UNKNOWN

    if row["provider"] != UNKNOWN or not is_local(row["url"]):
        return row["provider"] or ""
    asked = read_request(row["url"], as_bytes(row["request_body"] or b""))
    return asked.route if asked is not None else ""


def _where_it_listens(row: Mapping[str, Any], url: str) -> str:
    """The URL to send to: that of the embedded model for its own calls.

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
    """What differs between a recorded answer and a new one; pure.

    Args:
        old: Columns of the recorded call.
        new: The same of the new one. Its text is expected to differ, and is not compared.
    """
    lines = [
        f"{name}: recorded {old[name]}, now {new[name]}"
        for name in ("status", "provider", "model", "prompt_tokens")
        if old[name] != new[name]
    ]
    # What a model says is another text each time: its length may vary, not be gone.
    if bool(old["completion_tokens"]) != bool(new["completion_tokens"]):
        lines.append(
            f"completion_tokens: recorded {old['completion_tokens']}, "
            f"now {new['completion_tokens']}"
        )
    before, now = (shape_of_body(row["response_body"] or "") for row in (old, new))
    for sign, paths in (("-", before - now), ("+", now - before)):
        listed = sorted(paths)
        lines += [f"{sign} {path}" for path in listed[:_LONGEST]]
        if len(listed) > _LONGEST:
            lines.append(f"{sign} and {len(listed) - _LONGEST} more")
    return lines
