"""Search bytes for known values in each form in which they are sent: escaped, encoded. No I/O."""

from __future__ import annotations

import base64
import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from ember_testing.replay.secrets import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Search", "search_for", "word_of"]

_NEVER_ESCAPED = re.compile("[A-Za-z0-9._~-]+")
_ESCAPED_LETTER = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-f]|[57][0-9a])", re.I)
_HTML_NAMES = {"&": b"amp", "<": b"lt", ">": b"gt", '"': b"quot", "'": b"apos"}
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_BACKSLASHES = rb"\\{1,63}"  # before an escaped character: JSON may be nested in JSON


def word_of(length: int) -> bytes:
    """Return a replacement of this length."""
    return REDACTED.encode().ljust(length, b"*")[:length]


class Search:
    """A search for values; see `search_for`.

    Args:
        values: The values.
        encoded: The values that are searched for in encoded form too.
    """

    def __init__(self, values: frozenset[str], encoded: frozenset[str]) -> None:
        # Longest first: one key may be a prefix of another.
        self._values = sorted(values, key=lambda value: (-len(value), value))
        parts = {max(_NEVER_ESCAPED.findall(each), key=len, default="") for each in self._values}
        # The longest part of each value that is hardly ever escaped, for a fast check.
        self._fragments = tuple(part.encode() for part in sorted(parts))
        self._pattern = self._pattern_of(_as_sent)
        found = dict(pair for value in encoded for pair in _encodings(value))
        self._encodings = sorted(found.items(), key=lambda pair: -len(pair[0]))
        self._wide = [(needle, _wide_word(len(needle))) for needle in _in_utf_16(encoded)]

    def finds_in(self, content: bytes) -> bool:
        """Return whether a value is in these bytes: plain, escaped or encoded."""
        if (pattern := self._needed(content)) is not None and pattern.search(content):
            return True
        for needle, _ in self._encodings:  # not `any`: a generator costs more than the search
            if needle in content:
                return True
        return b"\0" in content and any(needle in content for needle, _ in self._wide)

    def replaced(self, content: bytes, word: Callable[[int], bytes]) -> bytes:
        """Return these bytes with each value replaced, an encoded one by as many bytes.

        Args:
            content: The bytes.
            word: Returns the replacement of a spelling of this length.
        """
        if (pattern := self._needed(content)) is not None:
            content = pattern.sub(lambda match: word(len(match.group())), content)
        for needle, written in self._encodings:
            if needle in content:
                content = content.replace(needle, written)
        if b"\0" in content:
            for needle, written in self._wide:
                content = content.replace(needle, written)
        return content

    def _needed(self, content: bytes) -> re.Pattern[bytes] | None:
        """Return the pattern to search with; None if a fast check rules every value out."""
        if not self._values:  # an empty pattern would match everywhere
            return None
        if b"\\u00" in content and _ESCAPED_LETTER.search(content):
            return self._pattern_of_escaped
        for fragment in self._fragments:
            if fragment in content:
                return self._pattern
        return None

    @cached_property
    def _pattern_of_escaped(self) -> re.Pattern[bytes]:
        return self._pattern_of(_as_escaped)

    def _pattern_of(self, spelled: Callable[[str], bytes]) -> re.Pattern[bytes]:
        return re.compile(b"|".join(b"".join(map(spelled, value)) for value in self._values))


@lru_cache(maxsize=64)
def search_for(values: frozenset[str], encoded: frozenset[str] = frozenset()) -> Search:
    """Return a search for values, some of them in encoded form too."""
    return Search(values, encoded)


def _as_sent(character: str) -> bytes:
    """Return a pattern for a character in a URL, a form, JSON, JSON nested in JSON, and HTML."""
    if _NEVER_ESCAPED.fullmatch(character):
        return re.escape(character.encode())
    content = character.encode("utf-8", "surrogatepass")
    in_url = b"".join(b"%%%02x" % byte for byte in content)
    in_json = _in_json(character)
    escaped = in_url, in_json, _in_html(character)
    return rb"(?:\\{0,63}%b|(?i:%b|%b|%b))" % (re.escape(content), *escaped)


def _as_escaped(character: str) -> bytes:
    """Return a pattern for a character in JSON in which plain letters may be escaped as well."""
    if _NEVER_ESCAPED.fullmatch(character):
        return rb"(?:%b|(?i:%b))" % (re.escape(character.encode()), _in_json(character))
    return _as_sent(character)


def _in_json(character: str) -> bytes:
    # Servers differ in which characters they write as \uXXXX.
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return b"".join(
        _BACKSLASHES + b"u" + units[start : start + 4].encode() for start in range(0, len(units), 4)
    )


def _in_html(character: str) -> bytes:
    number = ord(character)
    named = _HTML_NAMES.get(character, b"#%d" % number)
    return rb"&(?:%b|#0{0,6}%d|#x0{0,6}%x);" % (named, number, number)


def _encodings(value: str) -> list[tuple[bytes, bytes]]:
    """Return the forms of a value inside a longer encoded text, and their replacements."""
    content = value.encode("utf-8", "surrogatepass")
    digits, word = content.hex().encode(), word_of(len(content)).hex().encode()
    found = [(digits, word), (digits.upper(), word.upper())]
    for before in range(3):
        text = base64.b64encode(bytes(before) + content)
        # Without the characters at both ends that depend on neighbouring bytes.
        inner = text[-(-8 * before // 6) : 8 * (before + len(content)) // 6]
        written = REDACTED.encode().ljust(len(inner), b"A")[: len(inner)]
        found += [(inner, written), (inner.translate(_URL_SAFE), written)]
    return found


def _in_utf_16(values: frozenset[str]) -> set[bytes]:
    # ASCII looks the same in both byte orders without the byte at one end.
    little = {value.encode("utf-16-le", "surrogatepass")[:-1] for value in values}
    return little.union(value.encode("utf-16-be", "surrogatepass")[1:] for value in values)


def _wide_word(length: int) -> bytes:
    return word_of(length // 2 + 1).decode().encode("utf-16-le")[:-1]
