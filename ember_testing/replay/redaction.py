"""What is never written down: credentials, by value and by name. Pure functions, no I/O.

By value: whatever the environment holds under a name that says it is a credential, and whatever a
request carried as one, wherever else it turns up (a body, an echo in an error text, a URL).
By name: credential headers, query parameters, JSON and form fields.

In a response every replacement has the length of what it replaces, so that content lengths and the
boundaries of stream pieces stay exact. A request is written with one fixed word instead, so that it
matches the same request made with another key. A name alone never loses its value when that is not
a string: a tool schema's property called `api_key` is an object and stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ember_testing.wires.body import Headers

REDACTED = "REDACTED"
SHORTEST_SECRET = 8
"""Characters. Anything shorter ("test", "x") would be found inside ordinary words."""

_ENVIRONMENT = re.compile(
    r"(?:^|_)(?:API_?KEYS?|KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?|BEARER|PAT|AUTH)"
    r"(?:_|$)|(?:APIKEY|TOKEN|SECRET|PASSWORD)(?:_|$)",
    re.IGNORECASE,
)
_HOLDS_THE_VALUE = re.compile(r"(?:API_?KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
# Words as they stand between the hyphens and underscores of a header or a query parameter.
# "tokens" is not among them: x-ratelimit-remaining-tokens is a figure that programs read.
_NAME_WORDS = frozenset(
    [
        "apikey",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "jwt",
        "key",
        "passwd",
        "password",
        "pwd",
        "secret",
        "sig",
        "signature",
        "token",
    ]
)
# Names made of those words that hold no credential, and that tell one request from another.
_HARMLESS = re.compile(
    r"^(?:idempotency[-_]key|(?:next|page|continuation|cursor)[-_]?token)$", re.I
)
# The names whose value is a credential for certain, and is looked for everywhere else too.
_CERTAIN = re.compile(
    r"^(?:proxy-)?authorization$|(?:^|[-_])(?:api[-_]?key|access[-_]?token|auth[-_]?token|"
    r"security[-_]token|secret|password|subscription-key)$|^(?:key|token|sig)$|-auth(?:orization)?$",
    re.IGNORECASE,
)
_FIELDS = [
    "api_key",
    "apiKey",
    "apikey",
    "api-key",
    "x-api-key",
    "access_token",
    "accessToken",
    "refresh_token",
    "refreshToken",
    "id_token",
    "idToken",
    "client_secret",
    "clientSecret",
    "secret_key",
    "secretKey",
    "secret_access_key",
    "secretAccessKey",
    "aws_secret_access_key",
    "session_token",
    "sessionToken",
    "auth_token",
    "authToken",
    "authorization",
    "Authorization",
    "authorization_token",
    "private_key",
    "privateKey",
    "bearer_token",
]
# How all of those end: a body in which none of these stands needs no search.
_FIELD_ENDS = (b'ey"', b'oken"', b'ecret"', b'uthorization"')
_JSON_FIELD = re.compile(
    rb'("(?:' + b"|".join(re.escape(name.encode()) for name in _FIELDS) + rb')"\s*:\s*")'
    rb'((?:[^"\\]|\\.){%d,})(?=")' % SHORTEST_SECRET
)
_FORM_FIELDS = frozenset(name.lower() for name in _FIELDS) | {"password", "assertion"}
_SCHEME = re.compile(r"^(?:bearer|basic|token|apikey|digest)\s+", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=//)([^/@?#]*)@")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_NEVER_ESCAPED = re.compile("[A-Za-z0-9._~-]+")


@lru_cache(maxsize=512)
def is_credential_name(name: str) -> bool:
    """Whether a header or query parameter of this name holds a credential."""
    words = re.split(r"[-_]", name.lower())
    return not _HARMLESS.match(name) and not _NAME_WORDS.isdisjoint(words)


@lru_cache(maxsize=512)
def _is_certain_name(name: str) -> bool:
    return bool(_CERTAIN.search(name))


@lru_cache(maxsize=16)
def _credential_variables(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _ENVIRONMENT.search(name))


def _could_be_secret(value: str) -> bool:
    # A sentence or an address would be torn out of bodies in which it stands for itself.
    return (
        len(value) >= SHORTEST_SECRET
        and value != REDACTED  # a recording that is sent again, or imported
        and not value.startswith(("http://", "https://"))
        and len(value.split()) == 1
    )


def _is_path(name: str, value: str) -> bool:
    # $SSH_AUTH_SOCK, $SSL_KEY_FILE. A key in base64 may begin with a slash as well.
    return value.startswith(("/", "~")) and not _HOLDS_THE_VALUE.search(name)


def secrets_of_environment(
    environment: Mapping[str, str], names: tuple[str, ...] | None = None
) -> frozenset[str]:
    """The values of all variables whose name says that they are credentials.

    Args:
        environment: Usually `os.environ`.
        names: Its names, should the caller have them: os.environ decodes each anew.
    """
    # By name first: os.environ decodes a value each time it is asked for it.
    found = [
        (name, environment[name]) for name in _credential_variables(names or tuple(environment))
    ]
    return frozenset(
        value for name, value in found if _could_be_secret(value) and not _is_path(name, value)
    )


def secrets_of_request(url: str, headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The credentials that a request carries in places made for them.

    Args:
        url: The whole URL, its query string and user part included.
        headers: Name and value pairs.
    """
    sent = [value for name, value in headers if _is_certain_name(name)]
    found = [_SCHEME.sub("", value) for value in sent]
    found += [password for value in sent if (password := _password_of_basic(value))]
    if "?" in url or "@" in url:
        found += _secrets_of_url(url)
    return frozenset(value for value in found if _could_be_secret(value))


