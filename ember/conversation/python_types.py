"""Python types and functions as JSON schemas, and JSON values as objects of a type; pure.

A pydantic class creates its schema and validates values itself; pydantic is never imported here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from ember.conversation.dialects import WRAPPER_KEY
from ember.exceptions import ModelProviderError, ProviderAPIError
from ember.models.schemas import ChatResponse

_Schema = dict[str, Any]
_SCALARS: Mapping[object, _Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    object: {},
}
# Types written as strings in JSON: the format's name, and the function that parses the string.
_STRING_FORMATS: Mapping[object, tuple[str, Callable[[str], object]]] = {
    datetime: ("date-time", lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))),
    date: ("date", date.fromisoformat),
    time: ("time", lambda text: time.fromisoformat(text.replace("Z", "+00:00"))),
    UUID: ("uuid", UUID),
}


class _Definitions(dict[str, _Schema]):
    """The schemas of types by name, and the names of the types."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[object, str] = {}


def is_type(value: object) -> bool:
    """Return whether this is a type for JSON values, not a value."""
    return isinstance(value, type) or get_origin(value) is not None or _is_pydantic(value)


def type_schema(kind: object) -> _Schema:
    """Return the JSON schema of a type's values; raise a ModelProviderError if JSON has none."""
    if _is_pydantic(kind):
        return dict(cast("Any", kind).model_json_schema())
    definitions = _Definitions()
    schema = _schema(kind, definitions)
    if schema.keys() == {"$ref"}:
        # The outermost schema is inlined, as providers require an object there; a recursive one
        # stays in the definitions too.
        name = schema["$ref"].rpartition("/")[2]
        schema = dict(definitions[name])
        if f'"#/$defs/{name}"' not in json.dumps([schema, definitions]):
            del definitions[name]
    return {**schema, "$defs": definitions} if definitions else schema


