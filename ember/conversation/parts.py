"""Parts of a message, from the formats of callers and providers; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from ember.conversation.media import (
    MEDIA_SUFFIXES,
    Media,
    from_base64,
    from_bytes,
    from_image,
    from_path,
    from_url,
    is_image,
    mime_type_of_name,
)
from ember.exceptions import ModelProviderError
from ember.models.schemas import ToolCall

__all__ = [
    "NativePart",
    "Part",
    "Text",
    "ToolResult",
    "arguments_text",
    "as_mapping",
    "call_id_for",
    "excerpt",
    "is_output_item",
    "needed",
    "output_item",
    "parsed_arguments",
    "part_of",
    "tool_call",
    "translate_parts",
]

_NOTHING: Mapping[str, Any] = {}


class Text(NamedTuple):
    """A piece of text."""

    text: str


class ToolResult(NamedTuple):
    """The result of a tool call."""

    id: str
    name: str
    content: Any
    is_error: bool = False

    @property
    def text_parts(self) -> Sequence[Mapping[str, Any]]:
        """The content's items if all are text in a provider's format, else empty."""
        given: object = self.content
        items = cast("list[object]", given) if isinstance(given, list) else []
        return [as_mapping(item) for item in items] if all(map(_is_text_part, items)) else ()

    @property
    def text(self) -> str:
        """The content as text; encoded as JSON if it is neither text nor text parts."""
        if isinstance(self.content, str):
            return self.content
        if parts := self.text_parts:
            return "".join(part["text"] for part in parts)
        try:
            return json.dumps(self.content, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ModelProviderError(
                f"the result of the tool call {self.id!r} cannot be sent as JSON: {error}"
            ) from error

    def with_error_in_text(self) -> ToolResult:
        """Return the result for a wire without a flag for errors: its text says "Error"."""
        given: object = self.content
        items = cast("list[object]", given) if isinstance(given, (list, tuple)) else [given]
        begins = given if isinstance(given, str) else ""
        if not self.is_error or begins.lower().startswith("error"):
            return self
        if self.text_parts or any(map(_is_medium, items)):
            return self._replace(content=[{"type": "text", "text": "Error: "}, *items])
        return self._replace(content=f"Error: {self.text}")

    def parts_with_media(self, wire: str) -> list[Part]:
        """Return the content as parts for one wire if it contains media, else an empty list.

        Such content is bytes, a `Path`, an image, or a list of these, text and parts in any
        provider's format. Any other content is data, and is sent as `text`.
        """
        given: object = self.content
        items = cast("list[object]", given) if isinstance(given, (list, tuple)) else [given]
        if not any(map(_is_medium, items)):
            return []
        if not all(
            isinstance(item, str) or _is_text_part(item) or _is_medium(item) for item in items
        ):
            return []
        parts = [Text(item) if isinstance(item, str) else part_of(item) for item in items]
        return translate_parts(wire, parts)


def _is_text_part(part: object) -> bool:
    item = as_mapping(part)
    kinds = ("text", "input_text", "output_text")
    return item.get("type") in kinds and isinstance(item.get("text"), str)


def _is_medium(item: object) -> bool:
    """Return whether this is an image, file or audio, in Ember's format or a provider's."""
    if isinstance(item, (Media, bytes, bytearray, Path)) or is_image(item):
        return True
    return isinstance(item, Mapping) and _words_of(cast("Mapping[str, Any]", item)) is not None


class NativePart(NamedTuple):
    """A part in one provider's own format, sent to that provider unchanged.

    Args:
        value: The part.
        wire: The wire of this format, or several separated by spaces; "" if it is unknown.
        equivalents: The parts to send to any other wire; empty for reasoning. None for a medium,
            which is read when another wire needs it.
    """

    value: Mapping[str, Any]
    wire: str = ""
    equivalents: Sequence[Part] | None = ()


Part: TypeAlias = "Text | Media | ToolCall | ToolResult | NativePart"


def translate_parts(wire: str, parts: Sequence[Part]) -> list[Part]:
    """Return the parts for one wire, translating those in another wire's format.

    Raises:
        ModelProviderError: A medium in another wire's format cannot be read.
    """
    translated: list[Part] = []
    for part in parts:
        if not isinstance(part, NativePart) or not part.wire or wire in part.wire.split():
            translated.append(part)
        else:
            translated += [_medium(part.value)] if part.equivalents is None else part.equivalents
    return translated


def part_of(item: object) -> Part:
    """Convert a caller's item to a part.

    Raises:
        ModelProviderError: The item cannot be sent.
    """
    if isinstance(item, (Text, Media, ToolCall, ToolResult, NativePart)):
        return item
    if isinstance(item, str):
        return _from_string(item)
    if isinstance(item, (bytes, bytearray)):
        return from_bytes(bytes(item))
    if isinstance(item, Path):
        return from_path(item)
    if isinstance(item, Mapping):
        return _from_mapping(cast("Mapping[str, Any]", item))
    if is_image(item):
        return from_image(item)
    raise ModelProviderError(
        f"a prompt's part cannot be {excerpt(item)}: pass text, bytes, a Path, a URL, an image or "
        "a dict in the provider's own words"
    )


# With a type or a flag before the comma, and without blanks: "data: 1, 2, 3" is text.
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+|(?=;))(;[^\s,;]+)*,")


# Anything that looks like a file name or path, whether or not the file exists.
_FILE_NAME = re.compile(rf"\S*[^\s/\\]\.({'|'.join(MEDIA_SUFFIXES)})", re.IGNORECASE)


def _from_string(item: str) -> Part:
    """Return text, or a medium if the whole string is one URL of a media file."""
    if _DATA_URL.match(item):
        return from_url(item)
    if item.startswith(("https://", "http://")) and not any(c.isspace() for c in item):
        mime_type = mime_type_of_name(item)
        is_media = mime_type.startswith(("image/", "audio/", "video/"))
        return Media(mime_type, url=item) if is_media or "/pdf" in mime_type else Text(item)
    if _FILE_NAME.fullmatch(item.strip()):
        raise ModelProviderError(
            f"the part {excerpt(item)} is the name of a file and would be sent as text: pass "
            f"Path({item.strip()!r}) for the file, or {{'type': 'text', 'text': ...}} for the name"
        )
    return Text(item)


def _image_url(item: Mapping[str, Any]) -> Media:
    # An object in chat completions, a plain string in the Responses API.
    image = item["image_url"]
    given = item if isinstance(image, str) else needed(item, "image_url", Mapping)
    url = image if isinstance(image, str) else needed(given, "url", str)
    return from_url(url, None if isinstance(given, str) else _label(given, "detail") or None)


def _source(item: Mapping[str, Any]) -> Media:
    source = needed(item, "source", Mapping)
    if source["type"] == "url":
        media = from_url(needed(source, "url", str))
        return (
            media if media.mime_type or item["type"] == "image" else media._replace(mime_type=_PDF)
        )
    return from_base64(needed(source, "data", str), _label(source, "media_type"))


def _file(item: Mapping[str, Any]) -> Media:
    file = item if item.get("type") == "input_file" else needed(item, "file", Mapping)
    name = _label(file, "filename") or None
    data = needed(file, "file_url" if file.get("file_url") else "file_data", str)
    if not data.startswith(("data:", "https://", "http://")):  # OpenRouter takes a URL here
        return from_base64(data, _PDF)._replace(name=name)
    media = from_url(data)
    return media._replace(mime_type=media.mime_type or _PDF, name=name)


def _document_url(item: Mapping[str, Any]) -> Media:
    media = from_url(needed(item, "document_url", str))
    return media._replace(mime_type=media.mime_type or _PDF)


def _video_url(item: Mapping[str, Any]) -> Media:
    media = from_url(needed(needed(item, "video_url", Mapping), "url", str))
    return media._replace(mime_type=media.mime_type or "video/mp4")


def _stored(item: Mapping[str, Any]) -> Media:
    raise ModelProviderError(
        f"{excerpt(dict(item))} cannot be sent to another provider: the file is stored with its "
        "own; pass the bytes or a Path"
    )


def _input_audio(item: Mapping[str, Any]) -> Media:
    sound = needed(item, "input_audio", Mapping)
    return from_base64(needed(sound, "data", str), mime_type_of_name(f"x.{sound.get('format')}"))


def _googles(item: Mapping[str, Any]) -> Media:
    part = _in_camel_case(item)
    if "inlineData" in part:
        data = _in_camel_case(needed(part, "inlineData", Mapping))
        return from_base64(needed(data, "data", str), _label(data, "mimeType"))
    file = _in_camel_case(needed(part, "fileData", Mapping))
    media = from_url(needed(file, "fileUri", str))
    return media._replace(mime_type=_label(file, "mimeType") or media.mime_type)


def _in_camel_case(item: Mapping[str, Any]) -> dict[str, Any]:
    """Convert Google's keys, which its package writes with underscores, to camel case."""
    return {re.sub("_([a-z])", lambda c: c[1].upper(), key): item[key] for key in item}


