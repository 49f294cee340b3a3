"""Tools, tool choices and response formats, in one form that every wire can translate; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from ember.conversation.dialects import for_openai, from_google, wrapped_in_object
from ember.exceptions import ModelProviderError

__all__ = [
    "PLAIN_TEXT",
    "JsonFormat",
    "NativeTool",
    "Tool",
    "ToolChoice",
    "as_response_format",
    "as_tool_choice",
    "as_tools",
]


_NOTHING: Mapping[str, Any] = {}
# Keys of a tool that one wire accepts and the others refuse.
_ANTHROPICS = "allowed_callers cache_control defer_loading eager_input_streaming input_examples"
_GOOGLES = "behavior response responseJsonSchema"
_OWNERS = {
    **dict.fromkeys(_ANTHROPICS.split(), "anthropic"),
    **dict.fromkeys(_GOOGLES.split(), "google"),
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
    extra: Mapping[str, Any] = _NOTHING

    def extra_for(self, wire: str) -> dict[str, Any]:
        """Return the other keys, without those that only another wire accepts.

        Args:
            wire: The wire's name: `chat`, `openai-responses`, `anthropic` or `google`.
        """
        return {key: value for key, value in self.extra.items() if _OWNERS.get(key, wire) == wire}


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


def as_tools(value: object, wire: str = "") -> list[Tool | NativeTool]:
    """Convert tools in the format of Ember, OpenAI, Anthropic or Google.

    Args:
        value: The caller's list of dicts and Python functions.
        wire: The wire that they are for: "google" keeps Google's declarations unchanged.

    Raises:
        ModelProviderError: An item is not a tool.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ModelProviderError(f"tools= is a list of dicts and functions, not {value!r}")
    tools: list[Tool | NativeTool] = []
    for item in cast("Sequence[object]", value):
        if callable(item):
            from ember.conversation.python_types import (
                function_schema,
            )  # imported late: rarely used

            name, description, schema = function_schema(item)
            tools.append(Tool(name, description, schema))
            continue
        tool = _mapping(item)
        declared = next((tool[key] for key in _DECLARATIONS if key in tool), None)
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


_DECLARATIONS = ("functionDeclarations", "function_declarations")
_SCHEMAS = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema")


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
    key = next((name for name in _SCHEMAS if name in function), None)
    if key is None:
        if kind == "custom":
            return NativeTool(item)
        key = "parameters"
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


_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_MODES: Mapping[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Anthropic and Google
}


def as_tool_choice(value: object) -> ToolChoice | Mapping[str, Any]:
    """Convert `tool_choice=`: a mode, a tool's name, or a provider's own dict.

    Raises:
        ModelProviderError: The value is none of these.
    """
    if isinstance(value, str):
        mode = _MODES.get(value)
        return ToolChoice("required", value) if mode is None else ToolChoice(mode)
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

    Raises:
        ModelProviderError: The value is none of these.
    """
    if not isinstance(value, Mapping):
        from ember.conversation.python_types import (
            is_type,
            type_schema,
        )  # imported late: rarely used

        if is_type(value):
            # "Box[int]" is not a valid name.
            name = _name(getattr(value, "__name__", ""))
            return JsonFormat(type_schema(value), name, is_type=True)
        raise ModelProviderError(
            "response_format= is a JSON schema, a type (a pydantic class, a dataclass, a "
            f"TypedDict) or {{'type': 'json_object'}}, not {value!r}"
        )
    item = cast("Mapping[str, Any]", value)
    kind = item.get("type")
    if kind == "json_object":
        return JsonFormat(None)
    if kind == "json_schema":
        given = item.get("json_schema") or item
        if not isinstance(given, Mapping):
            raise ModelProviderError(
                f"response_format= holds a 'json_schema' that is no dict: {given!r}"
            )
        given = cast("Mapping[str, Any]", given)
        schema: object = given.get("schema") or {}
        if not isinstance(schema, Mapping):
            raise ModelProviderError(
                f"response_format= holds a 'schema' that is no dict: {schema!r}"
            )
        return JsonFormat(
            cast("Mapping[str, Any]", schema),
            given.get("name", "response"),
            given.get("strict"),
            given.get("description"),
        )
    if kind in _TYPES or not item.keys().isdisjoint(_KEYWORDS):
        return JsonFormat(item, _name(str(item.get("title", ""))))
    return item


def _name(title: str) -> str:
    """Return a format's name that OpenAI accepts: up to 64 of these characters."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in title)
    return plain[:64] or "response"
