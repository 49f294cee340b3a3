"""Parts of a message, from the formats of callers and providers; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
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

_NO_FIELDS: Mapping[str, Any] = {}


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
    def _items(self) -> Sequence[object]:
        content: object = self.content
        if isinstance(content, (list, tuple)):
            return cast("Sequence[object]", content)
        return [content]

    @property
    def text_parts(self) -> Sequence[Mapping[str, Any]]:
        """The content's items if all are text in a provider's format, else empty."""
        if isinstance(self.content, list) and all(map(_is_text_part, self._items)):
            return [as_mapping(item) for item in self._items]
        return ()

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
        text = self.content if isinstance(self.content, str) else ""
        if not self.is_error or text.lower().startswith("error"):
            return self
        if self.text_parts or any(map(_is_media, self._items)):
            return self._replace(content=[{"type": "text", "text": "Error: "}, *self._items])
        return self._replace(content=f"Error: {self.text}")

    def parts_with_media(self, wire: str) -> list[Part]:
        """Return the content as parts for one wire if it has media; else it is sent as `text`.

        Such content is bytes, a `Path`, an image, or a list of these, text and parts in any
        provider's format.
        """
        others = [item for item in self._items if not _is_media(item)]
        are_text = all(isinstance(item, str) or _is_text_part(item) for item in others)
        if len(others) == len(self._items) or not are_text:
            return []
        parts = [Text(item) if isinstance(item, str) else as_part(item) for item in self._items]
        return translate_parts(parts, wire)


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


def translate_parts(parts: Sequence[Part], wire: str) -> list[Part]:
    """Return the parts for one wire, translating those in another wire's format."""
    translated: list[Part] = []
    for part in parts:
        if not isinstance(part, NativePart) or not part.wire or wire in part.wire.split():
            translated.append(part)
        elif part.equivalents is None and (media_format := _media_format(part.value)):
            translated.append(_media(part.value, *media_format))
        else:
            translated += part.equivalents or ()
    return translated


def as_part(item: object) -> Part:
    """Convert a caller's item to a part; raise a ModelProviderError if it cannot be sent."""
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


_PDF = "application/pdf"
# Media by the part's type, or by the key of Google's parts: the wire that has this format, the key
# of the content, and the MIME type if nothing shows it.
_MEDIA_FORMATS = {
    "image_url": ("chat", "url", ""),
    "input_audio": ("chat", "data", ""),
    "file": ("chat", "file_data", _PDF),
    "document_url": ("chat", "document_url", _PDF),  # Mistral's
    "video_url": ("chat", "url", "video/mp4"),  # OpenRouter's
    "input_image": ("openai-responses", "image_url", ""),
    "input_file": ("openai-responses", "file_data", _PDF),
    "image": ("anthropic", "data", ""),
    "document": ("anthropic", "data", _PDF),
    "container_upload": ("anthropic", "data", ""),
    "inlineData": ("google", "data", ""),
    "fileData": ("google", "fileUri", ""),
}
# The content is in one of these objects, or in the part itself; these other keys may have it.
_MEDIA_OBJECTS = (
    *("image_url", "input_audio", "file", "video_url"),
    *("source", "inlineData", "fileData"),
)
_OTHER_KEYS = ("url", "image_url", "file_url")