def _label(item: Mapping[str, Any], *keys: str) -> str:
    """Return the first text under one of these keys, else ""."""
    return next((item[key] for key in keys if isinstance(item.get(key), str)), "")


def _mcp(item: Mapping[str, Any]) -> Media:
    return from_base64(needed(item, "data", str), needed(item, "mimeType", str))


_PDF = "application/pdf"
_SOURCES = ("base64", "url")


class _Words(NamedTuple):
    """A provider's format of a medium: its wire, and the function that reads it."""

    wire: str
    read: Callable[[Mapping[str, Any]], Media]


_BY_TYPE = {
    "input_audio": _Words("chat", _input_audio),
    "document_url": _Words("chat", _document_url),  # Mistral's
    "video_url": _Words("chat", _video_url),  # OpenRouter's
    "container_upload": _Words("anthropic", _stored),
}


def _words_of(item: Mapping[str, Any]) -> _Words | None:
    """Return the format of a medium, or of a file that only its owner has, else None."""
    kind = item.get("type")
    if kind in ("image_url", "input_image") and item.get("image_url"):
        return _Words("chat" if kind == "image_url" else "openai-responses", _image_url)
    if kind in ("image", "document") and "source" in item:
        known = as_mapping(item["source"]).get("type") in _SOURCES
        return _Words("anthropic", _source if known else _stored)
    if kind in ("image", "audio") and "data" in item and "mimeType" in item:
        return _Words("mcp", _mcp)
    if kind in ("input_file", "input_image"):
        return _Words("openai-responses", _stored if item.get("file_id") else _file)
    if kind == "file":
        return _Words("chat", _file if "file_data" in as_mapping(item.get("file")) else _stored)
    if kind is None:
        return None if item.keys().isdisjoint(_GOOGLES_MEDIA) else _Words("google", _googles)
    return _BY_TYPE.get(kind) if isinstance(kind, str) else None


