"""Redaction of secrets by value, by name, and by a user's own rules. Pure, no I/O.

By value: secrets that `secrets.py` finds in the environment and in a request, wherever they occur
(a body, an echo in an error text, a URL). By name: credential headers, query parameters, JSON and
form fields. By rule: the marker's `redact=` and the ini option `ember_redact`.

In a response a replacement by value or name has the length of the original, so that content lengths
and the boundaries of stream pieces stay exact. In a request the replacement of a value outside a
credential position includes a salted digest, so that requests with different values differ.
Redaction by name keeps schemas: a tool's property called `api_key` stays as it is.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from ember_testing.patches.keys import PLACEHOLDER
from ember_testing.replay.fields import credential_kind, without_addresses, without_fields
from ember_testing.replay.search import Search, search_for, word_of
from ember_testing.replay.secrets import (
    REDACTED,
    SHORT,
    SHORTEST_SECRET,
    could_be_secret,
    is_credential_header,
    is_credential_name,
    is_provider,
    is_redacted,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ember_testing.wires.body import Headers

Rule: TypeAlias = re.Pattern[str] | Callable[[str], str]
"""A pattern whose matches are replaced, or a function that returns the redacted text."""

_IN_FORMS = frozenset(
    ["assertion", "client_assertion", "code", "code_verifier", "device_code", "token"]
)
_FORM = re.compile(rb"[\w.-]+=[^&\s]*(?:&[\w.-]+=[^&\s]*)*")
_PART = re.compile(
    rb"""(?P<head>content-disposition:[^\r\n]*?[;\s]name="?(?P<name>[^";\r\n]+)[^\r\n]*\r\n
    (?:[^\r\n]+\r\n)*\r\n)(?P<value>.*?)(?=\r\n--)""",
    re.X | re.I | re.S,
)
_MOST_REPEATED = 256  # values of fields that are also searched for in the rest of an answer
_LENGTH_IN_ANSWERS = len(REDACTED) + 1 + 8  # with eight digits of the digest of an issued value
_LENGTH_WITH_WORD = len(REDACTED) + 1 + 4  # a shorter one would have too few digits after the word
_SHORTEST_IN_REQUESTS = 4  # characters of a value under a credential's name
_USERINFO = re.compile(r"(?<=//)([^/@?#]*)@")
_COOKIE = re.compile(r"^([^=;]*=)([^;]+)")
_TEXT_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def rule_of(given: str | Rule) -> Rule:
    """Return a user's rule from a pattern, a function, `function:MODULE:NAME`, or a pattern's text.

    Raises:
        ValueError: It is none of these.
    """
    if not isinstance(given, str):
        if isinstance(given, re.Pattern) or callable(given):
            return given
        raise ValueError(f"redact={given!r}: expected a pattern or a function of a text")
    kind, _, rest = given.partition(":")
    try:
        if kind == "function":
            module, _, name = rest.partition(":")
            function: Callable[[str], str] = getattr(importlib.import_module(module), name)
            return function
        return re.compile(given)
    except (re.error, ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"redact={given!r}: {error}; expected a regular expression, or function:MODULE:NAME"
        ) from None


@dataclass(frozen=True, slots=True)
class Redaction:
    """Replaces known secret values, values under a credential's name, and matches of rules."""

    values: frozenset[str] = field(default=frozenset(), repr=False)  # the secrets known so far
    salt: bytes = b""  # of the digests
    rules: tuple[Rule, ...] = ()  # the user's
    # The environment variable of each value that comes from one.
    variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)
    _search: Search = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        search = search_for(self.values, self.values - {PLACEHOLDER})
        object.__setattr__(self, "_search", search)

    def __repr__(self) -> str:
        return f"Redaction({len(self.values)} values)"  # the values are secret

    def also(self, values: Iterable[str], variables: Mapping[str, str] | None = None) -> Redaction:
        """Return this redaction with more values; itself if there are no new ones."""
        more = self.values.union(values)
        if more == self.values:
            return self
        return Redaction(more, self.salt, self.rules, {**self.variables, **(variables or {})})

    def holds_secret(self, content: bytes) -> bool:
        """Return whether these bytes contain a known value: plain, escaped or encoded."""
        return self._search.finds_in(content)

    def variables_in(self, content: bytes) -> list[str]:
        """Return the environment variables whose values these bytes contain."""
        return sorted(
            name
            for value, name in self.variables.items()
            if search_for(one := frozenset([value]), one).finds_in(content)
        )

    def digest(self, value: str | bytes) -> str:
        """Return the replacement of a value outside a credential position: a salted digest."""
        content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        return f"{REDACTED}-{blake2b(content, key=self.salt, digest_size=8).hexdigest()}"

    def issued(self, value: bytes) -> bytes:
        """Return the replacement of a credential issued by an answer, of the same length.

        A client sends it back, so different credentials need different replacements.
        """
        digest = self.digest(value)
        replacement = digest[:_LENGTH_IN_ANSWERS].ljust(len(value), "*")
        if SHORTEST_SECRET <= len(value) < _LENGTH_WITH_WORD:
            replacement = SHORT + digest.removeprefix(f"{REDACTED}-")
        return replacement[: len(value)].encode()

    def request_body(self, body: bytes, content_type: str = "") -> bytes:
        """Return a request body, redacted; the content type tells that it is a form."""
        if self.rules:
            body = self._by_rules(body, lambda match: self.digest(match.group()))[0]
        body = self._search.replaced(body, _fixed_word)

        def digest(value: bytes) -> bytes:
            return self.digest(value).encode()

        body = without_fields(
            body,
            digest,
            lambda value, quote: quote + digest(value) + quote,
            sure_only=False,
            shortest=_SHORTEST_IN_REQUESTS,
        )
        body = without_addresses(body, digest, certain_only=False)
        if "form-urlencoded" in content_type:
            form = _with_parameters(body.decode("latin-1"), _is_in_forms, self.digest)
            body = form.encode("latin-1")
        elif "multipart/" in content_type:
            body = _PART.sub(self._part, body)
        return body

    def _part(self, match: re.Match[bytes]) -> bytes:
        """Return a part of a multipart form, redacted."""
        value = match["value"]
        is_secret = _is_in_forms(match["name"].decode("latin-1"))
        if not value or not is_secret or is_redacted(value.decode("latin-1")):
            return match.group()
        return match["head"] + self.digest(value).encode()

    def response_body(
        self, body: bytes, *, of_model: bool = False, replacements: dict[bytes, bytes] | None = None
    ) -> bytes:
        """Return a response body with each credential replaced by as many bytes; rules not applied.

        Args:
            body: The whole body, without content encoding.
            of_model: Whether a model answers, which may have been asked for a password: then only
                values with a sure name are redacted by name.
            replacements: Values redacted by name in earlier answers, and their replacements; those
                of this answer are added.
        """
        by_name = {} if replacements is None else replacements

        def word(value: bytes) -> bytes:
            by_name[value] = written = self.issued(value)
            return written

        body = self._search.replaced(body, word_of)
        body = without_fields(
            body,
            word,
            lambda value, _: b"1" * len(value),
            sure_only=of_model,
            shortest=SHORTEST_SECRET,
        )
        body = without_addresses(body, word, certain_only=of_model)
        if _FORM.fullmatch(body):  # some servers send tokens in this form
            body = b"&".join(_form_field(field, word) for field in body.split(b"&"))
        for value in [*by_name][-_MOST_REPEATED:]:  # the answer may repeat it
            if value in body and could_be_secret(value.decode("utf-8", "replace")):
                body = body.replace(value, word(value))
        return body

    def response(
        self,
        body: bytes,
        pieces: Sequence[bytes],
        *,
        of_model: bool = False,
        replacements: dict[bytes, bytes] | None = None,
    ) -> tuple[bytes, list[bytes]]:
        """Return a response body, redacted also by the rules, and its pieces as received.

        For the other arguments see `response_body`.
        """
        redacted = self.response_body(body, of_model=of_model, replacements=replacements)
        edits: list[tuple[int, int, bytes]] = []
        if self.rules:
            redacted, edits = self._by_rules(
                redacted, lambda match: word_of(len(match.group())).decode()
            )
        return redacted, _recut(redacted, [len(piece) for piece in pieces], edits)

    def _by_rules(
        self, body: bytes, replacement: Callable[[re.Match[str]], str]
    ) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        """Apply the user's rules to each JSON string of a body, or to the whole of another body."""
        text = body.decode("utf-8", "surrogateescape")
        tokens = list(_TEXT_TOKEN.finditer(text)) if _is_json_like(text) else []
        spans = [(*match.span(), self._token(match.group(), replacement)) for match in tokens]
        if not tokens and text:
            spans = [(0, len(text), self.by_rules(text, replacement))]
        written_pieces: list[bytes] = []
        edits: list[tuple[int, int, bytes]] = []
        at = place = 0
        for start, end, new in spans:
            before = text[at:start].encode("utf-8", "surrogateescape")
            old = text[start:end].encode("utf-8", "surrogateescape")
            written = new.encode("utf-8", "surrogateescape")
            place += len(before)
            if old != written:
                edits.append((place, place + len(old), written))
            written_pieces += [before, written]
            place += len(old)
            at = end
        written_pieces.append(text[at:].encode("utf-8", "surrogateescape"))
        return b"".join(written_pieces), edits

    def _token(self, token: str, replacement: Callable[[re.Match[str]], str]) -> str:
        try:
            value: str = json.loads(token, strict=False)
        except ValueError:
            return token
        new = self.by_rules(value, replacement)
        return token if new == value else json.dumps(new, ensure_ascii=token.isascii())

    def by_rules(self, text: str, replacement: Callable[[re.Match[str]], str] | None = None) -> str:
        """Apply only the user's rules to a text."""
        for rule in self.rules:
            if isinstance(rule, re.Pattern):
                text = rule.sub(replacement or (lambda match: self.digest(match.group())), text)
            else:
                text = rule(text)
        return text

    def text(self, text: str) -> str:
        """Redact known values in a text."""
        content = self.by_rules(text).encode("utf-8", "surrogatepass")
        return self._search.replaced(content, _fixed_word).decode("utf-8", "surrogatepass")

    def message(self, text: str) -> str:
        """Redact known values and credentials in addresses in an exception's message."""
        content = without_addresses(
            text.encode("utf-8", "surrogatepass"), lambda _: REDACTED.encode(), certain_only=False
        )
        return self.text(content.decode("utf-8", "surrogatepass"))

    def url(
        self, url: str, *, compared: bool = True, replacements: dict[bytes, bytes] | None = None
    ) -> str:
        """Return a URL, redacted.

        Args:
            url: The whole URL.
            compared: Whether it is a request's URL, so that different values stay different.
            replacements: As in `response_body`; values replaced in the query are added.
        """
        # All keys of a provider count as equal; on other hosts `key` may name anything.
        with_digest = compared and not is_provider(_host(url))

        def replaced(value: str) -> str:
            if replacements is None:
                return self.digest(value) if with_digest else REDACTED
            content = value.encode("utf-8", "surrogatepass")
            replacements[content] = written = self.issued(content)
            return written.decode()

        url = _USERINFO.sub(f"{REDACTED}@", url)
        path, mark, rest = url.partition("?")
        if mark:  # before any "#", or else in a fragment that is an address: #/callback?token=
            query, hash_mark, fragment = rest.partition("#")
            query = _with_parameters(query, is_credential_name, replaced)
            if self.rules:
                query = "&".join(self._parameter(part) for part in query.split("&"))
            url = path + mark + query + hash_mark + _fragment(fragment)
        elif "#" in url:
            path, hash_mark, fragment = url.partition("#")
            url = path + hash_mark + _fragment(fragment)
        return self.text(url) if self.values or self.rules else url

    def _parameter(self, part: str) -> str:
        name, mark, value = part.partition("=")
        plain = unquote_plus(value)
        new = self.by_rules(plain)
        return part if new == plain else name + mark + quote(new, safe="")

    def headers(
        self,
        headers: Iterable[tuple[str, str]],
        compared: Collection[str] = (),
        replacements: dict[bytes, bytes] | None = None,
    ) -> Headers:
        """Return header pairs in order, redacted.

        Args:
            headers: Name and value pairs.
            compared: Names that the rules compare, in lower case.
            replacements: As in `response_body`; values replaced in addresses are added.
        """
        pairs = [
            (name, self._header(name, value, compared, replacements)) for name, value in headers
        ]
        every = "\n".join([value for _, value in pairs]).encode("utf-8", "surrogatepass")
        if not (self.rules or self.holds_secret(every)):
            return tuple(pairs)
        return tuple([(name, self.text(value)) for name, value in pairs])

    def _header(
        self,
        name: str,
        value: str,
        compared: Collection[str],
        replacements: dict[bytes, bytes] | None,
    ) -> str:
        lower = name.lower()

        def replaced(value: bytes) -> bytes:
            if replacements is None:
                return REDACTED.encode()
            replacements[value] = written = self.issued(value)
            return written

        if lower == "set-cookie":
            return _COOKIE.sub(rf"\g<1>{REDACTED}", value)
        if is_credential_name(name):
            if lower in compared and not is_credential_header(name):
                return self.digest(value)
            return REDACTED
        if lower in ("location", "content-location"):
            return self.url(value, compared=False, replacements=replacements)
        if "/" in value and ("=" in value or "@" in value):  # link, refresh, referer
            content = value.encode("utf-8", "surrogatepass")
            content = without_addresses(content, replaced, certain_only=False)
            return content.decode("utf-8", "surrogatepass")
        return value


