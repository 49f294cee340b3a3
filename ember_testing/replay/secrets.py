"""Find secrets: in environment variables and in a request's credential positions. No I/O.

Only long values that are no common words are searched for by value: others would match ordinary
text.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit

from ember_testing.patches.keys import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REDACTED = "REDACTED"
SHORT = "R~"
"""Begins the replacement of a short credential; digits that tell it from others follow."""
_SHORT_REPLACEMENT = re.compile(f"{SHORT}[0-9a-f]+")
SHORTEST_SECRET = 8
"""Characters. Anything shorter ("test", "x") would match inside ordinary words."""

_LONGEST_WORD = 15  # letters; longer runs of letters count as secrets
_WORDS = (
    r"API_?KEYS?|APIKEY|KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASS|PWD|"
    r"CREDENTIALS?|BEARER|PAT|JWT|AUTH"
)
_ENVIRONMENT = re.compile(
    rf"(?:^|_)(?:{_WORDS})(?:_|$)|(?:APIKEY|TOKEN|SECRET|PASSWORD)(?:_|$)", re.IGNORECASE
)
# Names of settings about a credential, not the credential: AUTH_PROVIDER, TOKEN_LIMIT.
_ABOUT = re.compile(
    r"_(?:PROVIDERS?|NAMES?|TYPES?|FILES?|PATHS?|DIRS?|URLS?|URIS?|HOSTS?|PORTS?|METHODS?|MODES?|"
    r"ENABLED|DISABLED|REQUIRED|LIMITS?|COUNTS?|SIZES?|TTL|EXPIRY|EXPIRES(?:_IN)?|EXPIRATION|"
    r"LIFETIME|HEADERS?|ALGORITHMS?|ALGO|ISSUERS?|AUDIENCES?|SCOPES?|VERSIONS?|REGIONS?|BACKENDS?|"
    r"ENDPOINTS?|DOMAINS?|USERS?|USERNAMES?|EMAILS?|SERVICES?|STRATEG(?:Y|IES)|TIMEOUTS?|LENGTHS?|"
    r"FORMATS?|PREFIX(?:ES)?|SUFFIX(?:ES)?|SOCK|SOCKETS?|MAX|MIN|PARALLELISM|POLICY|SOURCE|STORE)$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?:URLS?|URIS?|DSN|PROXY|CONNECTION|CONNECTION_STRING)$", re.IGNORECASE)
_CONNECTION_PASSWORD = re.compile(r"(?:password|pwd|accountkey|sharedaccesskey)=([^;\s]+)", re.I)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.+?)-----END", re.DOTALL)
_LINE_END = re.compile(r"(?:\\r|\\n|\s)+")
_HOLDS_THE_VALUE = re.compile(
    r"(?:API_?KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD|PASS|PWD|JWT)$", re.IGNORECASE
)
_COMMON = frozenset(
    [
        "admin", "changeit", "changeme", "default", "demo", "development", "dummy", "example",
        "fake", "foobar", "guest", "letmein", "local", "localhost", "minioadmin", "mongo", "mysql",
        "pass", "passwd", "password", "placeholder", "postgres", "postgresql", "production",
        "qwerty", "rabbitmq", "redis", "root", "sample", "secret", "staging", "test", "testing",
        "token", "unused", "user", "welcome",
    ]
)  # fmt: skip
_DECORATION = re.compile(r"[\d!._@#$-]+$|[_-]")

# The variables from which Ember and the vendors' packages read keys, besides those in Ember's table
# of servers.
_OF_PACKAGES = (
    "AI21_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AZURE_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "CO_API_KEY",
    "COHERE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "OPENAI_ADMIN_KEY",
    "REPLICATE_API_TOKEN", "VOYAGE_API_KEY",
)  # fmt: skip

_OF_A_PROVIDER = re.compile(r"(?:^|_)(?:API_?KEY|API_TOKEN|AUTH_TOKEN)$", re.IGNORECASE)

# Words in the name of a header or query parameter, split at hyphens and underscores.
# Not "tokens": x-ratelimit-remaining-tokens is a number that programs read.
_NAME_WORDS = frozenset(
    [
        "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "csrf",
        "jwt", "key", "passwd", "password", "pwd", "secret", "session", "sessionid", "sig",
        "signature", "token", "xsrf",
    ]
)  # fmt: skip
# Names with those words that hold no credential but distinguish requests.
_HARMLESS = re.compile(
    r"^(?:idempotency[-_]key|(?:next|page|continuation|cursor)[-_]?token|x-amzn-bedrock-(?:in|out)put-token-count)$",
    re.I,
)
# Names whose value is certainly a credential, and is searched for everywhere else too.
_CERTAIN = re.compile(
    r"^(?:proxy-)?authorization$|(?:^|[-_])(?:api[-_]?key|access[-_]?token|auth[-_]?token|"
    r"security[-_]token|secret|password|subscription-key)$|^(?:key|token|sig)$|-auth(?:orization)?$",
    re.IGNORECASE,
)
# Headers whose credential is not compared, whatever the host.
_CREDENTIAL_HEADERS = re.compile(
    r"^(?:(?:.*-)?authorization|cookie|set-cookie|x-api-key|api-key|x-goog-api-key)$", re.I
)
_SCHEME = re.compile(r"^(?:bearer|basic|token|apikey|digest)\s+", re.IGNORECASE)


@lru_cache(maxsize=512)
def is_credential_name(name: str) -> bool:
    """Return whether a header or query parameter of this name holds a credential."""
    words = re.split(r"[-_]", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return not _HARMLESS.match(name) and not _NAME_WORDS.isdisjoint(words)


@lru_cache(maxsize=512)
def is_credential_header(name: str) -> bool:
    """Return whether a header's value is certainly a credential, and so is not compared."""
    return bool(_CREDENTIAL_HEADERS.match(name))


