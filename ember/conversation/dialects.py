"""A JSON schema in the dialect that a provider's constrained output takes; pure.

Source: the `anthropic` 2.12.0 package (`lib/_parse/_transform.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ember.exceptions import ModelProviderError

__all__ = ["for_anthropic"]

_Schema = Mapping[str, Any]
# Where schemas stand inside a schema: alone, in a list, by name.
_ONE = ("items", "not", "if", "then", "else", "contains")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("$defs", "definitions", "properties")

# What Anthropic's grammar knows; every other keyword is told to the model in the description.
_ANTHROPIC = {
    *("$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions"),
    *("description", "enum", "format", "items", "properties", "required", "title", "type"),
}
_ANTHROPIC_FORMATS = {
    *("date-time", "time", "date", "duration", "email"),
    *("hostname", "uri", "ipv4", "ipv6", "uuid"),
}


def for_anthropic(schema: _Schema, what: str) -> dict[str, Any]:
    """The schema for Anthropic's structured output and strict tools.

    Every object is closed; bounds, defaults and the like go into the description.

    Args:
        schema: The schema as the caller gave it.
        what: The argument that it came with, for messages.

    Raises:
        ModelProviderError: Something in it cannot be said.
    """
    made = _open_types(_each(schema, lambda inner: for_anthropic(inner, what)))
    if "$ref" in made:  # beside which nothing is allowed but the definitions
        return {key: made[key] for key in ("$ref", "$defs", "definitions") if key in made}
    if "type" not in made and "properties" in made:
        made["type"] = "object"
    if not made.keys() & {"type", "anyOf", "allOf", "enum", "const"}:
        if made.keys() - {"$defs", "definitions", "title", "description", "default"}:
            raise _unsayable(what, schema, "it has no 'type'")
        raise _unsayable(what, schema, "anthropic cannot be asked for just any value")
    if made.get("type") == "object":
        made = _closed(made, what, schema)
    kept: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in made.items():
        known = key in _ANTHROPIC or (key == "minItems" and value in (0, 1))
        known = known and (key != "format" or value in _ANTHROPIC_FORMATS)
        (kept if known else told)[key] = value
    told.pop("$schema", None)
    if told:
        notes = "{" + ", ".join(f"{key}: {value}" for key, value in told.items()) + "}"
        kept["description"] = "\n\n".join(filter(None, [kept.get("description"), notes]))
    return kept


def _each(schema: _Schema, change: Callable[[_Schema], dict[str, Any]]) -> dict[str, Any]:
    """A copy of the schema with each schema inside it changed."""
    made = dict(schema)
    for key in made.keys() & set(_ONE):
        if isinstance(made[key], Mapping):
            made[key] = change(cast("_Schema", made[key]))
    for key in made.keys() & set(_MANY):
        if isinstance(made[key], Sequence):
            parts = cast("Sequence[object]", made[key])
            made[key] = [change(cast("_Schema", p)) for p in parts if isinstance(p, Mapping)]
    for key in made.keys() & set(_NAMED):
        if isinstance(made[key], Mapping):
            named = cast("Mapping[str, object]", made[key])
            made[key] = {
                name: change(cast("_Schema", part)) if isinstance(part, Mapping) else part
                for name, part in named.items()
            }
    return made


def _open_types(made: dict[str, Any]) -> dict[str, Any]:
    """`oneOf`, and a list of types, as `anyOf`."""
    if "oneOf" in made:
        made.setdefault("anyOf", made.pop("oneOf"))
    if isinstance(made.get("type"), list) and "enum" not in made:
        types: list[str] = made.pop("type")
        about: dict[str, Any] = {
            key: made.pop(key) for key in ("title", "description") if key in made
        }
        outer: dict[str, Any] = {
            key: made.pop(key) for key in ("$defs", "definitions") if key in made
        }
        variants = [{"type": each, **(made if each != "null" else {})} for each in types]
        return {**outer, **about, "anyOf": variants}
    return made


def _closed(made: dict[str, Any], what: str, schema: _Schema) -> dict[str, Any]:
    more = made.get("additionalProperties", False)
    if more is not False and (more is not True or not made.get("properties")):
        raise _unsayable(
            what, schema, "keys that nobody has named (dict[str, ...]) are not possible there"
        )
    return {**made, "properties": made.get("properties", {}), "additionalProperties": False}


def _unsayable(what: str, schema: _Schema, why: str) -> ModelProviderError:
    shown = str(schema)
    return ModelProviderError(
        f"{what}: {shown if len(shown) <= 120 else shown[:117] + '...'} cannot be sent as a schema "
        f"to keep to: {why}; name the keys, or use a list of objects",
        {"param": what.partition("=")[0]},
    )