def _password_of_basic(value: str) -> str:
    """The password in a header of Basic authorization; "" where it is none."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        plain = base64.b64decode(rest.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return plain.partition(":")[2]


@lru_cache(maxsize=256)
def _secrets_of_url(url: str) -> tuple[str, ...]:
    pairs = (part.partition("=") for part in url.partition("?")[2].partition("#")[0].split("&"))
    found = [
        unquote_plus(value) for name, _, value in pairs if _is_certain_name(unquote_plus(name))
    ]
    if userinfo := _USERINFO.search(url):
        found.append(unquote_plus(userinfo.group(1).partition(":")[2]))
    return tuple(found)


def _spelled(character: str) -> bytes:
    """A pattern for a character in a URL, in a form, in JSON, and in JSON inside of JSON."""
    content = character.encode("utf-8", "surrogatepass")
    if _NEVER_ESCAPED.fullmatch(character):
        return re.escape(content)
    in_url = b"".join(b"%%%02x" % byte for byte in content)
    # Which characters are written as \uXXXX differs from server to server.
    units = character.encode("utf-16-be", "surrogatepass").hex()
    in_json = rb"".join(
        rb"\\+u" + units[start : start + 4].encode() for start in range(0, len(units), 4)
    )
    return rb"(?:\\*%b|(?i:%b|%b))" % (re.escape(content), in_url, in_json)


@lru_cache(maxsize=64)
def _search(values: frozenset[str]) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
    """What tells that one of these values may stand somewhere, and what finds it.

    Returns:
        The longest part of each value that no spelling changes, which is looked for faster than a
        pattern; and the pattern.
    """
    # The longest first: one key may begin with another.
    ordered = sorted(values, key=lambda value: (-len(value), value))
    fragments = {max(_NEVER_ESCAPED.findall(value), key=len, default="") for value in ordered}
    patterns = (b"".join(map(_spelled, value)) for value in ordered)
    return tuple(each.encode() for each in sorted(fragments)), re.compile(b"|".join(patterns))


@lru_cache(maxsize=64)
def _in_base64(value: str) -> frozenset[bytes]:
    """A value as it stands inside of a longer text in base64, at any place of it."""
    content = value.encode("utf-8", "surrogatepass")
    found: set[bytes] = set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + content)
        # Without the characters at both ends that neighbouring bytes have a part in.
        inner = text[-(-8 * before // 6) : 8 * (before + len(content)) // 6]
        found |= {inner, inner.translate(_URL_SAFE)}
    return frozenset(found)


def _may_hold_field(body: bytes) -> bool:
    a, b, c, d = _FIELD_ENDS
    return a in body or b in body or c in body or d in body


def _same_length(match: re.Match[bytes]) -> bytes:
    return REDACTED.encode().ljust(len(match.group()), b"*")[: len(match.group())]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Replaces the given secret values, and whatever stands under a credential's name.

    Attributes:
        values: The secrets known so far.
    """

    values: frozenset[str] = frozenset()
    _fragments: tuple[bytes, ...] = field(init=False, repr=False)
    _pattern: re.Pattern[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        fragments, pattern = _search(self.values)
        object.__setattr__(self, "_fragments", fragments)
        object.__setattr__(self, "_pattern", pattern)

    def __repr__(self) -> str:
        return f"Redaction({len(self.values)} values)"  # the values themselves are the secret

    def also(self, values: Iterable[str]) -> Redaction:
        """This redaction with more values; itself when it knows them already."""
        more = self.values.union(values)
        return self if more == self.values else Redaction(more)

    def holds_secret(self, content: bytes) -> bool:
        """Whether a known value stands in these bytes, in any spelling that is replaced."""
        for fragment in self._fragments:  # not `any`: a generator costs more than the search
            if fragment in content:
                return bool(self._pattern.search(content))
        return False

    def holds_encoded(self, content: bytes) -> bool:
        """Whether a known value stands in these bytes inside of base64, where it is not replaced.

        It takes as long as all the rest, and is asked once, before a cassette is given its place.
        """
        return any(inner in content for value in self.values for inner in _in_base64(value))

    def request_body(self, body: bytes, content_type: str = "") -> bytes:
        """A request body with each credential replaced by one fixed word.

        Args:
            body: The bytes that are sent.
            content_type: Tells a form from JSON.
        """
        if self.holds_secret(body):
            body = self._pattern.sub(REDACTED.encode(), body)
        if _may_hold_field(body):
            body = _JSON_FIELD.sub(rb"\1" + REDACTED.encode(), body)
        if "form-urlencoded" in content_type:
            body = _without_credentials(body.decode("latin-1"), _FORM_FIELDS).encode("latin-1")
        return body

    def response_body(self, body: bytes) -> bytes:
        """A response body with each credential replaced by as many other bytes."""
        if self.holds_secret(body):
            body = self._pattern.sub(_same_length, body)
        if _may_hold_field(body):
            body = _JSON_FIELD.sub(
                lambda match: match.group(1) + REDACTED.encode().ljust(len(match.group(2)), b"*"),
                body,
            )
        return body

    def text(self, text: str) -> str:
        """A sentence, such as an exception's message, without known values."""
        return self.request_body(text.encode("utf-8", "surrogatepass")).decode(
            "utf-8", "surrogatepass"
        )

    def url(self, url: str) -> str:
        """A URL without the credentials of its query string and user part, and without values."""
        return (
            self.text(_url_without_credentials(url))
            if self.values
            else (_url_without_credentials(url))
        )

    def headers(self, headers: Iterable[tuple[str, str]]) -> Headers:
        """Header pairs in their order, credentials replaced by one fixed word."""
        pairs = [
            (name, REDACTED)
            if is_credential_name(name)
            else (name, _url_without_credentials(value))
            if "?" in value and name.lower() == "location"
            else (name, value)
            for name, value in headers
        ]
        every = "\n".join([value for _, value in pairs])
        if not self.holds_secret(every.encode("utf-8", "surrogatepass")):
            return tuple(pairs)
        return tuple([(name, self.text(value)) for name, value in pairs])


@lru_cache(maxsize=512)
def _url_without_credentials(url: str) -> str:
    url = _USERINFO.sub(f"{REDACTED}@", url)
    path, mark, rest = url.partition("?")
    if not mark:
        return url
    query, hash_mark, fragment = rest.partition("#")
    return path + mark + _without_credentials(query, None) + hash_mark + fragment


def _without_credentials(query: str, names: frozenset[str] | None) -> str:
    """A query string or form with its credentials' values replaced, all else byte for byte."""
    kept: list[str] = []
    for part in query.split("&"):
        name, mark, value = part.partition("=")
        plain = unquote_plus(name)
        secret = plain.lower() in names if names is not None else is_credential_name(plain)
        kept.append(name + mark + REDACTED if secret and value else part)
    return "&".join(kept)