@lru_cache(maxsize=512)
def is_certain_name(name: str) -> bool:
    """Return whether a value of this name is certainly a credential, searched for everywhere."""
    return bool(_CERTAIN.search(name))


@lru_cache(maxsize=256)
def is_provider(host: str) -> bool:
    """Return whether a host belongs to a provider that Ember knows."""
    from ember.providers.servers import SELLERS  # imported late: it loads part of Ember

    azure = (".openai.azure.com", ".services.ai.azure.com")
    return host in SELLERS or host.endswith((*azure, ".googleapis.com"))


def is_redacted(value: str) -> bool:
    """Return whether a value stands in for a credential: in a recording that is sent again, say."""
    return value.startswith(REDACTED) or bool(_SHORT_REPLACEMENT.fullmatch(value))


@lru_cache(maxsize=512)  # every test checks the same few values
def could_be_secret(value: str) -> bool:
    """Return whether a value is searched for everywhere: long enough, and no common word."""
    # A sentence or an address may appear in a body for its own sake.
    return (
        len(value) >= SHORTEST_SECRET
        and not (REDACTED in value or is_redacted(value))
        and not value.startswith(("http://", "https://"))
        and len(value.split()) == 1
        and not is_common(value)
    )


def is_common(value: str) -> bool:
    """Return whether a value is a common word or number, which is not redacted by value."""
    if value.isdigit():
        return len(value) < 16  # a date, a port, a number
    if value.isalpha() and len(value) <= _LONGEST_WORD:
        return value.islower() or value.isupper() or value.istitle()
    words = [word for word in _DECORATION.sub(" ", value).lower().split() if word]
    return bool(words) and all(word in _COMMON for word in words)


@lru_cache(maxsize=16)
def _variables(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name
        for name in names
        if _ADDRESS.search(name) or (_ENVIRONMENT.search(name) and not _ABOUT.search(name))
    )


def _is_path(name: str, value: str) -> bool:
    # $SSH_AUTH_SOCK, $SSL_KEY_FILE. A key in base64 may begin with a slash as well.
    return value.startswith(("/", "~")) and not _HOLDS_THE_VALUE.search(name)


def variables_of_environment(
    environment: Mapping[str, str], names: tuple[str, ...] | None = None
) -> dict[str, str]:
    """Return the secrets of an environment, each with the variable that holds it.

    A caller that has the environment's names may pass them: os.environ decodes them each time.
    """
    # Filter by name first: os.environ decodes a value on each access.
    found: dict[str, str] = {}
    for name in _variables(names or tuple(environment)):
        value = environment[name].strip()  # a line end of a file that was read into it
        if _ADDRESS.search(name):
            values = _passwords_of_address(value)
        elif private := _PRIVATE_KEY.search(value):  # as it is, or in JSON
            values = _LINE_END.split(private[1])
        else:
            values = [] if _is_path(name, value) else [value]
        found |= {each: name for each in values if could_be_secret(each)}
    return found


def secrets_of_environment(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the values of all variables that are named like credentials."""
    return frozenset(variables_of_environment(environment))


@lru_cache(maxsize=64)
def _passwords_of_address(address: str) -> list[str]:
    found = _CONNECTION_PASSWORD.findall(address)
    if "://" in address and "@" in address:
        try:
            password = urlsplit(address).password
        except ValueError:
            password = None
        if password:
            found += [password, unquote_plus(password)]
    return found


@lru_cache(maxsize=1)
def _key_variables() -> frozenset[str]:
    from ember.providers.servers import SERVERS  # imported late: it loads part of Ember

    return frozenset(_OF_PACKAGES).union(*(server.key_vars for server in SERVERS.values()))


def keys_of_environment(
    environment: Mapping[str, str], names: Iterable[str] | None = None
) -> frozenset[str]:
    """Return the values of the variables from which Ember or a vendor's package reads a key.

    A caller that has the environment's names may pass them: os.environ decodes them each time.
    """
    every = tuple(names or environment)
    present = _key_variables().intersection(every).union(filter(_OF_A_PROVIDER.search, every))
    values = {environment[name].strip() for name in present} | {PLACEHOLDER}
    return frozenset(value for value in values if could_be_secret(value))


def keys_of_request(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the credentials in a request's credential headers, to be ignored anywhere in it."""
    sent = [value for name, value in headers if is_credential_header(name)]
    return frozenset(value for value in _credentials(tuple(sent)) if could_be_secret(value))


@lru_cache(maxsize=64)
def _credentials(sent: tuple[str, ...]) -> list[str]:
    found = [_SCHEME.sub("", value) for value in sent]
    return found + [password for value in sent if (password := _password_of_basic(value))]


def secrets_of_request(url: str, headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the credentials in a request's headers, query string and userinfo."""
    sent = [value for name, value in headers if is_certain_name(name)]
    found = list(_credentials(tuple(sent)))
    if "?" in url or "@" in url:
        found += _secrets_of_url(url)
    return frozenset(value for value in found if could_be_secret(value))


def _password_of_basic(value: str) -> str:
    """Return the password in a Basic authorization header; "" if there is none."""
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
    found = [unquote_plus(value) for name, _, value in pairs if is_certain_name(unquote_plus(name))]
    userinfo = re.search(r"(?<=//)([^/@?#]*)@", url)
    if userinfo:
        found.append(unquote_plus(userinfo.group(1).partition(":")[2]))
    return tuple(found)
