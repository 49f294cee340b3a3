"""What a session knows of secrets and of ids: how its requests are compared, and written down."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING
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
from ember_testing.wires.exchange import sets_prices
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from ember_testing.patches.exchange import Exchange
    from ember_testing.replay.settings import Settings


_MOST_HIDDEN = 256  # values of answers that are remembered


class Comparison:
    """How the requests of one session are compared and written down.

    Args:
        settings: How its cassette is used.

    Attributes:
        rules: What is compared.
        redaction: What is known to be secret by now.
        sets_prices: Whether the environment sets prices.
        hidden: What answers held under a credential's name, and what is written in its place.
    """

    def __init__(self, settings: Settings) -> None:
        self.rules = settings.rules()
        self.redaction = Redaction(rules=settings.redaction_rules())
        self.sets_prices = False
        self._environment: object = None  # its version when it was read last
        self._keys: frozenset[str] = frozenset()
        self._issued: set[str] = set()
        self.hidden: dict[bytes, bytes] = {}
        self._stand_ins: dict[bytes, bytes] = {}
        named = [part[len("header:") :].lower() for part in self.rules.match_on]
        self._compared_headers = f" {' '.join(named)} "

    def use_salt(self, salt: str) -> None:
        """Begin digests with the cassette's own salt."""
        self.redaction = replace(self.redaction, salt=salt.encode())

    def learn(self) -> bool:
        """Look through the environment; returns whether it holds a secret that was not known."""
        version = environment.version()
        if version is not None and version == self._environment:
            return False
        self._environment = version
        before, keys = self.redaction, self._keys
        names = tuple(os.environ)
        self.sets_prices = sets_prices(names)
        variables = variables_of_environment(os.environ, names)
        self._keys = keys_of_environment(os.environ, names)
        self.redaction = before.also(self._keys.union(variables), variables)
        return self.redaction is not before or keys != self._keys

    @property
    def has_learnt(self) -> bool:
        """Whether `learn` was called."""
        return bool(self._keys)  # the placeholder is always among them

    def learn_answer(self, body: bytes) -> None:
        """Note which ids an answer has issued."""
        self._issued.update(matching.issued_ids(body))

    def learn_hidden(self, sent: Request, known: int) -> None:
        """Note which credentials an answer has issued that are not written.

        A replay's client gets what is written in their place, and sends that.

        Args:
            sent: The request; what it holds was not issued by its answer.
            known: How many of `hidden` were there before.
        """
        for value, written in [*self.hidden.items()][known:]:
            if len(value) < SHORTEST_SECRET or is_common(value.decode("utf-8", "replace")):
                continue
            for spelled in _spellings(value):
                if spelled not in sent.body and spelled not in sent.url.encode("utf-8", "replace"):
                    self._stand_ins[spelled] = written
        for each in (self.hidden, self._stand_ins):
            while len(each) > _MOST_HIDDEN:
                del each[next(iter(each))]

    def as_replayed(self, sent: Request) -> Request:
        """A request with what a replay's client will have in the place of issued credentials."""
        if not self._stand_ins:
            return sent
        # Its own credentials are looked for in answers all the same.
        self.redaction = self.redaction.also(secrets_of_request(sent.url, sent.headers))
        url, body = sent.url, sent.body
        is_form = "form-urlencoded" in sent.header("content-type")
        for value, written in self._stand_ins.items():
            if value in body:
                body = body.replace(value, quote_plus(written).encode() if is_form else written)
            if (text := value.decode("utf-8", "replace")) in url:
                url = url.replace(text, quote_plus(written))
        return sent._replace(url=url, body=body)

    def key(self, sent: Request) -> str:
        """What the recordings of this request go by."""
        keys = self._keys.union(keys_of_request(sent.headers))
        context = matching.Context(keys, self.redaction.salt, self._issued)
        return matching.key(sent, self.rules, context)

    def written(self, sent: Request, *, whole: bool = False) -> Request:
        """A request as it may be written down.

        Args:
            sent: As it was sent.
            whole: With all headers; else with those that are compared.
        """
        self.redaction = self.redaction.also(secrets_of_request(sent.url, sent.headers))
        kind = sent.header("content-type")
        compared = sent.headers
        if not (whole or self.rules.compares_headers):
            compared = (("content-type", kind),)
        return Request(
            sent.method,
            self.redaction.url(sent.url),
            self.redaction.headers(compared, self._compared_headers),
            self.redaction.request_body(matching.content_of(sent), kind),
        )

    def key_of_written(self, written: Request) -> str:
        """The key of a request whose body has no content encoding any more."""
        plain = tuple(pair for pair in written.headers if pair[0].lower() != "content-encoding")
        return self.key(written._replace(headers=plain))

    def columns(self, sent: Request, written: Request, key: str) -> dict[str, object]:
        """What is stored of how a request is compared."""
        same = (written.url, written.body) == (sent.url, sent.body)
        alike = same and not self.rules.compares_headers
        redacted = int(not alike and self.key_of_written(written) != key)
        return {"key": key, "rules": self.rules.text, "redacted": redacted}

    def replaced_variables(self, exchange: Exchange, written: bytes) -> list[str]:
        """The variables whose values were replaced in an answer that was no echo of its request.

        A common word that is somebody's password would be lost from all answers.

        Args:
            exchange: The call.
            written: The body of its answer, as it is written down.
        """
        came = decoded(exchange.headers, b"".join([data for _, data in exchange.chunks]))
        if came == written:
            return []
        names = self.redaction.variables_in(came)
        if not names:
            return []
        sent = exchange.request
        values = [sent.url, *(value for _, value in sent.headers)]
        whole = "\n".join(values).encode("utf-8", "surrogatepass") + matching.content_of(sent)
        return sorted(set(names).difference(self.redaction.variables_in(whole)))


def _spellings(value: bytes) -> set[bytes]:
    """A value of an answer as a client may send it back: in JSON, in a form or an address."""
    try:
        plain: str = json.loads(b'"%b"' % value)
    except ValueError:
        plain = value.decode("utf-8", "replace")
    spelled = (plain, json.dumps(plain)[1:-1], quote(plain, safe=""), quote_plus(plain))
    return {value, *(each.encode("utf-8", "surrogatepass") for each in spelled)}
