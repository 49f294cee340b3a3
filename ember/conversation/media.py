"""Images, PDFs, sound and video in a prompt, from whatever form the caller has them in.

The MIME type is read from the bytes themselves where they show it, else from a data URL's label or
a file's name: a JPEG that is called `image/png` is sent as the JPEG that it is.
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

__all__ = [
    "MEDIA_SUFFIXES",
    "Media",
    "from_base64",
    "from_bytes",
    "from_image",
    "from_path",
    "from_url",
    "is_image",
    "type_of_name",
]


class Media(NamedTuple):
    """An image, PDF, sound or video: its bytes, or a URL where a provider can fetch them.

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

    def must_be_image(self, wire: str, formats: Collection[str] = ()) -> None:
        """Refuse what the wire has no word for.

        Args:
            wire: The wire's name for the message.
            formats: The MIME types that it takes; by default all of images.

        Raises:
            ModelProviderError: It is known to be something else.
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
    """The medium that these bytes are."""
    return Media(_sniffed(data), data)


_URL_SAFE = str.maketrans("-_", "+/")  # Google's alphabet


def from_base64(text: str, mime_type: str = "") -> Media:
    """The medium that base64 text holds.

    Args:
        text: The base64.
        mime_type: What it is said to be, which holds where the bytes do not tell.

    Raises:
        ModelProviderError: It is not base64.
    """
    try:
        plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise ModelProviderError(f"cannot read the base64 {text[:60]!r}...: {error}") from error
    return Media(_sniffed(raw, mime_type or None), raw)


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
    if not _SVG.match(raw):
        raise ModelProviderError(f"cannot read the data URL {url[:60]!r}...: it is not base64")
    return Media("image/svg+xml", raw)


def from_path(path: Path) -> Media:
    """The medium in a file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelProviderError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return Media(_sniffed(raw, type_of_name(path.name) or None), raw, name=path.name)


def is_image(item: object) -> bool:
    """Whether this is a PIL image, told by what it can do: Pillow is not a dependency."""
    return callable(getattr(item, "save", None)) and hasattr(item, "mode")


def from_image(image: Any) -> Media:
    """A PIL image as PNG."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG")
    except OSError:  # PNG has no CMYK, for one
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
    return Media("image/png", buffer.getvalue())


def from_url(url: str, detail: str | None = None) -> Media:
    """What a URL means: its data where it is a `data:` URL, else something to fetch."""
    if url.startswith("data:"):
        media = _from_data_url(url)
        return Media(media.mime_type, media.data, detail=detail)
    return Media(type_of_name(url), url=url, detail=detail)


# Not all of these are known to `mimetypes` on each system and in each version of Python.
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


def type_of_name(name: str) -> str:
    """The MIME type that a file's name or a URL shows by its ending; "" where it shows none."""
    path = name.partition("?")[0].partition("#")[0]
    suffix = path.rpartition(".")[2].lower()
    return MEDIA_SUFFIXES.get(suffix) or mimetypes.guess_type(path)[0] or ""


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
# The brand of an ISO base media file, which MP4, HEIC and others are: its first three letters.
_BRANDS: dict[bytes, str] = {
    **dict.fromkeys((b"hei", b"hev"), "image/heic"),
    b"avi": "image/avif",
    b"M4A": "audio/mp4",
    b"M4B": "audio/mp4",
    b"qt ": "video/quicktime",
    b"3gp": "video/3gpp",
}
# The second byte of a frame: MPEG's version, its layer III or II, and whether there is a checksum.
_AUDIO_FRAMES: dict[bytes, str] = {
    **dict.fromkeys((b"\xfb", b"\xfa", b"\xf3", b"\xf2", b"\xe3", b"\xe2"), "audio/mpeg"),
    **dict.fromkeys((b"\xfd", b"\xfc", b"\xf5", b"\xf4"), "audio/mpeg"),
    **dict.fromkeys((b"\xf1", b"\xf0", b"\xf9", b"\xf8"), "audio/aac"),
}
_ANY_HEIF: dict[bytes, str] = dict.fromkeys((b"mif", b"msf"), "image/heif")
# A comment ends at its first `-->`, and nowhere else: the search is linear.
_SVG = re.compile(
    rb"\s*(?:(?:<\?xml[^>]*>|<!--(?:(?!-->).)*-->|<!DOCTYPE[^>]*>)\s*)*<svg[\s>]", re.DOTALL
)
_SAME_TYPES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "audio/mp3": "audio/mpeg"}


def _sniffed(data: bytes, otherwise: str | None = None) -> str:
    """The MIME type that the bytes themselves show; `otherwise` where they show none."""
    for magic, mime_type in _MAGIC:
        if data.startswith(magic):
            return mime_type
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        return _of_brands(data, otherwise)
    if data[:4] == b"\x1aE\xdf\xa3":
        kind = "webm" if b"webm" in data[:64] else "x-matroska"
        return f"audio/{kind}" if otherwise == f"audio/{kind}" else f"video/{kind}"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "image/bmp"
    if data[:1] == b"\xff" and data[1:2] in _AUDIO_FRAMES:
        return _AUDIO_FRAMES[data[1:2]]
    if _SVG.match(data.removeprefix(b"\xef\xbb\xbf")[:4096]):
        return "image/svg+xml"
    if otherwise is None:
        raise ModelProviderError(
            f"cannot tell what these {len(data)} bytes are (they begin with {data[:8]!r}): pass "
            "a data URL, 'data:image/...;base64,...', which names the type"
        )
    return _SAME_TYPES.get(otherwise.lower(), otherwise)


def _of_brands(data: bytes, otherwise: str | None) -> str:
    """What an ISO base media file is: by its own brand, then by those that it is compatible with.

    `isom` and `mp42` say MP4 and no more, so that a label or name may still call it sound.
    """
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12][:3], *(data[at : at + 3] for at in range(16, size, 4))]
    for known in (_BRANDS, _ANY_HEIF):
        for brand in brands:
            if brand in known:
                return known[brand]
    return "audio/mp4" if (otherwise or "").lower() in _MP4_SOUND else "video/mp4"


_MP4_SOUND = ("audio/mp4", "audio/m4a", "audio/x-m4a", "audio/mp4a-latm")