def _media_format(item: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the entry of `_MEDIA_FORMATS` for a part, or None if it is not a medium."""
    kind = item.get("type")
    if kind is None:
        kind = next((key for key in _in_camel_case(item) if key in ("inlineData", "fileData")), "")
    elif kind in ("image", "audio") and "data" in item and "mimeType" in item:
        return "mcp", "data", ""
    elif kind in ("image", "document", "file"):
        # Without this object it is other data, such as an entry in the listing of a folder.
        if not isinstance(item.get("file" if kind == "file" else "source"), Mapping):
            return None
    elif kind == "image_url" and not item.get("image_url"):
        return None
    return _MEDIA_FORMATS.get(kind) if isinstance(kind, str) else None


def _is_media(item: object) -> bool:
    """Return whether this is an image, file or audio, in Ember's format or a provider's."""
    if isinstance(item, (Media, bytes, bytearray, Path)) or is_image(item):
        return True
    return _media_format(as_mapping(item)) is not None


def _media(item: Mapping[str, Any], wire: str, key: str, default: str) -> Media:
    """Read a medium in a provider's format, given its entry of `_MEDIA_FORMATS`."""
    source = _in_camel_case(item) if wire == "google" else item
    for name in _MEDIA_OBJECTS:
        if name in source and not isinstance(source[name], str):
            source = required(source, name, Mapping)
            break
    key = next((each for each in (key, *_OTHER_KEYS) if source.get(each)), key)
    is_other_source = wire == "anthropic" and source.get("type") not in ("base64", "url")
    if is_other_source or (key not in source and "file_id" in source):
        raise ModelProviderError(
            f"{excerpt(dict(item))} cannot be sent to another provider: the file is stored with "
            "its own; pass the bytes or a Path"
        )
    content = required(source, key, str)
    mime_type = _string_at(source, "media_type") or _string_at(source, "mimeType")
    mime_type = mime_type or mime_type_of_name(f"x.{_string_at(source, 'format')}")
    is_url = content.startswith(("data:", "https://", "http://"))  # OpenRouter takes one in a file
    if key == "data" or (key == "file_data" and not is_url):
        media = from_base64(content, mime_type or default)
    else:
        media = from_url(content)
        media = media._replace(mime_type=mime_type or media.mime_type or default)
    name, detail = _string_at(source, "filename"), _string_at(source, "detail")
    return media._replace(name=name or None, detail=detail or None)


def _is_text_part(part: object) -> bool:
    item = as_mapping(part)
    return item.get("type") in _TEXT_TYPES and isinstance(item.get("text"), str)


_TEXT_TYPES = ("text", "input_text", "output_text")
_TEXT_KEYS = {"type", "text", "annotations", "citations", "logprobs"}
# The parts of these wires' answers other than text and calls of the caller's tools.
_ANTHROPIC_ONLY = re.compile(
    r"(redacted_)?thinking|(server|mcp)_tool_use|.*_tool_result|compaction|tool_(addition|removal)"
)
_GOOGLE_ONLY = ("thought", "thoughtSignature", "executableCode", "codeExecutionResult")


def _from_mapping(item: Mapping[str, Any]) -> Part:
    """Convert a part in a provider's format; translate it if every format has an equivalent."""
    kind = item.get("type")
    if kind is None:
        return _from_google(item)
    if kind in _TEXT_TYPES:
        text = Text(required(item, "text", str))
        if set(item) <= _TEXT_KEYS and not item.get("citations"):
            return text
        # Anthropic's search citations are sent back with their text; cache markers are accepted
        # by some servers of chat completions as well.
        owners = "anthropic chat" if kind == "text" else "openai-responses"
        return NativePart(item, "anthropic" if item.get("citations") else owners, (text,))
    if kind == "refusal":
        return Text(required(item, "refusal", str))
    if kind == "document" and as_mapping(item.get("source")).get("type") == "text":
        return NativePart(item, "anthropic", (Text(required(item["source"], "data", str)),))
    if media_format := _media_format(item):
        # Both of OpenAI's wires describe an image by the same fields, and so does Ember.
        is_plain_image = item.keys() <= {"type", "image_url", "detail"} and item.get("image_url")
        if is_plain_image or media_format[0] == "mcp":
            return _media(item, *media_format)
        return NativePart(item, media_format[0], None)
    if kind == "tool_use":
        call_id, name = required(item, "id", str), required(item, "name", str)
        call = ToolCall(call_id, name, item.get("input", {}))
        is_plain = item.keys() <= {"type", "id", "name", "input"}
        return call if is_plain else NativePart(item, "anthropic", (call,))
    if kind == "tool_result":
        is_error = bool(item.get("is_error", False))
        call_id = required(item, "tool_use_id", str)
        return ToolResult(call_id, "", item.get("content", ""), is_error)
    if kind in ("thinking", "reasoning") and not isinstance(item.get("thinking"), str):
        return NativePart(item, "chat")  # Mistral's: a list of parts
    if isinstance(kind, str) and _ANTHROPIC_ONLY.fullmatch(kind):
        return NativePart(item, "anthropic")
    return NativePart(item)


def _from_google(given: Mapping[str, Any]) -> Part:
    """Convert a part without a type, which is Google's."""
    if set(given) == {"text"}:
        return Text(required(given, "text", str))
    item = _in_camel_case(given)
    part: Part = NativePart(item)
    if _media_format(item):
        part = NativePart(item, "google", None)
    elif item.get("functionCall"):
        call = required(item, "functionCall", Mapping)
        name, signature = required(call, "name", str), item.get("thoughtSignature")
        part = ToolCall(_id(call), name, call.get("args", {}), signature)
    elif item.get("functionResponse"):
        response = required(item, "functionResponse", Mapping)
        name = required(response, "name", str)
        part = ToolResult(_id(response) or name, name, required(response, "response", Mapping))
        # The part may also contain media.
        if len(item) > 1 or not response.keys() <= {"id", "name", "response"}:
            part = NativePart(item, "google", (part,))
    elif not item.keys().isdisjoint(_GOOGLE_ONLY):
        text = item.get("text")
        is_visible = isinstance(text, str) and not item.get("thought")
        part = NativePart(item, "google", (Text(str(text)),) if is_visible else ())
    if item == given:
        return part
    if isinstance(part, NativePart):
        return part._replace(value=given)
    return NativePart(given, "google", (part,))


def _in_camel_case(item: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the keys of Google's part and of the objects in it, which may have underscores."""
    converted: dict[str, Any] = {}
    for key, value in item.items():
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, Any]", value)
            value = {_camel_case(inner): inside[inner] for inner in inside}
        converted[_camel_case(key)] = value
    return converted


def _camel_case(key: str) -> str:
    return re.sub("_([a-z])", lambda letter: letter[1].upper(), key)


def as_tool_call(call: object) -> ToolCall | NativePart:
    """Convert a `ToolCall`, or a tool call in OpenAI's format, to a part."""
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
    part = ToolCall(_id(item), function["name"], arguments)
    # A custom tool's input is not JSON; Google's compatible endpoint wants its signature back.
    is_native = item.get("type") == "custom" or "extra_content" in item
    return NativePart(item, "chat", (part,)) if is_native else part


def call_id_for(call_id: str, allowed: str) -> str:
    """Return a tool call's id as a wire accepts it; the same for a call and its result.

    Args:
        call_id: The original id of the call.
        allowed: A regular expression for the ids that the wire accepts.
    """
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
    ids = (call_id, f"call_{digest[:24]}", digest[:9])
    return next(each for each in ids if re.fullmatch(allowed, each))


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


_OUTPUT_ITEM = re.compile(r"message|reasoning|.*_call|mcp_(list_tools|approval_request)")


def is_output_item(item: object) -> bool:
    """Return whether this is an output item, as in the content of a Responses answer's message."""
    kind = as_mapping(item).get("type")
    return isinstance(kind, str) and _OUTPUT_ITEM.fullmatch(kind) is not None


def from_output_item(item: object) -> NativePart:
    """Convert an output item of a Responses answer; only other wires get it translated."""
    fields = as_mapping(item)
    equivalents: list[Part] = []
    if fields.get("type") == "message":
        equivalents += [as_part(part) for part in required(fields, "content", Sequence)]
    elif fields.get("type") in ("function_call", "custom_tool_call"):
        arguments: object = fields.get("arguments", fields.get("input")) or {}
        name = required(fields, "name", str)
        equivalents.append(ToolCall(_id(fields, "call_id"), name, arguments))
    return NativePart(fields, "openai-responses", equivalents)


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else _NO_FIELDS


def required(item: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return the value of a key; raise a ModelProviderError if it has another type or none."""
    value = item.get(key)
    if not isinstance(value, kind) or (isinstance(value, str) and kind is not str):
        raise ModelProviderError(
            f"{excerpt(dict(item))} cannot be sent: its {key!r} must be a {kind.__name__}, "
            f"not {excerpt(value)}"
        )
    return value


def _string_at(item: Mapping[str, Any], key: str) -> str:
    """Return a text, or "" if the key has none."""
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _id(item: Mapping[str, Any], key: str = "id") -> str:
    """Return the id of a call, or "" if it has none."""
    return required(item, key, str) if item.get(key) else ""


def excerpt(value: object) -> str:
    """Format a value for an error message: shortened, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