def _medium(item: Mapping[str, Any]) -> Media:
    words = _words_of(item)
    assert words is not None
    return words.read(item)


def _from_mapping(item: Mapping[str, Any]) -> Part:
    """Convert a part in a provider's format; translate it if every format has an equivalent."""
    kind = item.get("type")
    if kind in ("text", "input_text", "output_text"):
        text_part = Text(needed(item, "text", str))
        if set(item) <= _TEXT_KEYS and not item.get("citations"):
            return text_part
        # Anthropic's search citations are sent back with their text; cache markers are accepted
        # by some servers of chat completions as well.
        owners = "anthropic chat" if kind == "text" else "openai-responses"
        return NativePart(item, "anthropic" if item.get("citations") else owners, (text_part,))
    if kind is None and not item.keys().isdisjoint(_UNDERSCORED):
        camel = _from_mapping(_in_camel_case(item))
        meaning = camel.equivalents if isinstance(camel, NativePart) else (camel,)
        return NativePart(item, "google", meaning)
    if set(item) == {"text"}:
        return Text(needed(item, "text", str))
    if kind == "refusal":
        return Text(needed(item, "refusal", str))
    if kind == "document" and as_mapping(item.get("source")).get("type") == "text":
        return NativePart(item, "anthropic", (Text(needed(item["source"], "data", str)),))
    if words := _words_of(item):
        # Both of OpenAI's wires describe an image by the same fields, and so does Ember.
        same = words.read is _image_url and set(item) <= {"type", "image_url", "detail"}
        return (
            words.read(item) if same or words.wire == "mcp" else NativePart(item, words.wire, None)
        )
    if kind == "tool_use":
        call_id, name = needed(item, "id", str), needed(item, "name", str)
        call = ToolCall(call_id, name, item.get("input", {}))
        whole = set(item) <= {"type", "id", "name", "input"}
        return call if whole else NativePart(item, "anthropic", (call,))
    if kind == "tool_result":
        is_error = bool(item.get("is_error", False))
        call_id = needed(item, "tool_use_id", str)
        return ToolResult(call_id, "", item.get("content", ""), is_error)
    if kind in ("thinking", "reasoning") and not isinstance(item.get("thinking"), str):
        return NativePart(item, "chat")  # Mistral's: a list of parts
    if isinstance(kind, str) and _ANTHROPIC_ONLY.fullmatch(kind):
        return NativePart(item, "anthropic")
    if item.get("functionCall"):
        asked = needed(item, "functionCall", Mapping)
        name, signature = needed(asked, "name", str), item.get("thoughtSignature")
        return ToolCall(_id(asked), name, asked.get("args", {}), signature)
    if item.get("functionResponse"):
        result = needed(item, "functionResponse", Mapping)
        name = needed(result, "name", str)
        given = ToolResult(_id(result) or name, name, needed(result, "response", Mapping))
        # The part may also contain media, and the call's id.
        whole = set(item) == {"functionResponse"} and set(result) <= {"id", "name", "response"}
        return given if whole else NativePart(item, "google", (given,))
    if not item.keys().isdisjoint(_GOOGLE_ONLY):
        text = item.get("text")
        is_visible = isinstance(text, str) and not item.get("thought")
        return NativePart(item, "google", (Text(str(text)),) if is_visible else ())
    return NativePart(item)


