"""Tools, tool choices and response formats, in one form that every wire can translate; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from ember.conversation.dialects import for_openai, from_google, wrapped_in_object
from ember.exceptions import ModelProviderError

_NO_KEYS: Mapping[str, Any] = {}
_ANTHROPIC_KEYS = "allowed_callers cache_control defer_loading eager_input_streaming input_examples"
# The wires of a tool's keys that all others refuse.
_WIRES = {
    **dict.fromkeys(_ANTHROPIC_KEYS.split(), "anthropic"),
    **dict.fromkeys(("behavior", "response", "responseJsonSchema"), "google"),
}


class Tool(NamedTuple):
    """A function that the model may call.

    Args:
        name: Its name.
        description: What it does, for the model.
        parameters: The JSON schema of its arguments.
        strict: Whether the arguments must match the schema; None leaves it to the provider.
        extra: The caller's other keys, such as `cache_control`.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool | None = None
    extra: Mapping[str, Any] = _NO_KEYS

    def extra_for(self, wire: str) -> dict[str, Any]:
        """Return the other keys, without those that only another wire accepts."""
        return {key: value for key, value in self.extra.items() if _WIRES.get(key, wire) == wire}


class NativeTool(NamedTuple):
    """A tool in one provider's own format (web search, ...), sent to it unchanged."""

    value: Mapping[str, Any]


class ToolChoice(NamedTuple):
    """Whether the model must call a tool; `name` if it must be that one."""

    mode: Literal["auto", "none", "required"]
    name: str | None = None


class JsonFormat(NamedTuple):
    """A response format of JSON: by a schema, or any object if `schema` is None.

    `is_type` means that the schema is that of a Python type, to which the answer is parsed.
    """

    schema: Mapping[str, Any] | None
    name: str = "response"
    strict: bool | None = None
    description: str | None = None
    is_type: bool = False

    def object_schema(self) -> Mapping[str, Any]:
        """Return the schema with an outermost object; a caller's own schema is not changed."""
        schema = self.schema or {}
        return wrapped_in_object(schema) if self.is_type else schema

    def for_openai(self) -> dict[str, Any]:
        """Return the fields that both of OpenAI's wires send."""
        schema = self.object_schema()
        about = {"strict": self.strict, "description": self.description}
        return {
            "name": self.name,
            "schema": for_openai(schema) if self.strict else schema,
            **{key: value for key, value in about.items() if value is not None},
        }


_DECLARATIONS = ("functionDeclarations", "function_declarations")
_SCHEMAS = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema")
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def as_tools(value: object, wire: str = "") -> list[Tool | NativeTool]:
    """Convert a list of functions, and of tools in Ember's or a provider's format.

    Google's declarations stay as they are for the wire "google".
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ModelProviderError(f"tools= is a list of dicts and functions, not {value!r}")
    tools: list[Tool | NativeTool] = []
    for item in cast("Sequence[object]", value):
        if callable(item):
            from ember.conversation import python_types  # imported late: rarely used

            tools.append(Tool(*python_types.function_schema(item)))
            continue
        tool = _mapping(item)
        declared: object = next((tool[key] for key in _DECLARATIONS if key in tool), None)
        if declared is not None and wire == "google":
            tools.append(NativeTool(tool))
        elif isinstance(declared, Sequence):
            for each in map(_as_tool, map(_mapping, cast("Sequence[object]", declared))):
                if isinstance(each, Tool):
                    each = each._replace(parameters=from_google(each.parameters))
                tools.append(each)
        else:
            tools.append(_as_tool(tool))
    return tools


def _mapping(item: object) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return cast("Mapping[str, Any]", item)
    raise ModelProviderError(
        f"a tool is a dict with 'name', 'description' and 'parameters', or a function, not {item!r}"
    )


def _as_tool(item: Mapping[str, Any]) -> Tool | NativeTool:
    function = _mapping(item.get("function") or item)
    kind = item.get("type", "function")
    if kind not in ("function", "custom") or "name" not in function:
        return NativeTool(item)
    key = next((name for name in _SCHEMAS if name in function), "parameters")
    if kind == "custom" and key not in function:
        return NativeTool(item)
    schema = function.get(key) or _NO_ARGUMENTS
    if not isinstance(schema, Mapping):
        raise ModelProviderError(
            f"the tool {function['name']!r} needs a JSON schema as its {key!r}, not {schema!r}"
        )
    parameters = cast("Mapping[str, Any]", schema)
    known = {"type", "function", "name", "description", "strict", key}
    given = {**item, **function}
    extra = {name: value for name, value in given.items() if name not in known}
    return Tool(given["name"], given.get("description"), parameters, given.get("strict"), extra)


_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "required": ToolChoice("required"),
    "any": ToolChoice("required"),  # Anthropic and Google
}


def as_tool_choice(value: object) -> ToolChoice | Mapping[str, Any]:
    """Convert `tool_choice=`: a mode, a tool's name, or a provider's own dict."""
    if isinstance(value, str):
        return _MODES.get(value) or ToolChoice("required", value)
    if isinstance(value, Mapping):
        item = cast("Mapping[str, Any]", value)
        function: Mapping[str, Any] = item.get("function") or item
        if item.get("type") in ("function", "tool") and isinstance(function.get("name"), str):
            return ToolChoice("required", function["name"])
        return item
    raise ModelProviderError(
        f"tool_choice= is 'auto', 'none', 'required', a tool's name or a dict, not {value!r}"
    )


PLAIN_TEXT: Mapping[str, Any] = {"type": "text"}
"""OpenAI's format for plain text; wires without such a format omit it."""


# Types and keywords that distinguish a JSON schema from a provider's own format.
_TYPES = ("object", "array", "string", "integer", "number", "boolean")
_KEYWORDS = ("properties", "$ref", "anyOf", "oneOf", "allOf", "enum")


def as_response_format(value: object) -> JsonFormat | Mapping[str, Any]:
    """Convert `response_format=`.

    It is a JSON schema, a type (see `type_schema`), OpenAI's `{"type": "json_schema", ...}` or
    `{"type": "json_object"}`, or a provider's own dict.
    """
    if not isinstance(value, Mapping):
        from ember.conversation import python_types  # imported late: rarely used

        if python_types.is_type(value):
            name = _format_name(getattr(value, "__name__", ""))
            return JsonFormat(python_types.type_schema(value), name, is_type=True)
        raise ModelProviderError(
            "response_format= is a JSON schema, a type (a pydantic class, a dataclass, a "
            f"TypedDict) or {{'type': 'json_object'}}, not {value!r}"
        )
    item = cast("Mapping[str, Any]", value)
    kind = item.get("type")
    if kind == "json_object":
        return JsonFormat(None)
    if kind == "json_schema":
        given = _inner_mapping("json_schema", item.get("json_schema") or item)
        schema = _inner_mapping("schema", given.get("schema") or {})
        name = given.get("name", "response")
        return JsonFormat(schema, name, given.get("strict"), given.get("description"))
    if kind in _TYPES or not item.keys().isdisjoint(_KEYWORDS):
        return JsonFormat(item, _format_name(str(item.get("title", ""))))
    return item


def _inner_mapping(key: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise ModelProviderError(f"response_format= holds a {key!r} that is no dict: {value!r}")


def _format_name(title: str) -> str:
    """Return a format's name that OpenAI accepts: up to 64 of these characters."""
    return re.sub("[^A-Za-z0-9_-]", "_", title)[:64] or "response"