def _fixed_word(_: int) -> bytes:
    return REDACTED.encode()


def _fragment(fragment: str) -> str:
    return _with_parameters(fragment, is_credential_name, lambda _: REDACTED)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_json_like(text: str) -> bool:
    start = text.lstrip()[:6]
    return start.startswith(("{", "[", '"', "data:", "event:", "id:", ":"))


def _is_in_forms(name: str) -> bool:
    """Return whether a form field of this name holds a credential."""
    return name in _IN_FORMS or credential_kind(name) != ""


def _form_field(field: bytes, replacement: Callable[[bytes], bytes]) -> bytes:
    name, mark, value = field.partition(b"=")
    is_hidden = value and credential_kind(name.decode("latin-1")) == "sure"
    return name + mark + replacement(value) if is_hidden else field


def _with_parameters(
    query: str, is_secret: Callable[[str], bool], replacement: Callable[[str], str]
) -> str:
    """Return a query string or form with credentials replaced and all else unchanged."""
    if "=" not in query:
        return query
    remaining: list[str] = []
    for part in query.split("&"):
        name, mark, value = part.partition("=")
        plain = unquote(value)
        is_hidden = value and not is_redacted(plain) and is_secret(unquote_plus(name))
        remaining.append(name + mark + replacement(plain) if is_hidden else part)
    return "&".join(remaining)


def _recut(
    body: bytes, sizes: Sequence[int], edits: Sequence[tuple[int, int, bytes]]
) -> list[bytes]:
    """Cut an edited body where the pieces of the old one, of these sizes, ended.

    Each edit is start and end in the old bytes, and the replacement; in order.
    """
    cut: list[bytes] = []
    start = old = 0
    for size in sizes:
        old += size
        new = old
        for first, last, written in edits:
            if last <= old:
                new += len(written) - (last - first)
            elif first < old:
                new += min(0, len(written) - (old - first))
        cut.append(body[start:new])
        start = max(start, new)
    if cut and start < len(body):
        cut[-1] += body[start:]
    return cut
