"""Redact credentials by name: in JSON of any depth, and in addresses within text. No I/O.

A name is sure (`api_key`, `accessToken`), likely (`password`, `sessionId`: in a model's answer it
may be what the model was asked for), or that of a short code (`otp`, `pin`: digits only). JSON may
be nested in strings of JSON to any depth, which the backslashes before the quotes show. Schemas are
kept: a tool's property called `api_key` stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from ember_testing.replay.secrets import (
    SHORTEST_SECRET,
    could_be_secret,
    is_certain_name,
    is_credential_name,
    is_redacted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["credential_kind", "without_addresses", "without_fields"]

_SURE = re.compile(
    r"""(?:api|access|secret|secret_?access|private|signing|encryption|account|master|
    service_?role|subscription|license|shared_?access)_?keys?$
    | (?:^|_)(?:access|refresh|id|auth|session|bearer|security|sas|oauth2?|api|bot|personal_?access|
      csrf|xsrf|jwt|service|deploy|webhook|device|registration|user|app|authorization)_?tokens?$
    | (?:client|consumer|webhook|app|api|shared|signing|hmac)_?secrets?$
    | (?:^|_)authorization$ | connection_?string$""",
    re.X,
)
_LIKELY = re.compile(
    r"""(?:^|_)(?:passwords?|passwd|pwd|passphrase|passcode|secrets?|credentials?|jwt|bearer|
    (?:set_)?cookies?|sess(?:ion)?_?id)$""",
    re.X,
)
_CODE = re.compile(
    r"""(?:^|_)(?:t?otp|pin|(?:otp|pin|mfa|totp|2fa|two_?factor|verification|security|one_?time|
    confirmation)_?(?:code|pin)|cvv|cvc)$""",
    re.X,
)
# Each such name has one of these endings. Not "tokens" or "string": most requests contain them.
_ENDS = (
    b"key", b"keys", b"token", b"secret", b"secrets", b"authorization", b"bearer", b"password",
    b"passwords", b"passwd", b"pwd", b"passphrase", b"passcode", b"credential", b"credentials",
    b"jwt", b"cookie", b"cookies", b"sessionid", b"session_id", b"session-id", b"sessid",
    b"sess_id", b"otp", b"pin", b"code", b"cvv", b"cvc", b"accesstokens", b"access_tokens",
    b"refresh_tokens", b"api_tokens", b"auth_tokens", b"connectionstring", b"connection_string",
    b"connection-string",
)  # fmt: skip
_LAST_LETTERS = frozenset(end[-3:] for end in _ENDS)
_NAME = re.compile(rb'(?<!\\)(?P<quote>\\*")(?P<name>[\w .\-]{2,80})(?P=quote)\s*:\s*')
# Keys of an object under such a name whose value is the credential itself.
_INNER = frozenset([b"value", b"secret", b"token", b"key", b"current", b"previous", b"data"])
_SCHEMA = frozenset([b"$ref", b"anyOf", b"oneOf", b"allOf", b"enum", b"const", b"properties"])
_TYPES = frozenset(
    word
    for name in (b"string", b"object", b"array", b"integer", b"number", b"boolean", b"null")
    for word in (name, name.upper())  # Google uses upper case
)
_DIGITS = re.compile(rb"\d[\d -]{2,10}\d")
_NUMBER = re.compile(rb"\d{4,10}(?![\d.eE])")
_LONGEST_VALUE = 20_000  # bytes of an object or list that are searched
_TOKEN = re.compile(r"(?=.*\d)[\w.~+/=:-]{16,}")

# A whole address after its scheme, or one that begins with its path. Servers may escape / ? & =.
_ADDRESS = re.compile(
    rb"""(?::(?:\\{0,8}/){2}|(?<=["'<=(\s])\\{0,8}/)(?:[^\s"'<>\\`{}]|\\{1,8}(?:/|u[0-9a-f]{4}))+""",
    re.I,
)
_PARAMETER = re.compile(
    rb"""(?P<head>(?:[?&\#;]|\\{1,8}u00(?:26|3f))(?:amp;)?(?P<name>[\w.~%\-\[\]]+)(?:=|\\{1,8}u003d))
    (?P<value>(?:(?!\\{1,8}u0026)[^&\#;),\]])+)""",
    re.I | re.X,
)
_USER = re.compile(rb"(?P<head>:(?:\\{0,8}/){2}[^/@?#:\\]*:)(?P<value>[^/@?#\\]+)(?=@)")


@lru_cache(maxsize=2048)
def credential_kind(name: str) -> str:
    """Classify a JSON field's name: `sure`, `likely`, `code`, `token`; "" for no credential."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = re.sub(r"[-. ]", "_", words)
    if _SURE.search(words):
        return "sure"
    if _LIKELY.search(words):
        return "likely"
    if _CODE.search(words):
        return "code"
    return "token" if words == "token" else ""


def without_fields(
    body: bytes,
    replacement: Callable[[bytes], bytes],
    number: Callable[[bytes, bytes], bytes],
    *,
    sure_only: bool,
    shortest: int,
) -> bytes:
    """Return a body with the values of credential fields replaced.

    Args:
        body: JSON, or events or text containing JSON.
        replacement: Returns the replacement of a value.
        number: Returns the replacement of a number, given the quote character of the JSON around
            it, with its backslashes.
        sure_only: Keep the values of likely names.
        shortest: The shortest value to replace, in bytes.
    """
    if not _may_have_fields(body):
        return body
    parts: list[bytes] = []
    done = 0
    looked_at = 0  # bytes of objects and lists: a hostile body nests thousands
    members: frozenset[bytes] = frozenset()
    for match in _NAME.finditer(body):
        kind = credential_kind(match["name"].decode("latin-1"))
        if match.end() <= done or not kind or (sure_only and kind != "sure"):
            continue
        quote, at = match["quote"], match.end()
        if kind == "code" and (digits := _NUMBER.match(body, at)):
            parts += [body[done:at], number(digits.group(), quote)]
            done = digits.end()
            continue
        if body[at : at + 1] in (b"[", b"{"):
            looked_at += _LONGEST_VALUE
            if looked_at > 2 * len(body) + 10 * _LONGEST_VALUE:
                continue
            members = members or frozenset(each["name"] for each in _NAME.finditer(body))
        for start, end in _values(body, at, quote, kind, shortest, members):
            if start >= done:
                parts += [body[done:start], replacement(body[start:end])]
                done = end
    return b"".join([*parts, body[done:]]) if parts else body


def _may_have_fields(body: bytes) -> bool:
    """Return whether a credential's name may precede a quote: a fast check of every body."""
    return any(
        piece.endswith(_ENDS)
        for piece in body.lower().replace(b"\\", b"").split(b'"')
        if piece[-3:] in _LAST_LETTERS
    )


def _values(
    body: bytes, at: int, quote: bytes, kind: str, shortest: int, members: frozenset[bytes]
) -> Iterator[tuple[int, int]]:
    """Yield the spans of the credentials in the value that begins at `at`."""
    if body.startswith(quote, at):
        found = _string(quote).match(body, at)
        if found and _is_credential(found["text"], kind, shortest):
            yield found.span("text")
    elif body[at : at + 1] in (b"[", b"{") and kind in ("sure", "likely"):
        yield from _inside(body, at, quote, shortest, members)


def _is_credential(text: bytes, kind: str, shortest: int) -> bool:
    if is_redacted(text.decode("latin-1")):
        return False
    if kind == "code":
        return bool(_DIGITS.fullmatch(text))
    if kind == "token":  # also a word of language models: only values that look generated
        return bool(_TOKEN.fullmatch(text.decode("latin-1")))
    return len(text) >= shortest


@lru_cache(maxsize=16)
def _string(quote: bytes) -> re.Pattern[bytes]:
    """Return a pattern for a string whose quotes have this many backslashes before them."""
    if quote == b'"':
        return re.compile(rb'"(?P<text>(?:[^"\\]|\\.)*)"', re.S)
    end = rb"(?<!\\)" + re.escape(quote)
    return re.compile(rb"%b(?P<text>(?:(?!%b).)*)%b" % (re.escape(quote), end, end), re.S)


@lru_cache(maxsize=16)
def _tokens(quote: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?:%b)|[\[\]{}]" % _string(quote).pattern, re.S)


def _inside(
    body: bytes, at: int, quote: bytes, shortest: int, members: frozenset[bytes]
) -> list[tuple[int, int]]:
    """Return the spans of the credentials in an object or list; none if it is a schema.

    `members` are the names of the body's members: a list of them, as in a schema's
    `dependentRequired`, holds no credentials.
    """
    found: list[tuple[int, int]] = []
    names: list[bytes | None] = []  # of the open containers
    name: bytes | None = None
    end = min(len(body), at + _LONGEST_VALUE)
    for match in _tokens(quote).finditer(body, at, end):
        token = match.group()
        if token in (b"{", b"["):
            names.append(name)
            name = None
        elif token in (b"}", b"]"):
            names.pop()
            name = None
            if not names:
                return found
        else:
            text, after = match["text"], body[match.end() : match.end() + 8].lstrip()
            if after.startswith(b":"):
                if text in _SCHEMA:
                    return []
                name = text
                continue
            under = name or names[-1]  # list items belong to the list's name
            if under == b"type" and text in _TYPES:
                return []
            held = (
                under is None or under in _INNER or bool(credential_kind(under.decode("latin-1")))
            )
            if name is None and text in members:
                continue
            if held and _is_credential(text, "sure", shortest) and not re.search(rb"\s", text):
                found.append(match.span("text"))
            name = None
    return []  # truncated or too long


def without_addresses(
    body: bytes, replacement: Callable[[bytes], bytes], *, certain_only: bool
) -> bytes:
    """Return a text with the credentials in the queries and userinfo of addresses replaced.

    With `certain_only` the values of names that are not certain stay.
    """
    if b"/" not in body or not (b"=" in body or b"@" in body or b"u003d" in body.lower()):
        return body
    is_secret = is_certain_name if certain_only else is_credential_name

    def user(match: re.Match[bytes]) -> bytes:
        value = match["value"]
        return match["head"] + (value if _is_template(value) else replacement(value))

    def parameter(match: re.Match[bytes]) -> bytes:
        value = match["value"]
        plain = unquote_plus(value.decode("latin-1"))
        name = unquote_plus(match["name"].decode("latin-1"))
        if not is_secret(name) or not could_be_secret(plain) or _is_template(value):
            return match.group()
        return match["head"] + replacement(value)

    def address(match: re.Match[bytes]) -> bytes:
        return _PARAMETER.sub(parameter, _USER.sub(user, match.group()))

    return _ADDRESS.sub(address, body)


def _is_template(value: bytes) -> bool:
    """Return whether a value is a placeholder: $TOKEN, %s, YOUR_API_KEY, ***."""
    return (
        len(value) < SHORTEST_SECRET // 2
        or value[:1] in b"$%*<["
        or is_redacted(value.decode("latin-1"))
        or value.upper().startswith((b"YOUR", b"MY_", b"XXX"))
    )
