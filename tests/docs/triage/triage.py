"""Support tickets, read by a language model: what each is about, and an answer to its sender."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ember.api import models
from ember.api.exceptions import EmberError, ProviderAPIError

MODEL = os.environ.get("TRIAGE_MODEL", "gpt-6-luna")
FALLBACK = "claude-haiku-5-5"
SYSTEM = "You sort the support tickets of a shop."


@dataclass(frozen=True)
class Triage:
    """What a ticket is about: the team that answers it, and whether it cannot wait."""

    team: Literal["billing", "delivery", "technical"]
    urgent: bool


def triage(ticket: str) -> Triage:
    """Sort one ticket; a structured answer."""
    response = models(MODEL, ticket, system=SYSTEM, response_format=Triage, max_tokens=100)
    return response.parsed


def patient_triage(ticket: str, attempts: int = 3) -> Triage:
    """Sort one ticket; wait and ask again where that helps, else ask another provider."""
    for attempt in range(1, attempts + 1):
        try:
            return triage(ticket)
        except ProviderAPIError as error:
            if not error.retryable or attempt == attempts:
                break
            time.sleep(error.retry_after or 2**attempt)
    response = models(FALLBACK, ticket, system=SYSTEM, response_format=Triage, max_tokens=100)
    return response.parsed


async def triage_all(tickets: Sequence[str], at_once: int = 5) -> list[Triage | EmberError]:
    """Sort many tickets, so many at once; a failure stands in its ticket's place."""
    free = asyncio.Semaphore(at_once)

    async def one(ticket: str) -> Triage | EmberError:
        async with free:
            try:
                response = await models.acall(
                    MODEL, ticket, system=SYSTEM, response_format=Triage, max_tokens=100
                )
            except EmberError as error:
                return error
        return response.parsed

    return list(await asyncio.gather(*map(one, tickets)))


def reply(ticket: str, order_status: Callable[..., Mapping[str, Any]], rounds: int = 5) -> str:
    """Answer a ticket; the model may look orders up before it does: a tool loop.

    Args:
        ticket: What the customer wrote.
        order_status: Where an order is; the model reads its signature and its docstring.
        rounds: How often the model may look something up.
    """
    conversation: list[Any] = [{"role": "user", "content": ticket}]
    for _ in range(rounds):
        response = models(MODEL, conversation, system="Be brief.", tools=[order_status])
        if not response.tool_calls:
            return response.text
        conversation.append(response.message)
        for call in response.tool_calls:
            result = order_status(**call.arguments)
            conversation.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError(f"no answer after {rounds} rounds of tool calls")
