"""How a session's requests are compared and recorded, given the secrets and ids known so far."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, quote_plus

from ember_testing.patches import environment
from ember_testing.replay import request as matching
from ember_testing.replay.redaction import Redaction
from ember_testing.replay.secrets import (
    SHORTEST_SECRET,
    is_common,
    keys_of_environment,
    keys_of_request,
    secrets_of_request,
    variables_of_environment,
)
from ember_testing.wires.body import decoded
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ember_testing.patches.exchange import Exchange
    from ember_testing.replay.settings import Settings


_MOST_HIDDEN = 256  # credentials from answers that are kept


class _Environment(NamedTuple):
    """What a comparison needs to know of the environment."""

    keys: frozenset[str]  # the values of providers' keys
    variables: Mapping[str, str]  # the secrets, each with the variable that holds it
    sets_prices: bool


_last_read: tuple[object, _Environment] = (None, _Environment(frozenset(), {}, False))


def _of_environment(version: object) -> _Environment:
    """Return what the environment holds; read again if its version is unknown or has changed."""
    global _last_read
    known, found = _last_read
    if version is None or version != known:
        names = tuple(os.environ)
        found = _Environment(
            keys_of_environment(os.environ, names),
            variables_of_environment(os.environ, names),
            environment.sets_prices(names),
        )
        _last_read = version, found
    return found


class Comparison:
    """Comparison and redaction of one session's requests."""

    def __init__(self, settings: Settings) -> None:
        self.rules = settings.rules()
        self.redaction = Redaction(rules=settings.redaction_rules())  # of the secrets known so far
        self.sets_prices = False  # the environment does
        self._environment: object = None  # its version when last read
        self._keys: frozenset[str] = frozenset()
        self._issued: set[str] = set()
        # Values that answers held under a credential's name, and their replacements.
        self.replacements: dict[bytes, bytes] = {}
        self._sent_back: dict[bytes, bytes] = {}  # by spelling: those that a client may send

    def use_salt(self, salt: str) -> None:
        """Use the cassette's salt for digests."""
        self.redaction = replace(self.redaction, salt=salt.encode())

    def read_environment(self, *, anew: bool = False) -> bool:
        """Read the environment if it changed; return whether it holds a new secret.

        `anew` reads it in any case: os.reload_environ (Python 3.14) raises no audit event.
        """
        version = environment.version()
        if not anew and version is not None and version == self._environment:
            return False
        self._environment = version
        before, keys = self.redaction, self._keys
        found = _of_environment(None if anew else version)
        self.sets_prices, self._keys = found.sets_prices, found.keys
        self.redaction = before.also(found.keys.union(found.variables), found.variables)
        return self.redaction is not before or keys != self._keys

    @property
    def has_environment(self) -> bool:
        """Whether `read_environment` was called."""
        return bool(self._keys)  # they always include the placeholder

    def add_issued_ids(self, body: bytes) -> None:
        """Add the ids that an answer issued."""
        self._issued.update(matching.issued_ids(body))

    def add_issued_credentials(self, sent: Request, known: int) -> None:
        """Add the redacted credentials that an answer issued, after the first `known` replacements.

        In a replay the client receives their replacements, and sends those. A value that the
        request `sent` holds was not issued by its answer.
        """
        for value, written in [*self.replacements.items()][known:]:
            if len(value) < SHORTEST_SECRET or is_common(value.decode("utf-8", "replace")):
                continue
            for spelled in _spellings(value):
                if spelled not in sent.body and spelled not in sent.url.encode("utf-8", "replace"):
                    self._sent_back[spelled] = written
        for each in (self.replacements, self._sent_back):
            while len(each) > _MOST_HIDDEN:
                del each[next(iter(each))]

    def with_replayed_credentials(self, sent: Request) -> Request:
        """Return a request with issued credentials replaced as a replay's client will send them."""
        if not self._sent_back:
            return sent
        # Search answers for the original credentials nevertheless.
        self.redaction = self.redaction.also(secrets_of_request(sent.url, sent.headers))
        url, body = sent.url, sent.body
        is_form = "form-urlencoded" in sent.header("content-type")
        for value, written in self._sent_back.items():
            if value in body:
                body = body.replace(value, quote_plus(written).encode() if is_form else written)
            if (text := value.decode("utf-8", "replace")) in url:
                url = url.replace(text, quote_plus(written))
        return sent._replace(url=url, body=body)

    def key(self, sent: Request) -> str:
        """Return the key of a request's recordings."""
        keys = self._keys.union(keys_of_request(sent.headers))
        context = matching.Context(keys, self.redaction.salt, self._issued)
        return matching.key(sent, self.rules, context)

    def redacted(self, sent: Request, *, whole: bool = False) -> Request:
        """Return a request, redacted for recording; only a `whole` one has uncompared headers."""
        self.redaction = self.redaction.also(secrets_of_request(sent.url, sent.headers))
        kind = sent.header("content-type")
        compared = sent.headers
        if not (whole or self.rules.headers):
            compared = (("content-type", kind),)
        return Request(
            sent.method,
            self.redaction.url(sent.url),
            self.redaction.headers(compared, self.rules.headers),
            self.redaction.request_body(matching.content_of(sent), kind),
        )

    def key_of_redacted(self, redacted: Request) -> str:
        """Return the key of a recorded request, whose body has no content encoding."""
        plain = tuple(pair for pair in redacted.headers if pair[0].lower() != "content-encoding")
        return self.key(redacted._replace(headers=plain))

    def columns(self, sent: Request, redacted: Request, key: str) -> dict[str, object]:
        """Return the columns `key`, `rules` and `redacted` of a request."""
        same = (redacted.url, redacted.body) == (sent.url, sent.body)
        alike = same and not self.rules.headers
        differs = int(not alike and self.key_of_redacted(redacted) != key)
        return {"key": key, "rules": self.rules.text, "redacted": differs}

    def replaced_variables(self, exchange: Exchange, written: bytes) -> list[str]:
        """Return the variables whose values were redacted in an answer but not in its request.

        A password that is a common word would disappear from all answers.

        Args:
            exchange: The call.
            written: The recorded body of its answer.
        """
        received = decoded(exchange.headers, b"".join([data for _, data in exchange.chunks]))
        if received == written or not (names := self.redaction.variables_in(received)):
            return []
        sent = exchange.request
        values = [sent.url, *(value for _, value in sent.headers)]
        whole = "\n".join(values).encode("utf-8", "surrogatepass") + matching.content_of(sent)
        return sorted(set(names).difference(self.redaction.variables_in(whole)))


def _spellings(value: bytes) -> set[bytes]:
    """Return the spellings in which a client may send a value back: JSON, form or address."""
    try:
        plain: str = json.loads(b'"%b"' % value)
    except ValueError:
        plain = value.decode("utf-8", "replace")
    spelled = (plain, json.dumps(plain)[1:-1], quote(plain, safe=""), quote_plus(plain))
    return {value, *(each.encode("utf-8", "surrogatepass") for each in spelled)}
