"""Answers as objects, tools from functions, and tool calls in pieces."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import pickle
import subprocess
import sys
from datetime import date, datetime
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import jsonschema
import pydantic
import pytest

from ember.api import models
from ember.conversation.python_types import function_schema, parsed, type_schema
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.registry import ModelRegistry
from ember.models.schemas import ChatResponse, Chunk, ToolCall
from ember.providers.base import BaseProvider, register_provider
from tests.corpus import ask, player, sent

MODELS = ["gpt-4o", "openai-responses/gpt-5.5", "claude-opus-4-8", "gemini-3.8-flash"]


class Mood(enum.Enum):
    """A mood."""

    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Place:
    """A place.

    Attributes:
        name: What it is called.
    """

    name: str
    height: float = 0.0
    inside: Optional[Place] = None  # noqa: UP045 - the older form must be read too


class Trip(TypedDict):
    """A trip."""

    places: list[Place]
    mood: Mood
    when: date
    tags: dict[str, int]


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int = pydantic.Field(ge=0)


PLACE = {"name": "Ulm", "height": 478, "inside": {"name": "Germany"}}
TRIP = {"places": [PLACE], "mood": "good", "when": "2026-11-27", "tags": {"a": 1}}
GOOD: list[tuple[Any, Any, Any]] = [
    (City, {"name": "Ulm", "people": 1}, City(name="Ulm", people=1)),
    (Place, PLACE, Place("Ulm", 478.0, Place("Germany"))),
    (Trip, TRIP, {"places": [Place("Ulm", 478.0, Place("Germany"))], "mood": Mood.GOOD,
                  "when": date(2026, 11, 27), "tags": {"a": 1}}),
    (list[int], [1, 2], [1, 2]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (Literal["a", "b"], "b", "b"),
]  # fmt: skip


def body_of(model: str, text: str, finish: str = "stop", refusal: str | None = None) -> Any:
    """An answer with this text in a wire's format."""
    if "responses" in model:
        content = [{"type": "output_text", "text": text}]
        if refusal:
            content = [{"type": "refusal", "refusal": refusal}]
        item = {"type": "message", "role": "assistant", "content": content}
        return {"object": "response", "status": "completed", "output": [item],
                "usage": {"input_tokens": 3, "output_tokens": 4}}  # fmt: skip
    if "claude" in model:
        return {"type": "message", "content": [{"type": "text", "text": text}],
                "stop_reason": "refusal" if refusal else "end_turn",
                "usage": {"input_tokens": 3, "output_tokens": 4}}  # fmt: skip
    if "gemini" in model:
        content = {"role": "model", "parts": [{"text": text}]}
        candidate = {"content": content, "finishReason": "SAFETY" if refusal else "STOP"}
        return {"candidates": [candidate],
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}  # fmt: skip
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4}}  # fmt: skip


def answered(model: str, body: Any, stream: bool = False, **params: Any) -> Any:
    """The result or error of a call; a streamed one is answered by a server without streams."""
    text = f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n" if stream else json.dumps(body)
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        return ask(model, stream, **params)


@pytest.mark.parametrize("model", ["gpt-4o", "openai-responses/gpt-5.5", "claude-3-opus"])
@pytest.mark.parametrize("kind", [list[int], Literal[1, 2], pydantic.RootModel[list[City]]])
def test_schema_that_is_not_an_object_is_wrapped(model: str, kind: Any) -> None:
    """A schema is wrapped if the wire requires an object, and the value is unwrapped again."""
    body = sent(model, response_format=kind).body
    tool: Any = body.get("tools", [{}])[0]
    about = body.get("text", body.get("response_format", {}))
    about = about.get("format") or about.get("json_schema", {})
    schema = tool.get("input_schema") or about["schema"]
    definitions = type_schema(kind).get("$defs")
    assert (schema["type"], schema["required"]) == ("object", ["value"])
    assert schema.get("$defs") == definitions
    value: Any = [1] if kind == list[int] else 1
    value = [{"name": "Ulm", "people": 1}] if definitions else value
    assert parsed(kind, json.dumps({"value": value})) == parsed(kind, json.dumps(value))


