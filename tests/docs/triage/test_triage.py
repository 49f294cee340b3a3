"""Tests of the triage application: recorded, faked, and with faults."""

from __future__ import annotations

import asyncio
import json

import pytest
import triage

from ember.api.exceptions import ProviderAPIError
from ember.api.models.schemas import ToolCall
from ember_testing import Answer
from ember_testing.faults import overloaded, quota, rate_limit

TICKET = "I was charged twice for order A-17. Please look at my bill today."


@pytest.mark.ember_replay
def test_a_real_model_keeps_to_the_schema(cassette, monkeypatch):
    """The embedded model was recorded once; this replays it, with the network closed."""
    monkeypatch.setattr(triage, "MODEL", "local/smollm2")
    found = triage.triage(TICKET)
    assert found.team in ("billing", "delivery", "technical")
    assert isinstance(found.urgent, bool)
    (call,) = [*cassette.played, *cassette.recorded]
    assert "response_format" in call.json()


def test_the_answer_becomes_an_object(fake_model):
    """What the model says becomes a value, and the model is asked as intended."""
    fake_model(triage.MODEL, '{"team": "billing", "urgent": true}')
    assert triage.triage(TICKET) == triage.Triage("billing", urgent=True)
    (call,) = fake_model.calls
    assert call.system == triage.SYSTEM
    assert call.prompt == TICKET


def test_a_rate_limit_is_waited_for(fake_model, no_sleep):
    """The provider says how long to wait, and no sooner is it asked again."""
    fake_model(triage.MODEL, rate_limit(retry_after=20), '{"team": "billing", "urgent": true}')
    assert triage.patient_triage(TICKET).team == "billing"
    assert no_sleep.seconds == 20
    assert fake_model.verdict().ok


def test_another_provider_helps_out(fake_model, no_sleep):
    """Where no wait helps, the other provider answers, and at once."""
    fake_model(triage.MODEL, quota())  # money is out: no wait helps
    fake_model(triage.FALLBACK, '{"team": "billing", "urgent": false}')
    assert triage.patient_triage(TICKET).team == "billing"
    assert no_sleep.seconds == 0
    assert [call.provider for call in fake_model.calls] == ["openai", "anthropic"]


def test_thirty_tickets_with_two_failures(fake_model):
    """Two of thirty fail, and the others have their answers in their places."""

    def answer(call):
        number = int(call.prompt.partition(" ")[2])
        if number in (7, 19):
            return overloaded()
        return json.dumps({"team": "billing" if number % 3 else "technical", "urgent": False})

    fake_model(triage.MODEL, answer)
    found = asyncio.run(triage.triage_all([f"Ticket {n}" for n in range(30)], at_once=5))
    assert [n for n, each in enumerate(found) if isinstance(each, ProviderAPIError)] == [7, 19]
    assert found[27] == triage.Triage("technical", urgent=False)
    assert found[29] == triage.Triage("billing", urgent=False)


def test_the_model_looks_an_order_up(fake_model):
    """The model asks for an order, gets it, and answers."""
    asked = ToolCall("call_1", "order_status", {"order": "A-17"})
    fake_model(triage.MODEL, Answer(tool_calls=[asked]), "It arrives on Monday.")
    looked_up = []

    def order_status(order: str) -> dict:
        """Where an order is."""
        looked_up.append(order)
        return {"order": order, "arrives": "Monday"}

    assert triage.reply("Where is A-17?", order_status) == "It arrives on Monday."
    assert looked_up == ["A-17"]
    (result,) = fake_model.calls[1].messages[-1].parts
    assert json.loads(result.text) == {"order": "A-17", "arrives": "Monday"}
