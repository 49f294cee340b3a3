"""`ember-cassettes html`: recorded calls as one HTML page that needs no network.

The page holds compressed data and a fixed program (`page/`): text of a recording is never parsed as
HTML, and a content security policy forbids everything but that program. The data is collected in
temporary files, so that memory does not grow with the number of calls.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import tempfile
import zlib
from contextlib import closing
from datetime import datetime, timezone
from hashlib import blake2b
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from ember.conversation.media import Media
from ember.conversation.parts import NativePart, Text, ToolResult
from ember.exceptions import EmberError
from ember.models.schemas import ToolCall
from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.exceptions import CassetteError
from ember_testing.fakes.call import call_of_request
from ember_testing.wires.body import as_bytes
from ember_testing.wires.exchange import read_pieces, read_request, read_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ember.conversation.messages import Message
    from ember.conversation.parts import Part
    from ember_testing.cassettes.calls import Call
    from ember_testing.wires.exchange import ModelRequest

    Piece = tuple[float, bytes]

LONGEST_TEXT = 100_000
"""Maximum number of characters of one part of a conversation in the page."""
LONGEST_BODY = 20_000
"""Maximum number of characters of a raw request or response body in the page."""
LARGEST_IMAGE = 300_000
"""Maximum size of an image in the page, in bytes; for a larger one the page states the size."""

_MOST_REMEMBERED = 10_000  # values of a list that are found again when they are repeated
_BLOCK = 3 * 2**14  # bytes that are encoded at once; a multiple of three, as base64 needs
_SHOWN_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_CONVERSATION = (
    "instructions", "system", "systemInstruction", "messages", "input", "contents", "model",
)  # fmt: skip


class _JsonList:
    """A JSON array in a compressed temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._gzip = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=6, mtime=0)
        self._places: dict[bytes, int] = {}  # by digest, the most recently used last
        self.length = 0

    def append(self, value: object) -> None:
        """Add a value at the end."""
        self._write(_json(value))

    def place(self, value: object) -> int:
        """Return the index of a value, which is added unless an equal one was used recently."""
        content = _json(value)
        digest = blake2b(content, digest_size=16).digest()
        found = self._places.pop(digest, None)
        if found is None:
            found = self.length
            self._write(content)
        self._places[digest] = found
        if len(self._places) > _MOST_REMEMBERED:
            del self._places[next(iter(self._places))]
        return found

    def _write(self, content: bytes) -> None:
        self._gzip.write((b"," if self.length else b"[") + content)
        self.length += 1

    def in_base64(self) -> Iterator[str]:
        """Yield the whole array, compressed, in base64; nothing can be added any more."""
        self._gzip.write(b"]" if self.length else b"[]")
        self._gzip.close()
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            yield base64.b64encode(block).decode()

    def close(self) -> None:
        """Delete the file."""
        self._gzip.close()
        self._file.close()


