"""Check a cassette for damage, schema errors and secrets."""

from __future__ import annotations

import base64
import re
import shlex
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.rows import COLUMNS, check_pieces, check_types, digest
from ember_testing.cli.progress import progress_of_calls
from ember_testing.exceptions import CassetteError
from ember_testing.replay import request as matching
from ember_testing.replay.lookup import request_of
from ember_testing.replay.miss import record_command
from ember_testing.replay.prices import recorded_prices
from ember_testing.replay.redaction import Redaction
from ember_testing.replay.secrets import REDACTED, secrets_of_environment
from ember_testing.replay.settings import Rules
from ember_testing.wires.body import as_bytes, decoded, headers_from_json
from ember_testing.wires.parsing import asks_model

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

# API keys that can be recognized by their format alone. Of the providers that Ember knows, the keys
# of Cohere, Mistral, Together, SambaNova and Azure have no fixed format. Each pattern is followed
# by byte strings, one of which is in every match: searching for those first is much faster.
_KEY_FORMATS = {
    "Anthropic key": (rb"sk-ant-[A-Za-z0-9_-]{20,}", b"sk-ant-"),
    "OpenAI or compatible key": (
        rb"sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,}",
        b"sk-",
    ),
    "Google key": (rb"AIza[0-9A-Za-z_-]{35}", b"AIza"),
    "Google key of the new kind": (rb"AQ\.[0-9A-Za-z_-]{30,}", b"AQ."),
    "Google OAuth token": (rb"ya29\.[0-9A-Za-z_-]{20,}", b"ya29."),
    "Groq key": (rb"gsk_[A-Za-z0-9]{20,}", b"gsk_"),
    "xAI key": (rb"xai-[A-Za-z0-9]{20,}", b"xai-"),
    "Cerebras key": (rb"csk-[A-Za-z0-9]{20,}", b"csk-"),
    "Fireworks key": (rb"fw_[A-Za-z0-9]{16,}", b"fw_"),
    "Together key": (rb"tgp_v1_[A-Za-z0-9_-]{20,}", b"tgp_v1_"),
    "Perplexity key": (rb"pplx-[A-Za-z0-9]{20,}", b"pplx-"),
    "NVIDIA key": (rb"nvapi-[A-Za-z0-9_-]{20,}", b"nvapi-"),
    "Vercel key": (rb"vck_[A-Za-z0-9]{20,}", b"vck_"),
    "Z.ai key": (rb"[0-9a-f]{32}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])", b"."),
    "Bedrock key": (rb"(?:ABSK|bedrock-api-key-)[A-Za-z0-9+/=]{40,}", b"ABSK", b"bedrock-api-key-"),
    "Voyage key": (rb"pa-[A-Za-z0-9_-]{40,}", b"pa-"),
    "Hugging Face token": (rb"hf_[A-Za-z0-9]{20,}", b"hf_"),
    "Replicate token": (rb"r8_[A-Za-z0-9]{20,}", b"r8_"),
    "GitHub token": (
        rb"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
        b"gh",
        b"github_pat_",
    ),
    "Slack token": (rb"xox[abeoprs]-[A-Za-z0-9-]{10,}", b"xox"),
    "Stripe key": (rb"[rs]k_live_[A-Za-z0-9]{16,}", b"k_live_"),
    "AWS access key": (rb"(?:AKIA|ASIA)[0-9A-Z]{16}", b"AKIA", b"ASIA"),
    "JSON web token": (rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", b"eyJ"),
    "private key": (rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----", b"-----BEGIN "),
    "bearer token": (rb"[Bb]earer (?!REDACTED)[A-Za-z0-9._~+/-]{16,}", b"earer "),
}
_BYTES_IN_KEYS = [(part, name) for name, (_, *parts) in _KEY_FORMATS.items() for part in parts]
_ENCODED = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")


_BLOCK = 2**20  # bytes of a file that are searched at once
_LONGEST_SECRET = 2**14


class Finding(NamedTuple):
    """A problem found in a cassette; of a secret, only the first characters are shown."""

    kind: str  # `integrity`, `schema`, `secret` or `leftover`
    call: int | None  # its number; None if the problem concerns no single call
    where: str  # the column or place
    what: str


def check_file(
    path: Path, environment: Mapping[str, str], allowed: frozenset[str] = frozenset()
) -> list[Finding]:
    """Return all problems of one cassette.

    Args:
        path: The file.
        environment: Variables whose credentials must not be in the file, usually `os.environ`.
        allowed: Values that are known not to be secrets.
    """
    try:
        file = CassetteFile(path)
    except CassetteError as error:
        return [Finding("integrity", None, "file", str(error))]
    findings: list[Finding] = []
    with file:
        try:
            findings += [Finding("integrity", None, "file", each) for each in file.problems()]
            for name in file.damaged_views():
                what = "the view is missing, or not as it was made"
                findings.append(Finding("schema", None, name, what))
            values = secrets_of_environment(environment) - allowed
            redaction = Redaction(values, file.salt)
            issued: set[str] = set()
            for number in progress_of_calls(file.numbers(), "checking"):
                findings += _call_findings(file, number, redaction, allowed, issued)
            if not any(finding.kind == "secret" for finding in findings):
                findings += _outside_calls(path, file, redaction, allowed)
            recorded_prices(file)
        except CassetteError as error:
            findings.append(Finding("integrity", None, "file", str(error)))
    return findings


def _call_findings(
    file: CassetteFile,
    number: int,
    redaction: Redaction,
    allowed: frozenset[str],
    issued: set[str],
) -> Iterator[Finding]:
    row, stored = file.unchecked(number)
    if digest([row[name] for name in COLUMNS]) != stored:
        test = row["test"] if isinstance(row["test"], str) else ""
        again = record_command(test, file.path, anew=True)
        what = "is not what was recorded: damaged, or edited by hand, which no command accepts"
        remedy = f"git checkout -- {shlex.quote(str(file.path))}, or record it anew: {again}"
        yield Finding("integrity", number, "calls", f"{what}; {remedy}")
    contents = {name: value for name, value in row.items() if isinstance(value, (str, bytes))}
    try:
        check_types(row)
    except ValueError as error:
        yield Finding("integrity", number, "calls", str(error))
    else:
        try:
            check_pieces(row)
        except ValueError as error:
            yield Finding("integrity", number, "calls", str(error))
        yield from _key_findings(row, file, issued)
        issued.update(matching.issued_ids(as_bytes(row["response_body"] or b"")))
        yield from _named_secrets(row, redaction)
        if row["response_raw"] is not None:
            headers = headers_from_json(row["response_headers"])
            contents["response_raw"] = decoded(headers, row["response_raw"])
    seen: set[bytes] = set()
    for where, content in contents.items():
        for name, secret in _secrets(as_bytes(content), redaction, allowed):
            if where != "response_raw" or secret not in seen:  # repeats response_body
                yield Finding("secret", number, where, f"{name}: {_masked(secret)}")
            seen.add(secret)


def _key_findings(
    row: Mapping[str, Any], file: CassetteFile, issued: Collection[str]
) -> Iterator[Finding]:
    """Check that a replay would find the call."""
    try:
        rules = Rules.from_text(row["rules"])
    except ValueError as error:
        yield Finding("integrity", row["id"], "rules", str(error))
        return
    request = request_of(row)
    # The session that sent an id back may not be the session in which the id was issued.
    contexts = [matching.Context(salt=file.salt, issued=each) for each in ((), issued)]
    found = {matching.key(request, rules, context) for context in contexts}
    if not row["redacted"] and row["key"] not in found:
        yield Finding("schema", row["id"], "key", "is not that of its request: edited by hand?")


def _named_secrets(row: Mapping[str, Any], redaction: Redaction) -> Iterator[Finding]:
    """Redact the call again: a change means that the recording missed a credential."""
    for column in ("request_headers", "response_headers"):
        pairs = headers_from_json(row[column])
        for (name, value), (_, kept) in zip(pairs, redaction.headers(pairs), strict=True):
            if value != kept:
                masked = _masked(value.encode("utf-8", "surrogatepass"))
                yield Finding("secret", row["id"], column, f"{name}: {masked}")
    if redaction.url(row["url"]) != row["url"]:
        yield Finding("secret", row["id"], "url", "a credential in the query or the user part")
    headers = headers_from_json(row["request_headers"])
    kind = next((value for name, value in headers if name.lower() == "content-type"), "")
    sent, came = as_bytes(row["request_body"] or b""), as_bytes(row["response_body"] or b"")
    for column, body, redacted in (
        ("request_body", sent, redaction.request_body(sent, kind)),
        ("response_body", came, redaction.response_body(came, of_model=asks_model(row["url"]))),
    ):
        if not redaction.holds_secret(body) and redacted != body:
            yield Finding("secret", row["id"], column, "a field whose name says credential")


def _secrets(
    content: bytes, redaction: Redaction, allowed: frozenset[str]
) -> Iterator[tuple[str, bytes]]:
    if redaction.holds_secret(content):
        for value in sorted(redaction.values):
            known = Redaction(frozenset([value]))
            if known.holds_secret(content):
                yield "a credential of this environment", value.encode("utf-8", "surrogatepass")
    for name, key in _keys_in(content):
        if key.decode("latin-1").removeprefix("Bearer ") not in allowed:
            yield name, key
    for run in _ENCODED.findall(content):
        yield from _in_base64(run, allowed)


def _keys_in(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name of its format and each key, without overlaps."""
    names = tuple(dict.fromkeys(name for part, name in _BYTES_IN_KEYS if part in content))
    for match in _pattern(names).finditer(content) if names else ():
        yield names[(match.lastindex or 1) - 1], match.group()


@lru_cache(maxsize=256)
def _pattern(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Return one pattern with a group for each of these key formats."""
    parts = (rb"((?<![A-Za-z0-9_-])%b)" % _KEY_FORMATS[name][0] for name in names)
    return re.compile(b"|".join(parts))


def _in_base64(run: bytes, allowed: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Find keys in a run of characters decoded as base64 at each of the four alignments."""
    text = run.translate(_STANDARD_BASE64)
    for start in range(4):
        whole = text[start : start + (len(text) - start) // 4 * 4]
        for name, key in _keys_in(base64.b64decode(whole)):
            if key.decode("latin-1") not in allowed:
                yield f"{name} in base64", key


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in blocks, each with the end of the one before."""
    end = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield end + block
            end = block[-_LONGEST_SECRET:]


def _outside_calls(
    path: Path, file: CassetteFile, redaction: Redaction, allowed: frozenset[str]
) -> Iterator[Finding]:
    """Check the file outside the calls: the other tables and deleted rows."""
    for value in (*file.metadata().values(), *(str(row) for row in file.prices())):
        for name, secret in _secrets(as_bytes(value), redaction, allowed):
            yield Finding("secret", None, "cassette", f"{name}: {_masked(secret)}")
    if any(map(redaction.holds_secret, _blocks(path))):
        yield Finding("secret", None, "file", "a credential of this environment")


def _masked(secret: bytes) -> str:
    text = secret.decode("utf-8", "replace")
    return REDACTED if len(text) < 12 else f"{text[:6]}... ({len(text)} characters)"