_TEXT_KEYS = {"type", "text", "annotations", "citations", "logprobs"}
# The parts of these wires' answers other than text and calls of the caller's tools.
_ANTHROPIC_ONLY = re.compile(
    r"(redacted_)?thinking|(server|mcp)_tool_use|.*_tool_result|compaction|tool_(addition|removal)"
)
# Google accepts these names too.
_UNDERSCORED = {
    *("function_call", "function_response", "thought_signature"),
    *("executable_code", "code_execution_result"),
}
_GOOGLES_MEDIA = ("inlineData", "inline_data", "fileData", "file_data")
_GOOGLE_ONLY = ("thought", "thoughtSignature", "executableCode", "codeExecutionResult")


def tool_call(call: object) -> ToolCall | NativePart:
    """Convert a `ToolCall`, or a tool call in OpenAI's format, to a part.

    Raises:
        ModelProviderError: The call does not name a tool.
    """
    if isinstance(call, ToolCall):
        return call
    item = as_mapping(call)
    function = as_mapping(item.get("function") or item.get("custom") or item)
    if not isinstance(function.get("name"), str):
        raise ModelProviderError(
            f"{excerpt(call)} is not a tool call: pass the ToolCall of a response, or a dict with "
            "'id', 'name' and 'arguments'"
        )
    # Text is kept, so that wires that expect text get it back unchanged.
    arguments: object = function.get("arguments", function.get("input")) or {}
    meant = ToolCall(_id(item), function["name"], arguments)
    # A custom tool's input is not JSON; Google's compatible endpoint wants its signature back.
    own = item.get("type") == "custom" or "extra_content" in item
    return NativePart(item, "chat", (meant,)) if own else meant


def call_id_for(call_id: str, allowed: str) -> str:
    """Return a tool call's id as a wire accepts it; the same for a call and its result.

    Args:
        call_id: The original id of the call.
        allowed: A regular expression for the ids that the wire accepts.
    """
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
    ids = (call_id, f"call_{digest[:24]}", digest[:9])
    return next(each for each in ids if re.fullmatch(allowed, each))


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else _NOTHING


def needed(item: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return the value of a required key, which must be of this type.

    Raises:
        ModelProviderError: The key is missing or has another type.
    """
    value = item.get(key)
    if not isinstance(value, kind) or (isinstance(value, str) and kind is not str):
        raise ModelProviderError(
            f"{excerpt(dict(item))} cannot be sent: its {key!r} must be a {kind.__name__}, "
            f"not {excerpt(value)}"
        )
    return value


def _id(item: Mapping[str, Any], key: str = "id") -> str:
    """Return the id of a call, or "" if it has none."""
    return needed(item, key, str) if item.get(key) else ""


def parsed_arguments(arguments: object) -> Any:
    """Return a tool's arguments as a dict, or the model's text if it is not a JSON object."""
    if arguments is None:
        return {}  # a tool without arguments
    if not isinstance(arguments, str):
        return arguments
    try:
        value: Any = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(value, dict):
        return arguments
    if "\\ud" in arguments or "\\uD" in arguments:  # unpaired surrogates cannot be sent
        text = json.dumps(value, ensure_ascii=False)
        value = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return cast("dict[str, Any]", value)


def arguments_text(arguments: object) -> str:
    """Return a tool's arguments as the JSON text that OpenAI expects."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def is_output_item(item: object) -> bool:
    """Return whether this is an output item, as in the content of a Responses answer's message."""
    kind = as_mapping(item).get("type")
    return isinstance(kind, str) and _OUTPUT_ITEM.fullmatch(kind) is not None


_OUTPUT_ITEM = re.compile(r"message|reasoning|.*_call|mcp_(list_tools|approval_request)")


def output_item(item: object) -> Part:
    """Convert an output item of a Responses answer; only other wires get it translated.

    Raises:
        ModelProviderError: The item lacks a field that its type requires.
    """
    fields = as_mapping(item)
    kind = fields.get("type")
    meaning: list[Part] = []
    if kind == "message":
        meaning += [part_of(part) for part in needed(fields, "content", Sequence)]
    elif kind in ("function_call", "custom_tool_call"):
        arguments: object = fields.get("arguments", fields.get("input")) or {}
        name = needed(fields, "name", str)
        meaning += [ToolCall(_id(fields, "call_id"), name, arguments)]
    return NativePart(fields, "openai-responses", meaning)


def excerpt(value: object) -> str:
    """Format a value for an error message: shortened, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