class Report:
    """The data of one page.

    Texts and turns that several calls share are stored once: an agent sends its whole conversation
    again with every call.

    Attributes:
        calls: The calls added so far.
    """

    def __init__(self) -> None:
        self._cassettes = _JsonList()
        self._cassette = 0  # the index of the one whose calls are added
        self.calls = _JsonList()
        self._texts = _JsonList()
        self._turns = _JsonList()

    def close(self) -> None:
        """Delete the temporary files."""
        for each in (self._cassettes, self.calls, self._texts, self._turns):
            each.close()

    def add_cassette(self, path: Path) -> str | None:
        """Add all calls of a cassette; return the reason if it cannot be read."""
        self._cassette = self._cassettes.length
        reason = None
        try:
            with closing(CassetteFile(path)) as file:
                for call in calls_of(file):
                    self.add_call(call, file.chunks(call.id))
        except CassetteError as error:
            reason = str(error)
        self._cassettes.append({"path": path.as_posix(), "error": reason})
        return reason

    def add_call(self, call: Call, pieces: Sequence[Piece] = ()) -> None:
        """Add a call to the most recently added cassette.

        Args:
            call: The call.
            pieces: Offset in seconds and bytes of each chunk of its response.
        """
        request = read_request(call.url, as_bytes(call.body))
        turns = _request_turns(request)
        self.calls.append(
            {
                "cassette": self._cassette,
                "id": call.id,
                "n": call.n,
                "test": call.test,
                "method": call.method,
                "url": call.url,
                "status": call.status,
                "outcome": call.outcome,
                "error": call.error,
                "provider": call.provider,
                "model": call.model,
                "asked": request.model if request else None,
                "prompt_tokens": call.prompt_tokens,
                "completion_tokens": call.completion_tokens,
                "cost": call.cost,
                "seconds": call.seconds,
                "recorded_at": call.recorded_at,
                "turns": [self._turn(turn) for turn in turns],
                "parameters": self._parameters(request),
                "request_headers": self._headers(call.request_headers),
                "request": self._body(call.body),
                "response_headers": self._headers(call.response_headers),
                "response": self._body(call.response_body),
                "pieces": self._pieces(call, request, pieces),
                **self._answer(call, request),
            }
        )

    def write(self, target: Path) -> None:
        """Write the complete page; nothing can be added any more.

        Args:
            target: The page's file; one that is there is replaced.
        """
        folder = files(__name__.rpartition(".")[0]).joinpath("page")
        style = folder.joinpath("page.css").read_text(encoding="utf-8")
        script = folder.joinpath("page.js").read_text(encoding="utf-8")
        template = folder.joinpath("page.html").read_text(encoding="utf-8")
        policy = (
            f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; "
            f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
        )
        lists = {
            "$cassettes": self._cassettes,
            "$calls": self.calls,
            "$turns": self._turns,
            "$texts": self._texts,
        }
        given = {
            "policy": policy,
            "style": style,
            "script": script,
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with target.open("w", encoding="utf-8") as file:
            for part in re.split(r"(\$(?:cassettes|calls|turns|texts)\b)", template):
                if part in lists:
                    file.writelines(lists[part].in_base64())
                else:
                    file.write(Template(part).substitute(given))

    def _answer(self, call: Call, request: ModelRequest | None) -> dict[str, Any]:
        """Return the answer as a turn and its finish reason; both None if Ember cannot read it."""
        parts: list[tuple[str, ...]] = []
        ended = None
        if request and call.status is not None and call.status < 400:
            try:
                headers = dict(call.response_headers)
                answer = read_response(request, call.status, headers, as_bytes(call.response_body))
            except EmberError:  # truncated or of another format: show the text received
                answer = None
            if answer is not None:
                kinds = ("reasoning", answer.reasoning), ("text", answer.text)
                parts = [(kind, text) for kind, text in kinds if text]
                parts += [("refusal", answer.refusal)] if answer.refusal else []
                parts += map(_part, answer.tool_calls)
                ended = answer.finish_reason
        if not parts and call.text:
            parts = [("text", call.text)]
        return {"answer": self._turn(("assistant", parts)) if parts else None, "ended": ended}

    def _parameters(self, request: ModelRequest | None) -> int | None:
        given = {k: v for k, v in request.body.items() if k not in _CONVERSATION} if request else {}
        return self._text(json.dumps(given, indent=2, ensure_ascii=False)) if given else None

    def _headers(self, headers: Iterable[tuple[str, str]]) -> int | None:
        text = "\n".join(f"{name}: {value}" for name, value in headers)
        return self._text(text) if text else None

    def _body(self, body: str | bytes) -> int | None:
        if not body:
            return None
        if isinstance(body, bytes):
            return self._text(f"{len(body):,} bytes that are no text")
        return self._text(body)

    def _pieces(
        self, call: Call, request: ModelRequest | None, pieces: Sequence[Piece]
    ) -> list[Any]:
        """Return milliseconds, bytes and text of each chunk."""
        if len(pieces) < 2 or call.status is None:
            return []
        headers = dict(call.response_headers)
        plain = _decompressed(headers, [data for _, data in pieces])
        texts = read_pieces(request, call.status, headers, plain) if request else [""] * len(plain)
        return [
            (round(offset * 1000, 1), len(data), text)
            for (offset, data), text in zip(pieces, texts, strict=True)
        ]

    def _turn(self, turn: tuple[str, list[tuple[str, ...]]]) -> int:
        role, parts = turn
        remaining = [
            (kind, *(self._text(t, len(t) if kind == "image" else LONGEST_TEXT) for t in texts))
            for kind, *texts in parts
        ]
        return self._turns.place([role, remaining])

    def _text(self, text: str, longest: int = LONGEST_BODY) -> int:
        if len(text) > longest:
            text = f"{text[:longest]}\n... ({len(text):,} characters; `show` prints all of them)"
        # UTF-8 cannot encode a lone surrogate; show JSON's escape for it.
        return self._texts.place(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate: JSON's escape for it


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _request_turns(request: ModelRequest | None) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return the request's messages: role, and each part as its kind and texts."""
    if request is None:
        return []
    try:
        call = call_of_request(request, {})
        turns = [(message.role, [*map(_part, _parts(message))]) for message in call.messages]
        return [("system", [("text", call.system)]), *turns] if call.system else [*turns]
    except Exception:  # an unknown request format: its body is shown all the same
        return []


def _parts(message: Message) -> Iterable[Part]:
    for part in message.parts:
        yield from part.equivalents if isinstance(part, NativePart) and part.equivalents else [part]


def _part(part: Part) -> tuple[str, ...]:
    if isinstance(part, Text):
        return "text", part.text
    if isinstance(part, ToolCall):
        return "call", part.name, _readable(part.arguments)
    if isinstance(part, ToolResult):
        return "result", part.name, _readable(part.content)
    if isinstance(part, Media):
        return _image(part)
    return "other", _readable(part.value)


def _image(media: Media) -> tuple[str, ...]:
    if media.data is None:
        return "other", f"{media.mime_type or 'file'} at {media.url}"
    if media.mime_type in _SHOWN_IMAGES and len(media.data) <= LARGEST_IMAGE:
        data = base64.b64encode(media.data).decode()
        return "image", f"data:{media.mime_type};base64,{data}"
    return "other", f"{media.mime_type}, {len(media.data):,} bytes"


def _readable(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _decompressed(headers: Mapping[str, str], pieces: Sequence[bytes]) -> list[bytes]:
    """Return each chunk without its content encoding; empty if it cannot be decoded by chunk."""
    lower = {name.lower(): value.lower() for name, value in headers.items()}
    encoding = lower.get("content-encoding", "identity")
    if encoding == "identity":
        return list(pieces)
    if encoding not in ("gzip", "deflate"):
        return [b"" for _ in pieces]
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        return [decoder.decompress(piece) for piece in pieces]
    except zlib.error:
        return [b"" for _ in pieces]