def test_object_with_a_field_named_value_is_not_unwrapped() -> None:
    """A type with a single field `value` is not mistaken for a wrapper."""
    assert parsed(dict[str, int], '{"value": 1}') == {"value": 1}


def test_schema_of_a_string_is_not_a_providers_format() -> None:
    """A string's JSON schema is sent as a schema, not taken for a provider's format."""
    for schema in ({"type": "string"}, {"enum": ["a", "b"]}):
        about = sent("gpt-4o", response_format=schema).body["response_format"]
        assert about["json_schema"]["schema"] == schema


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("kind", "value", "meant"), GOOD)
def test_parsed_is_a_value_of_the_requested_type(
    model: str, kind: Any, value: Any, meant: Any, stream: bool
) -> None:
    """`parsed` is an object of the class, dataclass, TypedDict or plain type on every wire."""
    body = body_of(model, json.dumps(value))
    if "claude" in model and kind is Trip:  # Claude does not support open keys
        with pytest.raises(ModelProviderError):
            sent(model, response_format=kind)
        return
    response = answered(model, body, stream, response_format=kind)
    assert isinstance(response, ChatResponse)
    assert response.parsed == meant
    assert type(response.parsed) is type(meant)
    assert response.text == json.dumps(value)
    assert answered(model, body, stream).parsed is None


BAD: list[tuple[Any, str, str]] = [
    (City, '{"name": "Ulm", "people": -1}', "people"),
    (City, "I cannot say.", "City"),
    (City, "", "City"),
    (Place, '{"height": 1}', "has no 'name'"),
    (Place, '{"name": "Ulm", "planet": "Earth"}', "'planet' beside the fields"),
    (Place, '{"name": 7}', r"name is 7, which is no str"),
    (Place, '{"name": "Ulm", "inside": {"name": null}}', r"inside"),
    (Trip, json.dumps({**TRIP, "mood": "odd"}), "odd"),
    (Trip, json.dumps({**TRIP, "when": "soon"}), "soon"),
    (list[int], "[1, true]", r"\[1\] is True"),
    (tuple[int, str], "[1]", "1 items, not 2"),
    (Literal["a", "b"], '"c"', r"'c', which is no Literal\['a', 'b'\]"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "text", "says"), BAD)
def test_answer_that_does_not_fit_is_a_bad_response(
    kind: Any, text: str, says: str, stream: bool
) -> None:
    """An answer of another form is bad_response, with its text, usage and what failed."""
    error = answered("gpt-4o", body_of("gpt-4o", text), stream, response_format=kind)
    assert isinstance(error, ProviderAPIError)
    assert error.error_type == "bad_response"
    assert error.context["partial_text"] == text
    assert error.context["usage"]["prompt_tokens"] == 3
    with pytest.raises(ProviderAPIError, match=says):
        raise error
    again = pickle.loads(pickle.dumps(error))
    assert again.context["partial_text"] == text


class Typewriter(BaseProvider):
    """A custom provider that returns the prompt as its text."""

    def complete(self, prompt: Any, model: str, **kwargs: Any) -> ChatResponse:
        return ChatResponse(prompt)


def test_custom_providers_answer_is_parsed() -> None:
    """The requested object is parsed from a custom provider's text; other text is an error."""
    register_provider("typewriter", Typewriter)
    text = json.dumps({"name": "Ulm", "people": 1})
    answer = models("typewriter/m", text, response_format=City)
    assert answer.parsed == City(name="Ulm", people=1)
    with models.stream("typewriter/m", text, response_format=City) as streamed:
        assert "".join(chunk.text for chunk in streamed) == text
    assert streamed.response.parsed == City(name="Ulm", people=1)
    assert models("typewriter/m", text).parsed is None
    with pytest.raises(ProviderAPIError, match="is no City") as caught:
        models("typewriter/m", "no", response_format=City)
    assert caught.value.context["response"].text == "no"


