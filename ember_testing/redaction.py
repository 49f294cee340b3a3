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

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REDACTED = "REDACTED"
SHORTEST_SECRET = 8
"""Characters. Anything shorter ("test", "x") would be found inside ordinary words."""

Headers = tuple[tuple[str, str], ...]

_ENVIRONMENT = re.compile(
    r"(?:^|_)(?:API_?KEYS?|KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?|BEARER|PAT|AUTH)"
    r"(?:_|$)|(?:APIKEY|TOKEN|SECRET|PASSWORD)(?:_|$)",
    re.IGNORECASE,
)
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
    r"security[-_]token|secret|password|subscription-key)$|^(?:key|token|sig)$|-authorization$",
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
    # A path ($XAUTHORITY, $SSH_AUTH_SOCK), a sentence or an address would be torn out of bodies
    # in which it stands for itself.
    return (
        len(value) >= SHORTEST_SECRET
        and value != REDACTED  # a recording that is sent again, or imported
        and not value.startswith(("/", "~", "http://", "https://"))
        and len(value.split()) == 1
    )


def secrets_of_environment(
    environment: Mapping[str, str], names: tuple[str, ...] | None = None
) -> frozenset[str]:
    """The values of all variables whose name says that they are credentials.

    Args:
        environment: Usually `os.environ`.
        names: Its names, should the caller have them: os.environ decodes each anew.
    """
    # By name first: os.environ decodes a value each time it is asked for it.
    found = [environment[name] for name in _credential_variables(names or tuple(environment))]
    return frozenset(value for value in found if _could_be_secret(value))


def secrets_of_request(url: str, headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The credentials that a request carries in places made for them.

    Args:
        url: The whole URL, its query string and user part included.
        headers: Name and value pairs.
    """
    found = [_SCHEME.sub("", value) for name, value in headers if _is_certain_name(name)]
    if "?" in url or "@" in url:
        found += _secrets_of_url(url)
    return frozenset(value for value in found if _could_be_secret(value))


@lru_cache(maxsize=256)
def _secrets_of_url(url: str) -> tuple[str, ...]:
    pairs = (part.partition("=") for part in url.partition("?")[2].partition("#")[0].split("&"))
    found = [
        unquote_plus(value) for name, _, value in pairs if _is_certain_name(unquote_plus(name))
    ]
    if userinfo := _USERINFO.search(url):
        found.append(unquote_plus(userinfo.group(1).partition(":")[2]))
    return tuple(found)


def _spellings(value: str) -> set[str]:
    """How a value may stand in a URL, in a form, in JSON."""
    return {
        value,
        quote(value, safe=""),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value)[1:-1].replace("/", "\\/"),
    }


def _may_hold_field(body: bytes) -> bool:
    a, b, c, d = _FIELD_ENDS
    return a in body or b in body or c in body or d in body


def _same_length(match: re.Match[bytes]) -> bytes:
    return REDACTED.encode().ljust(len(match.group()), b"*")[: len(match.group())]


def cut_alike(whole: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    """The bytes of a stream, cut where these pieces of the same length are cut."""
    cut: list[bytes] = []
    start = 0
    for piece in pieces:
        cut.append(whole[start : start + len(piece)])
        start += len(piece)
    return cut


@dataclass(frozen=True, slots=True)
class Redaction:
    """Replaces the given secret values, and whatever stands under a credential's name.

    Attributes:
        values: The secrets known so far.
    """

    values: frozenset[str] = frozenset()
    _needles: tuple[bytes, ...] = field(init=False, repr=False)
    _pattern: re.Pattern[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        spellings = {form for value in self.values for form in _spellings(value)}
        # The longest first: one key may begin with another.
        needles = tuple(
            form.encode("utf-8", "surrogatepass")
            for form in sorted(spellings, key=lambda form: (-len(form), form))
        )
        object.__setattr__(self, "_needles", needles)
        object.__setattr__(self, "_pattern", re.compile(b"|".join(map(re.escape, needles))))

    def __repr__(self) -> str:
        return f"Redaction({len(self.values)} values)"  # the values themselves are the secret

    def also(self, values: Iterable[str]) -> Redaction:
        """This redaction with more values; itself when it knows them already."""
        more = self.values.union(values)
        return self if more == self.values else Redaction(more)

    def holds_secret(self, content: bytes) -> bool:
        """Whether a known value stands in these bytes, in any spelling."""
        for needle in self._needles:  # noqa: SIM110 - a generator costs more than the search
            if needle in content:
                return True
        return False

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
            if self._needles
            else (_url_without_credentials(url))
        )

    def headers(self, headers: Iterable[tuple[str, str]]) -> Headers:
        """Header pairs in their order, credentials replaced by one fixed word."""
        pairs = [(name, REDACTED if is_credential_name(name) else value) for name, value in headers]
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
