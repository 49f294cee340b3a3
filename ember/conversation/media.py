"""Images, PDFs and sound in a prompt, from whatever form the caller has them in.

The MIME type is read from the bytes themselves where they show it, else from a file's name.
"""

from __future__ import annotations

import base64
import io
import mimetypes
from pathlib import Path
from typing import Any, NamedTuple

from ember.exceptions import ModelProviderError

__all__ = ["Media", "from_bytes", "from_image", "from_path", "from_url", "is_image"]


class Media(NamedTuple):
    """An image, PDF or sound: its bytes, or a URL where a provider can fetch them.

    Args:
        mime_type: Such as `image/png`; "" where a URL does not tell.
        data: The bytes, or None.
        url: The URL, or None.
        name: The file's name, or None.
        detail: How closely to look at an image, in OpenAI's words, or None.
    """

    mime_type: str
    data: bytes | None = None
    url: str | None = None
    name: str | None = None
    detail: str | None = None

    def must_be_image(self, wire: str) -> None:
        """Refuse what is none, for a wire that has no other word for it.

        Args:
            wire: The wire's name for the message.

        Raises:
            ModelProviderError: It is known to be something else.
        """
        if self.mime_type and not self.mime_type.startswith("image/"):
            raise ModelProviderError(
                f"{wire} cannot take {self.name or self.url or 'bytes'} of type {self.mime_type}: "
                "pass its text, an image or a PDF, or a dict in the provider's own words"
            )

    @property
    def base64(self) -> str:
        """The bytes as base64 text."""
        return base64.b64encode(self.data or b"").decode("ascii")

    @property
    def data_url(self) -> str:
        """The bytes as a `data:` URL, or the URL itself."""
        return self.url or f"data:{self.mime_type};base64,{self.base64}"


def from_bytes(data: bytes) -> Media:
    """The medium that these bytes are."""
    return Media(_sniffed(data), data)


def _from_data_url(url: str) -> Media:
    head, _, data = url[len("data:") :].partition(",")
    mime_type, *flags = head.split(";")
    try:
        if "base64" not in flags:
            raise ValueError("it is not base64")
        raw = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ModelProviderError(f"cannot read the data URL {url[:60]!r}...: {error}") from error
    return Media(mime_type or _sniffed(raw), raw)


def from_path(path: Path) -> Media:
    """The medium in a file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelProviderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    guessed = mimetypes.guess_type(path.name)[0]
    return Media(_sniffed(raw, guessed), raw, name=path.name)


def is_image(item: object) -> bool:
    """Whether this is a PIL image, told by what it can do: Pillow is not a dependency."""
    return callable(getattr(item, "save", None)) and hasattr(item, "mode")


def from_image(image: Any) -> Media:
    """A PIL image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return Media("image/png", buffer.getvalue())


def from_url(url: str, detail: str | None = None) -> Media:
    """What a URL means: its data where it is a `data:` URL, else something to fetch."""
    if url.startswith("data:"):
        media = _from_data_url(url)
        return Media(media.mime_type, media.data, detail=detail)
    return Media(mimetypes.guess_type(url.partition("?")[0])[0] or "", url=url, detail=detail)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


def _sniffed(data: bytes, guessed: str | None = None) -> str:
    """The MIME type that the bytes themselves show; `guessed` where they show none."""
    for magic, mime_type in _MAGIC:
        if data.startswith(magic):
            return mime_type
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    if guessed is None:
        raise ModelProviderError(
            f"cannot tell what these {len(data)} bytes are (they begin with {data[:8]!r}): pass "
            "a data URL, 'data:image/...;base64,...', which names the type"
        )
    return guessed