def function_schema(function: Callable[..., Any]) -> tuple[str, str | None, _Schema]:
    """Return a function as a tool: its name, its description and the schema of its arguments.

    The descriptions come from the docstring; those of arguments from `Annotated[int, "..."]`, the
    docstring's `Args:` section (Google style) or `:param name:` lines.
    """
    named: Any = function
    if isinstance(named, functools.partial):
        named = cast("Any", named).func
    name = getattr(named, "__name__", type(named).__name__)
    method = "__init__" if isinstance(named, type) else "__call__"  # of another callable
    hints = _hints(named if inspect.isroutine(named) else getattr(named, method))
    try:
        parameters = inspect.signature(function).parameters
    except ValueError as error:
        raise ModelProviderError(f"the tool {name!r} has no signature: {error}") from error
    summary, descriptions = _docstring(inspect.getdoc(named) or "")
    definitions = _Definitions()
    properties: dict[str, _Schema] = {}
    required: list[str] = []
    for key, parameter in parameters.items():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ModelProviderError(
                f"the tool {name!r}: its parameter {key!r} cannot be passed by name, as a call of "
                "the model is: make it an ordinary parameter"
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        about = {"description": descriptions[key]} if key in descriptions else {}
        schema = {**about, **_schema(hints.get(key, Any), definitions)}
        if parameter.default is parameter.empty:
            required.append(key)
        elif isinstance(parameter.default, (str, int, float, bool)):
            schema["default"] = parameter.default
        properties[key] = schema
    result: _Schema = {"type": "object", "properties": properties, "required": required}
    return name, summary or None, {**result, "$defs": definitions} if definitions else result


def with_parsed(kind: object, response: ChatResponse) -> ChatResponse:
    """Return the response with its text parsed to an object of this type, as `parsed`.

    A refusal, and an answer that calls tools, is returned unchanged.

    Raises:
        ProviderAPIError: The text does not fit the type (`bad_response`); the context has the
            text as `partial_text`, and the whole response.
    """
    if kind is None or isinstance(kind, Mapping):
        return response
    if response.refusal or response.finish_reason in ("tool_calls", "content_filter"):
        return response
    try:
        return dataclasses.replace(response, parsed=parsed(kind, response.text))
    except Exception as error:  # whatever the type's own checks raise
        provider, model, text = response.provider, response.model, response.text
        cut = " (it was cut off at max_tokens=)" if response.finish_reason == "length" else ""
        shortened = text if len(text) <= 200 else text[:197] + "..."
        context = {
            "error_type": "bad_response",
            "provider": provider,
            "model": model,
            "request_id": response.request_id,
            "body": response.raw,
            "phase": "read",
            "partial_text": text,
            "usage": response.usage.as_dict(),
            "response": response,  # it is paid for
        }
        what = f"the answer{cut} is no {getattr(kind, '__name__', kind)}: {shortened!r} ({error})"
        raise ProviderAPIError(f"{provider} ({model}): {what}", context) from error


def parsed(kind: object, text: str) -> Any:
    """Parse a JSON text to an object of a type; raise a ValueError that says what does not fit."""
    if _WRAPPED.match(text) and type_schema(kind).get("type") != "object":
        text = json.dumps(json.loads(text)[WRAPPER_KEY])
    if _is_pydantic(kind):
        return cast("Any", kind).model_validate_json(text)
    return _value(kind, json.loads(text), "the answer")


# An object around another value, which some providers require.
_WRAPPED = re.compile(rf'\s*{{\s*"{WRAPPER_KEY}"\s*:')


def _is_among(table: Mapping[Any, object], kind: object) -> bool:
    return isinstance(kind, Hashable) and kind in table


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_pydantic(kind: object) -> bool:
    return callable(getattr(kind, "model_json_schema", None))


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except (NameError, TypeError) as error:
        raise ModelProviderError(
            f"the annotations of {kind!r} cannot be read: {error}; define what they name at the "
            "module's top level"
        ) from error


def _fields_of(kind: Any) -> list[tuple[str, object, bool]] | None:
    """Return a dataclass's or TypedDict's fields as name, type and whether required; else None."""
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        missing = dataclasses.MISSING
        return [
            (each.name, hints[each.name], each.default is each.default_factory is missing)
            for each in dataclasses.fields(kind)
            if each.init
        ]
    if typing.is_typeddict(kind) or hasattr(kind, "__required_keys__"):
        required = kind.__required_keys__
        return [(name, hint, name in required) for name, hint in _hints(kind).items()]
    return None


def _schema(kind: Any, definitions: _Definitions) -> _Schema:
    if _is_among(_SCALARS, kind):
        return dict(_SCALARS[kind])
    if _is_among(_STRING_FORMATS, kind):
        return {"type": "string", "format": _STRING_FORMATS[kind][0]}
    if _is_pydantic(kind):
        schema: _Schema = dict(kind.model_json_schema())
        definitions |= schema.pop("$defs", {})
        return schema
    if (fields := _fields_of(kind)) is not None:
        return _object_schema(kind, fields, definitions)
    if _is_enum(kind):
        return {"enum": [member.value for member in kind]}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated or origin in _QUALIFIERS:
        notes = [note for note in arguments[1:] if isinstance(note, str)]
        schema = _schema(arguments[0], definitions)
        return {"description": notes[0], **schema} if notes else schema
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        union: _Schema = {"anyOf": [_schema(each, definitions) for each in arguments]}
        # Python 3.10 makes `Annotated[T, "..."] = None` a union of that and None.
        described = [each for each in union["anyOf"] if "description" in each]
        if len(described) == 1 and any(get_origin(each) is Annotated for each in arguments):
            union["description"] = described[0]["description"]
        return union
    collection: Any = origin or kind
    if collection is tuple and arguments and arguments[-1] is not Ellipsis:
        parts = [_schema(each, definitions) for each in arguments]
        count = len(parts)
        return {"type": "array", "prefixItems": parts, "minItems": count, "maxItems": count}
    if collection in _LISTS:
        return {"type": "array", "items": _schema(arguments[0], definitions) if arguments else {}}
    if collection in _DICTS:
        values = _schema(arguments[1], definitions) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values or True}
    raise ModelProviderError(
        f"JSON cannot say {kind!r}: pass a pydantic class, a dataclass, a TypedDict, an Enum, a "
        "Literal, or list, dict, tuple or a union of such"
    )


_LISTS: tuple[object, ...] = (list, tuple, set, frozenset, Sequence)
_DICTS: tuple[object, ...] = (dict, Mapping)


def _object_schema(
    kind: Any, fields: list[tuple[str, object, bool]], definitions: _Definitions
) -> _Schema:
    if (name := definitions.names.get(kind)) is None:
        name = str(kind.__name__)
        while name in definitions:  # another type has this name
            name += "_"
        definitions.names[kind] = name
        definitions[name] = {}  # a type may contain itself
        _, descriptions = _docstring(inspect.getdoc(kind) or "")
        properties: dict[str, _Schema] = {}
        for key, hint, _ in fields:
            about = {"description": descriptions[key]} if key in descriptions else {}
            properties[key] = {**about, **_schema(hint, definitions)}
        definitions[name] = {
            "type": "object",
            "title": name,
            "properties": properties,
            "required": [key for key, _, required in fields if required],
        }
    return {"$ref": f"#/$defs/{name}"}


