"""Images, PDFs, audio and video in a prompt, from any form that a caller may pass.

The MIME type is detected from the bytes if possible, else taken from a data URL's label or a file
name: a JPEG that is labelled `image/png` is sent as a JPEG.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from ember.exceptions import ModelProviderError


class Media(NamedTuple):
    """An image, PDF, audio or video: its bytes, or a URL that a provider can fetch.

    Args:
        mime_type: Such as `image/png`; "" if a URL does not show it.
        data: The bytes, or None.
        url: The URL, or None.
        name: The file's name, or None.
        detail: The `detail` of an image, as in OpenAI's API, or None.
    """

    mime_type: str
    data: bytes | None = None
    url: str | None = None
    name: str | None = None
    detail: str | None = None

    def check_is_image(self, wire: str, formats: Collection[str] = ()) -> None:
        """Raise a ModelProviderError if this is known to be no image that the wire accepts.

        `formats` are the MIME types that it accepts; any image by default.
        """
        if not self.mime_type or self.mime_type in formats:
            return
        if formats or not self.mime_type.startswith("image/"):
            images = f"an image ({', '.join(sorted(formats))})" if formats else "an image"
            raise ModelProviderError(
                f"{wire} cannot take {self.name or self.url or 'bytes'} of type {self.mime_type}: "
                f"pass its text, {images} or a PDF, or a dict in the provider's own words"
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
    """Create a medium from bytes."""
    return Media(_mime_type(data), data)


_URL_SAFE = str.maketrans("-_", "+/")  # Google's base64 is URL-safe


def from_base64(text: str, mime_type: str = "") -> Media:
    """Create a medium from base64; `mime_type` is the declared type, if the bytes show none."""
    try:
        plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise ModelProviderError(f"cannot read the base64 {text[:60]!r}...: {error}") from error
    return Media(_mime_type(raw, mime_type), raw)


def _from_data_url(url: str) -> Media:
    head, _, data = url[len("data:") :].partition(",")
    mime_type, *flags = head.split(";")
    if "base64" in flags:
        try:
            return from_base64(unquote(data), mime_type)
        except ModelProviderError as error:
            what = f"cannot read the data URL {url[:60]!r}...: {error.__cause__ or error}"
            raise ModelProviderError(what) from error
    raw = unquote_to_bytes(data)
    if _mime_type(raw, "unknown") != "image/svg+xml":
        raise ModelProviderError(f"cannot read the data URL {url[:60]!r}...: it is not base64")
    return Media("image/svg+xml", raw)


def from_path(path: Path) -> Media:
    """Read a medium from a file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelProviderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return Media(_mime_type(raw, mime_type_of_name(path.name)), raw, name=path.name)


def is_image(item: object) -> bool:
    """Return whether this looks like a PIL image: Pillow is not a dependency."""
    return callable(getattr(item, "save", None)) and hasattr(item, "mode")


def from_image(image: Any) -> Media:
    """Convert a PIL image to PNG."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG")
    except OSError:  # PNG has no CMYK, for example
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
    return Media("image/png", buffer.getvalue())


def from_url(url: str) -> Media:
    """Create a medium from a URL: from its data if it is a `data:` URL, else to be fetched."""
    if url.startswith("data:"):
        return _from_data_url(url)
    return Media(mime_type_of_name(url), url=url)


# Some of these are missing from `mimetypes` on some systems and Python versions.
MEDIA_SUFFIXES = {
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    **{kind: f"image/{kind}" for kind in ("png", "gif", "webp", "bmp", "heic", "heif", "avif")},
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    **{kind: f"audio/{kind}" for kind in ("wav", "flac", "ogg", "aac")},
    **{kind: f"video/{kind}" for kind in ("mp4", "webm", "mpeg")},
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "mkv": "video/x-matroska",
}


def mime_type_of_name(name: str) -> str:
    """Return the MIME type for the suffix of a file name or URL, or "" if it is unknown."""
    path = name.partition("?")[0].partition("#")[0]
    suffix = path.rpartition(".")[2].lower()
    return MEDIA_SUFFIXES.get(suffix) or mimetypes.guess_type(path)[0] or ""


# How files begin. The second byte of an audio frame is MPEG's version, its layer, and whether there
# is a checksum. A comment of an SVG ends at its first `-->` only: the search is linear.
_SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"II\*\x00|MM\x00\*", "image/tiff"),
    (rb"BM....\x00{4}", "image/bmp"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"%PDF-", "application/pdf"),
    (rb"ID3|\xff[\xfb\xfa\xf3\xf2\xe3\xe2\xfd\xfc\xf5\xf4]", "audio/mpeg"),
    (rb"\xff[\xf1\xf0\xf9\xf8]", "audio/aac"),
    (rb"fLaC", "audio/flac"),
    (rb"OggS", "audio/ogg"),
    (
        rb"(?:\xef\xbb\xbf)?\s*(?:(?:<\?xml[^>]*>|<!--(?:(?!-->).)*-->|<!DOCTYPE[^>]*>)\s*)*<svg[\s>]",
        "image/svg+xml",
    ),
)
# By the first three letters of an ISO base media file's brand; MP4, HEIC and others are such files.
_BRANDS = {
    **dict.fromkeys((b"hei", b"hev"), "image/heic"),
    b"avi": "image/avif",
    **dict.fromkeys((b"M4A", b"M4B"), "audio/mp4"),
    b"qt ": "video/quicktime",
    b"3gp": "video/3gpp",
}
_ANY_HEIF: dict[bytes, str] = dict.fromkeys((b"mif", b"msf"), "image/heif")
_SAME_TYPES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "audio/mp3": "audio/mpeg"}


def _mime_type(data: bytes, declared: str = "") -> str:
    """Return the MIME type that the bytes show, else the declared one."""
    if data[4:8] == b"ftyp":
        return _mime_type_of_brands(data, declared)
    if data[:4] == b"\x1aE\xdf\xa3":
        kind = "webm" if b"webm" in data[:64] else "x-matroska"
        return f"audio/{kind}" if declared == f"audio/{kind}" else f"video/{kind}"
    for pattern, mime_type in _SIGNATURES:  # compiled at the first use: most calls have no media
        if re.match(pattern, data[: 2**16], re.DOTALL):
            return mime_type
    if not declared:
        raise ModelProviderError(
            f"cannot tell what these {len(data)} bytes are (they begin with {data[:8]!r}): pass "
            "a data URL, 'data:image/...;base64,...', which names the type"
        )
    return _SAME_TYPES.get(declared.lower(), declared)


def _mime_type_of_brands(data: bytes, declared: str) -> str:
    """Return the type of an ISO base media file by its major brand, then its compatible brands.

    `isom` and `mp42` only mean MP4, so that a label or file name may still declare it as audio.
    """
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[at : at + 3] for at in (8, *range(16, size, 4))]
    for known in (_BRANDS, _ANY_HEIF):
        for brand in brands:
            if brand in known:
                return known[brand]
    return "audio/mp4" if declared.lower() in _MP4_AUDIO else "video/mp4"


_MP4_AUDIO = ("audio/mp4", "audio/m4a", "audio/x-m4a", "audio/mp4a-latm")
