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
from datetime import datetime, timezone
from hashlib import blake2b
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli.conversation import conversation_of, media_summary
from ember_testing.cli.progress import progress_of_calls
from ember_testing.exceptions import CassetteError
from ember_testing.wires.parsing import read_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ember_testing.cassettes.calls import Call
    from ember_testing.cli.conversation import Content, Conversation
    from ember_testing.wires.parsing import ModelRequest

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
# The attributes of a call that the page shows under the same names.
_ATTRIBUTES = (
    "id", "n", "test", "method", "url", "status", "outcome", "error", "provider", "model",
    "prompt_tokens", "completion_tokens", "cost", "seconds", "recorded_at",
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
            with CassetteFile(path) as file:
                for call in progress_of_calls(calls_of(file), "reading"):
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
        conversation = conversation_of(call)
        request, answer = conversation.request, conversation.answer
        self.calls.append(
            {
                "cassette": self._cassette,
                **{name: getattr(call, name) for name in _ATTRIBUTES},
                "asked": request.model if request else None,
                "turns": [self._turn(*turn) for turn in conversation.turns],
                "parameters": self._parameters(conversation),
                "request_headers": self._headers(call.request_headers),
                "request": self._body(call.body),
                "response_headers": self._headers(call.response_headers),
                "response": self._body(call.response_body),
                "pieces": self._pieces(call, request, pieces),
                "answer": self._turn("assistant", answer) if answer else None,
                "ended": conversation.finish_reason,
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

    def _parameters(self, conversation: Conversation) -> int | None:
        # The model has a place of its own in the page.
        given = {k: v for k, v in conversation.parameters.items() if k != "model"}
        return self._text(_readable(given)) if given else None

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

    def _turn(self, role: str, contents: Iterable[Content]) -> int:
        parts = [
            (kind, *(self._text(t, len(t) if kind == "image" else LONGEST_TEXT) for t in texts))
            for kind, *texts in map(_texts, contents)
        ]
        return self._turns.place([role, parts])

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


def _texts(content: Content) -> tuple[str, ...]:
    """Return the kind of a content and its texts."""
    kind, value, name = content
    if kind == "image":
        is_shown = value.mime_type in _SHOWN_IMAGES and len(value.data or b"") <= LARGEST_IMAGE
        if value.data is None or not is_shown:
            return "other", media_summary(value)
        data = base64.b64encode(value.data).decode()
        return kind, f"data:{value.mime_type};base64,{data}"
    text = _readable(value)
    return (kind, name, text) if kind in ("call", "result") else (kind, text)


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