_SECTION = re.compile(r"^(?:(Args|Arguments|Attributes|Parameters)|\w[\w ]*):[ ]*\n", re.MULTILINE)
_ENTRY = re.compile(r"^\**(\w+)(?: *\([^)\n]*\))?:[ ]*(.*(?:\n[ ]+.*)*)", re.MULTILINE)
_PARAM = re.compile(r"^:param (?:[^:\n]* )?(\w+):[ ]*(.*(?:\n[ ]+.*)*)", re.MULTILINE)


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before a docstring's sections, and the description of each argument."""
    sections = [*_SECTION.finditer(text), *re.finditer(r"^:\w", text, re.MULTILINE)]
    about = text[: min((section.start() for section in sections), default=len(text))].strip()
    found = [*_PARAM.findall(text)]
    for section in sections:
        if section.re is _SECTION and section[1]:
            indented = re.match(r"(?:[ ]+.*\n?|[ ]*\n)*", text[section.end() :])
            found += _ENTRY.findall(textwrap.dedent(indented[0] if indented else ""))
    return about, {name: " ".join(words.split()) for name, words in found}


def _value(kind: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to an object of a type; `where` is its place, for the ValueError."""
    if kind is Any or kind is object:
        return value
    if _is_pydantic(kind):
        return kind.model_validate(value)
    if (fields := _fields_of(kind)) is not None:
        return _object(kind, fields, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated or origin in _QUALIFIERS:
        return _value(arguments[0], value, where)
    if origin in (Union, types.UnionType):
        for each in arguments:
            try:
                return _value(each, value, where)
            except ValueError:
                continue
    elif origin is Literal:
        same = (each for each in arguments if each == value and type(each) is type(value))
        if (found := next(same, _MISSING)) is not _MISSING:
            return found
    elif _is_enum(kind):
        return kind(value)
    elif _is_among(_STRING_FORMATS, kind) and isinstance(value, str):
        return _STRING_FORMATS[kind][1](value)
    elif (origin or kind) in _LISTS and isinstance(value, list):
        return _list(origin or kind, arguments, cast("list[object]", value), where)
    elif (origin or kind) in _DICTS and isinstance(value, dict):
        inner = arguments[1] if len(arguments) == 2 else Any
        items = cast("dict[str, object]", value).items()
        return {key: _value(inner, each, f"{where}[{key!r}]") for key, each in items}
    elif kind is float and type(value) is int:
        return float(value)
    elif (kind is None and value is None) or type(value) is kind:
        return value
    name = str(kind).replace("typing.", "") if arguments else getattr(kind, "__name__", kind)
    raise ValueError(f"{where} is {value!r}, which is no {name}")


_MISSING = object()
# Qualifiers of a TypedDict's fields; `typing` has them since Python 3.11.
_QUALIFIERS = {getattr(typing, name, None) for name in ("Required", "NotRequired", "ReadOnly")} - {
    None
}


def _list(origin: Any, arguments: Sequence[Any], values: list[object], where: str) -> Any:
    make: Any = list if origin is Sequence else origin
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(values) != len(arguments):
            raise ValueError(f"{where} has {len(values)} items, not {len(arguments)}")
        kinds: Sequence[Any] = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(values)
    pairs = enumerate(zip(kinds, values, strict=True))
    return make([_value(kind, each, f"{where}[{at}]") for at, (kind, each) in pairs])


def _object(kind: Any, fields: list[tuple[str, object, bool]], value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}, which is no {kind.__name__}")
    given = cast("dict[str, object]", value)
    if missing := [key for key, _, required in fields if required and key not in given]:
        raise ValueError(f"{where} has no {', '.join(map(repr, missing))}")
    if unknown := given.keys() - {key for key, _, _ in fields}:
        raise ValueError(f"{where} has {', '.join(map(repr, sorted(unknown)))} beside the fields")
    present = [(key, hint) for key, hint, _ in fields if key in given]
    return kind(**{key: _value(hint, given[key], f"{where}.{key}") for key, hint in present})
