"""JSON schemas in the dialects of providers' constrained outputs; pure.

Sources: the `anthropic` 2.12.0 package (`lib/_parse/_transform.py`) and the `openai` 3.54.0 package
(`lib/_pydantic.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ember.exceptions import ModelProviderError

__all__ = ["WRAPPER_KEY", "for_anthropic", "for_openai", "from_google", "wrapped_in_object"]

WRAPPER_KEY = "value"
"""The key of a value in the object that wraps it, if providers require an object."""

_Schema = Mapping[str, Any]
# Keywords that contain schemas: a single one, a list, or a mapping by name.
_ONE = ("items", "not", "if", "then", "else", "contains")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("$defs", "definitions", "properties")

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

    Every object is closed; bounds, defaults and the like are moved to the description.

    Args:
        schema: The caller's schema.
        what: The argument that contains it, for error messages.

    Raises:
        ModelProviderError: Part of the schema is not supported.
    """
    result = _open_types(_each(schema, lambda inner: for_anthropic(inner, what)))
    if "$ref" in result:  # only definitions are allowed beside it
        return {key: result[key] for key in ("$ref", "$defs", "definitions") if key in result}
    if "type" not in result and "properties" in result:
        result["type"] = "object"
    if not result.keys() & {"type", "anyOf", "allOf", "enum", "const"}:
        if result.keys() - {"$defs", "definitions", "title", "description", "default"}:
            raise _unsayable(what, schema, "it has no 'type'")
        raise _unsayable(what, schema, "anthropic cannot be asked for just any value")
    if result.get("type") == "object":
        result = _closed(result, what, schema)
    keywords: dict[str, Any] = {}
    hints: dict[str, Any] = {}
    for key, value in result.items():
        known = key in _ANTHROPIC or (key == "minItems" and value in (0, 1))
        known = known and (key != "format" or value in _ANTHROPIC_FORMATS)
        (keywords if known else hints)[key] = value
    hints.pop("$schema", None)
    if hints:
        notes = "{" + ", ".join(f"{key}: {value}" for key, value in hints.items()) + "}"
        keywords["description"] = "\n\n".join(filter(None, [keywords.get("description"), notes]))
    return keywords


def for_openai(schema: _Schema) -> dict[str, Any]:
    """Convert a schema for OpenAI's `strict`: close every object and require all its keys."""
    result = _each(schema, for_openai)
    if result.get("default", ...) is None:
        del result["default"]
    if "$ref" in result:  # only definitions are allowed beside it
        return {key: result[key] for key in ("$ref", "$defs", "definitions") if key in result}
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
    result = _each(schema, from_google)
    if isinstance(result.get("type"), str):
        result["type"] = result["type"].lower()
    return result


def _each(schema: _Schema, change: Callable[[_Schema], dict[str, Any]]) -> dict[str, Any]:
    """Return a copy of the schema with each schema inside it changed."""
    result = dict(schema)
    for key in result.keys() & set(_ONE):
        if isinstance(result[key], Mapping):
            result[key] = change(cast("_Schema", result[key]))
    for key in result.keys() & set(_MANY):
        if isinstance(result[key], Sequence):
            parts = cast("Sequence[object]", result[key])
            result[key] = [change(cast("_Schema", p)) for p in parts if isinstance(p, Mapping)]
    for key in result.keys() & set(_NAMED):
        if isinstance(result[key], Mapping):
            named = cast("Mapping[str, object]", result[key])
            result[key] = {
                name: change(cast("_Schema", part)) if isinstance(part, Mapping) else part
                for name, part in named.items()
            }
    return result


def _open_types(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace `oneOf`, and a list of types, by `anyOf`."""
    if "oneOf" in schema:
        schema.setdefault("anyOf", schema.pop("oneOf"))
    if isinstance(schema.get("type"), list) and "enum" not in schema:
        types: list[str] = schema.pop("type")
        about: dict[str, Any] = {
            key: schema.pop(key) for key in ("title", "description") if key in schema
        }
        outer: dict[str, Any] = {
            key: schema.pop(key) for key in ("$defs", "definitions") if key in schema
        }
        variants = [{"type": each, **(schema if each != "null" else {})} for each in types]
        return {**outer, **about, "anyOf": variants}
    return schema


def _closed(result: dict[str, Any], what: str, schema: _Schema) -> dict[str, Any]:
    more = result.get("additionalProperties", False)
    if more is not False and (more is not True or not result.get("properties")):
        raise _unsayable(
            what, schema, "keys that nobody has named (dict[str, ...]) are not possible there"
        )
    return {**result, "properties": result.get("properties", {}), "additionalProperties": False}


def _unsayable(what: str, schema: _Schema, why: str) -> ModelProviderError:
    text = str(schema)
    return ModelProviderError(
        f"{what}: {text if len(text) <= 120 else text[:117] + '...'} cannot be sent as a schema "
        f"to keep to: {why}; name the keys, or use a list of objects",
        {"param": what.partition("=")[0]},
    )