@pytest.mark.parametrize("stream", [False, True])
def test_answer_that_does_not_fit_is_counted(stream: bool) -> None:
    """The registry counts an answer that does not fit, and a stream keeps it."""
    registry = ModelRegistry()
    raw = json.dumps(body_of("gpt-4o", "no"))
    raw = f"data: {raw}\n\ndata: [DONE]\n\n" if stream else raw
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": raw})
        params: dict[str, Any] = {"response_format": City, "api_key": "k"}
        if stream:
            streamed = registry.stream_model("gpt-4o", "hi", **params)
            with pytest.raises(ProviderAPIError, match="is no City"):
                list(streamed)
            assert (streamed.text, streamed.response.text) == ("no", "no")
        else:
            with pytest.raises(ProviderAPIError, match="is no City"):
                registry.invoke_model("gpt-4o", "hi", **params)
    summary = registry.get_usage_summary("gpt-4o")
    assert summary is not None
    assert (summary.request_count, summary.total_usage.total_tokens) == (1, 7)


@pytest.mark.parametrize("model", MODELS)
def test_refusal_has_no_parsed_value(model: str) -> None:
    """A refusal has no object, and its reason is reported as usual."""
    response = answered(model, body_of(model, "", refusal="No."), response_format=City)
    assert isinstance(response, ChatResponse)
    assert (response.parsed, response.finish_reason) == (None, "content_filter")


def test_answer_with_a_tool_call_has_no_parsed_value() -> None:
    """An answer with a tool call has no object yet."""
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": function}
    body = body_of("gpt-4o", "", "tool_calls")
    body["choices"][0]["message"]["tool_calls"] = [call]
    response = answered("gpt-4o", body, response_format=City)
    assert (response.parsed, len(response.tool_calls)) == (None, 1)


def test_stream_left_early_raises_no_parse_error() -> None:
    """Half an object is not an error if the caller stopped reading."""
    chunk = {"choices": [{"index": 0, "delta": {"content": '{"na'}}]}
    raw = f"data: {json.dumps(chunk)}\n\n" * 2
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": raw})
        with models.stream("gpt-4o", "hi", response_format=City, api_key="k") as stream:
            next(stream)
    assert stream.response.parsed is None


@pytest.mark.parametrize(("kind", "value", "meant"), GOOD)
def test_schema_accepts_exactly_the_values_of_its_type(kind: Any, value: Any, meant: Any) -> None:
    """A type's schema is valid, and accepts its values and no others."""
    schema = type_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)
    for other, text, _ in BAD:
        if (
            other is kind
            and text.startswith(("[", "{", '"'))
            and "planet" not in text
            and "soon" not in text
        ):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(json.loads(text), schema)
    assert parsed(kind, json.dumps(value)) == meant


def test_type_without_a_json_form_is_refused() -> None:
    """A type without a JSON form is refused before anything is sent, with alternatives."""
    for kind in (complex, bytes, type("Odd", (), {}), list[complex], set[bytes]):
        with pytest.raises(ModelProviderError, match=r"JSON cannot say .*pass a pydantic class"):
            sent("gpt-4o", response_format=kind)
    with pytest.raises(ModelProviderError, match="response_format="):
        sent("gpt-4o", response_format=7)


def namesake() -> type:
    """Return another type named Place."""
    return dataclasses.make_dataclass("Place", [("x", int), ("outer", Place)])


def test_two_types_of_one_name_keep_their_schemas() -> None:
    """A type inside another with the same name is described by its own fields."""
    kind = namesake()
    schema = type_schema(kind)
    jsonschema.validate({"x": 1, "outer": PLACE}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"x": 1, "outer": {"x": 1}}, schema)
    assert parsed(kind, json.dumps({"x": 1, "outer": PLACE})).outer.name == "Ulm"


