"""JSON schemas in the dialects of providers' constrained outputs; pure.

Sources: the `anthropic` 2.12.0 package (`lib/_parse/_transform.py`) and the `openai` 3.54.0 package
(`lib/_pydantic.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ember.exceptions import ModelProviderError

WRAPPER_KEY = "value"
"""The key of a value in the object that wraps it, if providers require an object."""

_Schema = Mapping[str, Any]
_DEFINITIONS = ("$defs", "definitions")
# Keywords that contain schemas: a single one, a list, or a mapping by name.
_WITH_SCHEMA = ("items", "not", "if", "then", "else", "contains")
_WITH_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_WITH_NAMED_SCHEMAS = (*_DEFINITIONS, "properties")

# Keywords that Anthropic's grammar supports; all others are moved to the description.
_ANTHROPIC = {
    *("$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions"),
    *("description", "enum", "format", "items", "properties", "required", "title", "type"),
}
_ANTHROPIC_FORMATS = {
    *("date-time", "time", "date", "duration", "email"),
    *("hostname", "uri", "ipv4", "ipv6", "uuid"),
}


def for_anthropic(schema: _Schema, what: str) -> dict[str, Any]:
    """Convert a schema for Anthropic's structured output and strict tools.

    Every object is closed; bounds, defaults and the like are moved to the description. `what` is
    the argument that has the schema, for the error if part of it is not supported.
    """
    result = _with_any_of(_with_inner(schema, lambda inner: for_anthropic(inner, what)))
    if "$ref" in result:
        return _reference(result)
    if "type" not in result and "properties" in result:
        result["type"] = "object"
    if not result.keys() & {"type", "anyOf", "allOf", "enum", "const"}:
        if result.keys() - {*_DEFINITIONS, "title", "description", "default"}:
            raise _unsupported(what, schema, "it has no 'type'")
        raise _unsupported(what, schema, "anthropic cannot be asked for just any value")
    if result.get("type") == "object":
        more, properties = result.get("additionalProperties", False), result.get("properties", {})
        if more is not False and (more is not True or not properties):
            why = "keys that nobody has named (dict[str, ...]) are not possible there"
            raise _unsupported(what, schema, why)
        result |= {"properties": properties, "additionalProperties": False}
    keywords = {key: value for key, value in result.items() if _is_supported(key, value)}
    hints = result.keys() - keywords.keys() - {"$schema"}
    if hints:
        notes = "{" + ", ".join(f"{key}: {result[key]}" for key in result if key in hints) + "}"
        keywords["description"] = "\n\n".join(filter(None, [keywords.get("description"), notes]))
    return keywords


def for_openai(schema: _Schema) -> dict[str, Any]:
    """Convert a schema for OpenAI's `strict`: close every object and require all its keys."""
    result = _with_inner(schema, for_openai)
    if result.get("default", ...) is None:
        del result["default"]
    if "$ref" in result:
        return _reference(result)
    if result.get("type") == "object":
        result.setdefault("additionalProperties", False)
        result["required"] = [*result.setdefault("properties", {})]
    return result


def wrapped_in_object(schema: _Schema) -> _Schema:
    """Wrap a schema in that of an object, unless it is one already."""
    if schema.get("type") == "object":
        return schema
    named = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    value = {key: part for key, part in schema.items() if key not in named}
    return {
        "type": "object",
        "properties": {WRAPPER_KEY: value},
        "required": [WRAPPER_KEY],
        **named,
    }


def from_google(schema: _Schema) -> dict[str, Any]:
    """Convert a schema in Google's format, with types in capitals, to JSON schema."""
    result = _with_inner(schema, from_google)
    if isinstance(result.get("type"), str):
        result["type"] = result["type"].lower()
    return result


def _with_inner(schema: _Schema, change: Callable[[_Schema], dict[str, Any]]) -> dict[str, Any]:
    """Return a copy of the schema with each schema inside it changed."""

    def changed(inner: object) -> object:
        return change(cast("_Schema", inner)) if isinstance(inner, Mapping) else inner

    result = dict(schema)
    for key, value in schema.items():
        if key in _WITH_SCHEMA:
            result[key] = changed(value)
        elif key in _WITH_SCHEMAS and isinstance(value, (list, tuple)):
            result[key] = [changed(inner) for inner in cast("Sequence[object]", value)]
        elif key in _WITH_NAMED_SCHEMAS and isinstance(value, Mapping):
            named = cast("Mapping[str, object]", value)
            result[key] = {name: changed(inner) for name, inner in named.items()}
    return result


def _reference(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with `$ref`, beside which providers allow definitions only."""
    return {key: schema[key] for key in ("$ref", *_DEFINITIONS) if key in schema}


def _with_any_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace `oneOf`, and a list of types, by `anyOf`."""
    if "oneOf" in schema:
        schema.setdefault("anyOf", schema.pop("oneOf"))
    if not isinstance(schema.get("type"), list) or "enum" in schema:
        return schema
    types: list[str] = schema.pop("type")
    outer_keys = (*_DEFINITIONS, "title", "description")
    outer = {key: schema.pop(key) for key in outer_keys if key in schema}
    variants = [{"type": each, **(schema if each != "null" else {})} for each in types]
    return {**outer, "anyOf": variants}


def _is_supported(key: str, value: object) -> bool:
    if key == "format":
        return value in _ANTHROPIC_FORMATS
    return key in _ANTHROPIC or (key == "minItems" and value in (0, 1))


def _unsupported(what: str, schema: _Schema, why: str) -> ModelProviderError:
    text = str(schema)
    return ModelProviderError(
        f"{what}: {text if len(text) <= 120 else text[:117] + '...'} cannot be sent as a schema "
        f"to keep to: {why}; name the keys, or use a list of objects",
        {"param": what.partition("=")[0]},
    )
