"""Support tickets, read by a language model: what each is about, and an answer to its sender."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ember.api import models
from ember.api.exceptions import EmberError, ProviderAPIError

MODEL = os.environ.get("TRIAGE_MODEL", "gpt-6-luna")
FALLBACK = "claude-haiku-5-5"
SYSTEM = "You sort the support tickets of a shop. Answer in JSON."
TEAMS = ["billing", "delivery", "technical"]
SCHEMA = {
    "title": "triage",
    "type": "object",
    "properties": {
        "team": {"type": "string", "enum": TEAMS},
        "urgent": {"type": "boolean"},
    },
    "required": ["team", "urgent"],
    "additionalProperties": False,
}
ORDER_STATUS = {
    "name": "order_status",
    "description": "Where an order is.",
    "parameters": {
        "type": "object",
        "properties": {"order": {"type": "string", "description": "Such as A-17."}},
        "required": ["order"],
    },
}


@dataclass(frozen=True)
class Triage:
    """What a ticket is about: the team that answers it, and whether it cannot wait."""

    team: str
    urgent: bool


def triage(ticket: str) -> Triage:
    """Sort one ticket; a structured answer."""
    response = models(MODEL, ticket, system=SYSTEM, response_format=SCHEMA, max_tokens=100)
    return _read(response.text)


def _read(text: str) -> Triage:
    found = json.loads(text)
    return Triage(found["team"], found["urgent"])


def patient_triage(ticket: str, attempts: int = 3) -> Triage:
    """Sort one ticket; wait and ask again where that helps, else ask another provider."""
    for attempt in range(1, attempts + 1):
        try:
            return triage(ticket)
        except ProviderAPIError as error:
            if not error.retryable or attempt == attempts:
                break
            time.sleep(error.retry_after or 2**attempt)
    response = models(FALLBACK, ticket, system=SYSTEM, response_format=SCHEMA, max_tokens=100)
    return _read(response.text)


async def triage_all(tickets: Sequence[str], at_once: int = 5) -> list[Triage | EmberError]:
    """Sort many tickets, so many at once; a failure stands in its ticket's place."""
    free = asyncio.Semaphore(at_once)

    async def one(ticket: str) -> Triage | EmberError:
        async with free:
            try:
                response = await models.acall(
                    MODEL, ticket, system=SYSTEM, response_format=SCHEMA, max_tokens=100
                )
            except EmberError as error:
                return error
        return _read(response.text)

    return list(await asyncio.gather(*map(one, tickets)))


def reply(ticket: str, order_status: Callable[[str], Mapping[str, Any]], rounds: int = 5) -> str:
    """Answer a ticket; the model may look orders up before it does: a tool loop."""
    conversation: list[Any] = [{"role": "user", "content": ticket}]
    for _ in range(rounds):
        response = models(MODEL, conversation, system="Be brief.", tools=[ORDER_STATUS])
        if not response.tool_calls:
            return response.text
        conversation.append(response.message)
        for call in response.tool_calls:
            result = order_status(**call.arguments)
            conversation.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError(f"no answer after {rounds} rounds of tool calls")