def test_type_defined_inside_a_function_is_refused() -> None:
    """An unresolvable annotation is an error that says where to define the type."""

    @dataclasses.dataclass
    class Inner:
        x: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    def odd(inner: Inner) -> None: ...

    with pytest.raises(ModelProviderError, match="top level"):
        sent("gpt-4o", response_format=Outer)
    with pytest.raises(ModelProviderError, match="top level"):
        sent("gpt-4o", tools=[odd])


def weather(  # noqa: D417 - arguments that its docstring omits have no description
    city: str,
    days: int = 3,
    mood: Mood | None = None,
    where: Annotated[Place | None, "Where exactly"] = None,
    *,
    unit: Literal["C", "F"] = "C",
    **more: Any,
) -> str:
    """The weather in a city.

    It is a guess.

    Args:
        city: The city's name,
            in its own language.
        days (int): How many days ahead.
        unit: Of temperatures.

    Returns:
        Words.
    """
    return f"{city} {days} {mood} {where} {unit} {more}"


@pytest.mark.parametrize("model", MODELS)
def test_a_function_is_a_tool(model: str) -> None:
    """A tool has the function's name, description and schema on every wire."""
    (tool,) = sent(model, tools=[weather]).body["tools"]
    declared = tool.get("function") or (tool.get("functionDeclarations") or [tool])[0]
    assert declared["name"] == "weather"
    assert declared["description"] == "The weather in a city.\n\nIt is a guess."
    names = ("parameters", "input_schema", "parametersJsonSchema")
    schema = next(declared[name] for name in names if name in declared)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["city"]
    about = {name: each.get("description") for name, each in schema["properties"].items()}
    assert about == {
        "city": "The city's name, in its own language.", "days": "How many days ahead.",
        "mood": None, "where": "Where exactly", "unit": "Of temperatures.",
    }  # fmt: skip
    jsonschema.validate({"city": "Ulm", "where": PLACE, "unit": "F"}, schema)
    for bad in ({}, {"city": 7}, {"city": "Ulm", "unit": "K"}, {"city": "Ulm", "mood": "odd"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


class Counter:
    """Counts, and has nothing to say of its call."""

    def __call__(self, to: int) -> int:
        """Count to a number.

        :param to: Where to stop,
            that one included.
        """
        return to

    def step(self, size: float) -> None:
        """Take a step."""


def test_methods_and_callables_are_tools() -> None:
    """A bound method has no self; callable objects and reST docstrings work too."""
    name, about, schema = function_schema(Counter().step)
    assert (name, about, [*schema["properties"]]) == ("step", "Take a step.", ["size"])
    name, _, schema = function_schema(Counter())
    assert (name, schema["properties"]["to"]["type"]) == ("Counter", "integer")
    _, about, schema = function_schema(Counter.__call__.__get__(Counter()))
    assert about == "Count to a number."
    assert schema["properties"]["to"]["description"] == "Where to stop, that one included."


def test_partial_function_is_a_tool_with_the_remaining_arguments() -> None:
    """A partial has its function's name, types and description, and the remaining arguments."""

    def pay(account: str, amount: int, currency: str) -> None:
        """Pay somebody."""

    name, about, schema = function_schema(functools.partial(pay, "mine", currency="EUR"))
    assert (name, about, schema["required"]) == ("pay", "Pay somebody.", ["amount"])
    assert schema["properties"]["amount"]["type"] == "integer"
    assert schema["properties"]["currency"]["default"] == "EUR"


def test_function_without_argument_names_is_refused() -> None:
    """A function is refused as a tool if an argument has no name or a type that JSON lacks."""

    def positional(a: int, /) -> None: ...
    def variadic(*a: int) -> None: ...
    def odd(a: complex) -> None: ...

    for function in (positional, variadic):
        with pytest.raises(ModelProviderError, match="cannot be passed by name"):
            sent("gpt-4o", tools=[function])
    with pytest.raises(ModelProviderError, match="JSON cannot say"):
        sent("gpt-4o", tools=[odd])


class Point(NamedTuple):
    """A class that is called with its fields."""

    x: int
    y: int = 0


def test_dates_and_uuids_are_parsed_from_text() -> None:
    """Dates, datetimes and UUIDs are text in JSON and are parsed to objects again."""
    assert parsed(datetime, '"2026-11-27T13:00:00Z"').utcoffset() is not None
    assert parsed(UUID, '"12345678123456781234567812345678"') == UUID(
        int=0x12345678123456781234567812345678
    )
    assert type_schema(datetime) == {"type": "string", "format": "date-time"}
    with pytest.raises(ModelProviderError):
        type_schema(Point)


def test_structured_answers_import_no_pydantic() -> None:
    """Ember imports neither pydantic nor typing_extensions, even for answers as objects."""
    code = (
        "import sys, dataclasses\n"
        "from ember.conversation.python_types import parsed, type_schema\n"
        "P = dataclasses.make_dataclass('P', [('a', int)])\n"
        "assert parsed(P, '{\"a\": 1}') == P(1) and type_schema(P)['required'] == ['a']\n"
        "import ember.api.models\n"
        "assert not {'pydantic', 'typing_extensions'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def pieces_of(events: list[Any], model: str) -> tuple[list[Chunk], ChatResponse]:
    """The chunks of a stream of these events, and its response."""
    raw = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": raw})
        stream = models.stream(model, "hi", api_key="k")
        return list(stream), stream.response


def chat_piece(**call: Any) -> dict[str, Any]:
    """A chunk of chat completions with a piece of a call."""
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}


STREAMED: dict[str, list[dict[str, Any]]] = {
    "gpt-4o": [
        chat_piece(id="call_1", function={"name": "f", "arguments": ""}),
        chat_piece(function={"arguments": '{"a"'}),
        chat_piece(function={"arguments": ": 1}"}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ],
    "claude-opus-4-8": [
        {"type": "message_start", "message": {"type": "message", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {
            "type": "tool_use", "id": "call_1", "name": "f", "input": {}}},
        *({"type": "content_block_delta", "index": 0,
           "delta": {"type": "input_json_delta", "partial_json": piece}}
          for piece in ('{"a"', ": 1}")),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ],
    "openai-responses/gpt-5.5": [
        {"type": "response.output_item.added", "item": {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}},
        *({"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": piece}
          for piece in ('{"a"', ": 1}")),
        {"type": "response.completed", "response": {"object": "response", "status": "completed",
         "output": [{"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f",
                     "arguments": '{"a": 1}'}]}},
    ],
    "gemini-3.8-flash": [
        {"candidates": [{"content": {"parts": [
            {"functionCall": {"id": "call_1", "name": "f", "args": {"a": 1}}}]}}]},
        {"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("model", STREAMED)
def test_chunks_carry_pieces_of_tool_calls(model: str) -> None:
    """The joined pieces of a call's arguments are the arguments; each piece names its call."""
    chunks, response = pieces_of(STREAMED[model], model)
    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call is not None]
    assert {(piece.id, piece.name) for piece in pieces} == {("call_1", "f")}
    (call,) = response.tool_calls
    assert json.loads("".join(piece.arguments for piece in pieces)) == call.arguments == {"a": 1}
    assert call == ToolCall("call_1", "f", {"a": 1})
    assert "".join(chunk.text for chunk in chunks) == response.text == ""


def test_parallel_calls_keep_their_pieces_apart() -> None:
    """Interleaved pieces of two calls are told apart by the calls' ids."""
    both = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": n, "id": f"call_{n}", "function": {"name": "f", "arguments": ""}}
            for n in (0, 1)]}}]},
        *({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": n, "function": {"arguments": part}} for n in (1, 0)]}}]}
          for part in ("{", "}")),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ]  # fmt: skip
    chunks, response = pieces_of(both, "gpt-4o")
    for call in response.tool_calls:
        texts = [c.tool_call.arguments for c in chunks if c.tool_call and c.tool_call.id == call.id]
        assert texts == ["", "{", "}"]
