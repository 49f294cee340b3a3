"""Schemas of answers and tools in each provider's JSON schema dialect."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest

from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse
from tests.corpus import ask, player, sent

CLAUDE, GEMINI, CHAT, RESPONSES = (
    "claude-opus-4-8",
    "gemini-3-pro-preview",
    "gpt-4o",
    "openai-responses/gpt-5.6",
)


class Inner(pydantic.BaseModel):
    """A model inside another."""

    size: int = pydantic.Field(3, ge=1, le=9, description="How big")


class Outer(pydantic.BaseModel):
    """A model with everything that Anthropic refuses."""

    name: str = pydantic.Field(max_length=5)
    inner: Inner
    many: list[Inner] = pydantic.Field(max_length=4)
    maybe: str | None = None


class Open(pydantic.BaseModel):
    """A model that allows any key."""

    scores: dict[str, int]


def objects(schema: Any) -> list[dict[str, Any]]:
    """All objects that a schema describes."""
    if isinstance(schema, list):
        return [found for each in schema for found in objects(each)]
    if not isinstance(schema, dict):
        return []
    inner = [found for each in schema.values() for found in objects(each)]
    return [*([schema] if schema.get("type") == "object" else []), *inner]


def test_anthropic_schema_equals_the_sdks() -> None:
    """The schema of a class is the one that the vendor's own package generates."""
    import anthropic  # late, here and below: loading a vendor's package takes long

    body = sent(CLAUDE, response_format=Outer).body
    schema = body["output_config"]["format"]["schema"]
    assert schema == anthropic.transform_schema(Outer)
    assert len(objects(schema)) == 2
    assert all(each["additionalProperties"] is False for each in objects(schema))
    assert "maximum: 9" in schema["$defs"]["Inner"]["properties"]["size"]["description"]


def test_anthropic_strict_tools_are_closed_and_others_are_not() -> None:
    """A strict tool gets Anthropic's dialect of JSON schema; other tools are unchanged."""
    import anthropic

    tool = {"name": "f", "parameters": Outer.model_json_schema()}
    strict, plain = (
        sent(CLAUDE, tools=[{**tool, **more}]).body["tools"][0]["input_schema"]
        for more in ({"strict": True}, {})
    )
    assert strict == anthropic.transform_schema(Outer)
    assert plain == Outer.model_json_schema()


@pytest.mark.parametrize("model", [CHAT, RESPONSES])
def test_openai_strict_schemas_equal_the_sdks(model: str) -> None:
    """Strict schemas are closed as by OpenAI's own package; others are unchanged."""
    from openai.lib._pydantic import to_strict_json_schema

    schema = Outer.model_json_schema()
    given = {"name": "f", "parameters": schema}
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    for strict in (True, None):
        named = {**form["json_schema"], "strict": strict}
        body = sent(model, tools=[{**given, "strict": strict}],
                    response_format={**form, "json_schema": named}).body  # fmt: skip
        function = body["tools"][0].get("function", body["tools"][0])
        about = body.get("text", {}).get("format") or body["response_format"]["json_schema"]
        expected = to_strict_json_schema(Outer) if strict else schema
        assert (function["parameters"], about["schema"]) == (expected, expected)


def test_google_declaration_is_translated_to_json_schema() -> None:
    """A declaration of Google's, with types in capitals, is an ordinary tool elsewhere."""
    parameters = {"type": "OBJECT", "properties": {"a": {"type": "ARRAY", "items": {
        "type": "STRING"}}}}  # fmt: skip
    tools = [{"functionDeclarations": [{"name": "f", "parameters": parameters}]}]
    plain = json.loads(json.dumps(parameters).lower())
    assert sent(CHAT, tools=tools).body["tools"][0]["function"]["parameters"] == plain
    assert sent(RESPONSES, tools=tools).body["tools"][0]["parameters"] == plain
    assert sent(CLAUDE, tools=tools).body["tools"][0]["input_schema"] == plain
    assert sent(GEMINI, tools=tools).body["tools"] == tools


@pytest.mark.parametrize(
    "arguments",
    [
        {"response_format": Open},
        {"response_format": Open.model_json_schema()},
        {"tools": [{"name": "f", "parameters": Open.model_json_schema(), "strict": True}]},
        {"response_format": {"type": "object", "properties": {"a": {}}}},
        {"response_format": {"type": "object", "additionalProperties": True}},
    ],
)
def test_open_objects_are_refused_for_anthropic(arguments: dict[str, Any]) -> None:
    """A schema with arbitrary keys is refused before it is sent; the error names it."""
    with pytest.raises(ModelProviderError, match=r"(response_format=|tools= \(f\)): .*cannot be"):
        sent(CLAUDE, **arguments)
    if arguments != {"response_format": {"type": "object", "properties": {"a": {}}}}:
        sent(CHAT, **arguments)


ANSWER = {"name": "Ada", "inner": {"size": 1}, "many": []}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude-3-opus", "claude-3-5-haiku-latest", "claude-sonnet-4-0"])
def test_older_claudes_answer_through_a_forced_tool(model: str, stream: bool) -> None:
    """Models without response formats get a forced tool with the schema; its input is the text."""
    body = sent(model, response_format=Outer).body
    (tool,) = body["tools"]
    assert "output_config" not in body
    assert tool["input_schema"] == Outer.model_json_schema()
    assert body["tool_choice"] == {"type": "tool", "name": tool["name"]}
    text = json.dumps(ANSWER)
    use = {"type": "tool_use", "id": "toolu_1", "name": tool["name"]}
    answer: Any = {"type": "message", "content": [{**use, "input": ANSWER}],
                   "stop_reason": "tool_use"}  # fmt: skip
    raw = json.dumps(answer)
    if stream:
        pieces = [text[:9], text[9:]]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        events = [
            {"type": "message_start", "message": {"type": "message", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": {**use, "input": {}}},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ]
        raw = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": raw})
        response = ask(model, stream, response_format=Outer)
    assert isinstance(response, ChatResponse)
    assert json.loads(response.text) == ANSWER
    assert (response.finish_reason, list(response.tool_calls)) == ("stop", [])
    assert response.message["content"] == [{"type": "text", "text": response.text}]
    again = sent(model, ["a", "b"]).body  # other calls are not affected
    assert "tools" not in again


def test_older_claudes_keep_the_callers_tools() -> None:
    """With other tools, any one of all tools is forced; with thinking, none is."""
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {}}}]
    body = sent("claude-3-opus", response_format=Outer, tools=tools).body
    assert len(body["tools"]) == 2
    assert body["tool_choice"] == {"type": "any"}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = sent("claude-3-7-sonnet-latest", response_format=Outer, thinking=thinking).body
    assert body["tool_choice"] == {"type": "auto"}
