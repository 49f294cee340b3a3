"""Replay settings: the arguments of the marker and of `ember_testing.cassette`, validated."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ember_testing.faults import Fault
    from ember_testing.patches.hosts import Permissions
    from ember_testing.replay.redaction import Rule

RecordMode = Literal["new", "all"]
DEFAULT_MATCH_ON = ("method", "scheme", "host", "path", "query", "body")

QUERY, FORM, PATTERN = "query.", "form.", "re:"
"""Prefixes of the entries of `ignore` that are not paths into a JSON body."""

# vcrpy's names for parts of a request.
_VCR_NAMES = {"uri": "url", "raw_body": "body"}
_PARTS = (*DEFAULT_MATCH_ON, "port", "url")
_LISTS = ("match_on", "ignore")
_STEP = re.compile(r"""\.?(?:\[(?:(\d+|\*)|'([^']+)'|"([^"]+)")\]|([^.\[\]]+))""")
_NO_FAULTS: Mapping[int, Fault] = {}


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which requests are compared.

    Attributes:
        match_on: Any of method, scheme, host, port, path, query, url, body and `header:NAME`.
        ignore: Parts that vary from run to run: JSON paths of the body (`metadata.run_id`,
            `messages.*.id`, `$.input[0].created`, `metadata['a.b']`), `query.NAME`, `form.NAME`,
            `form.NAME.filename`, and `re:PATTERN`, whose matches in texts are not compared.
        null_is_absent: Whether a null at the top of a JSON body equals a missing key.

    Raises:
        ValueError: An entry of `match_on` is unknown, `match_on` is empty, or an entry of `ignore`
            is invalid.
    """

    match_on: tuple[str, ...] = DEFAULT_MATCH_ON
    ignore: tuple[str, ...] = ()
    null_is_absent: bool = False
    # Found in `ignore`: JSON paths, patterns, and whether it names a form field; in `match_on`: the
    # names of headers, in lower case.
    paths: tuple[str, ...] = field(init=False, repr=False, compare=False)
    patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    forms: bool = field(init=False, repr=False, compare=False)
    headers: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for part in self.match_on:
            if part not in _PARTS and not (part.startswith("header:") and part != "header:"):
                raise ValueError(
                    f"match_on={part!r}: expected any of {', '.join(_PARTS)} or 'header:NAME'"
                )
        if not self.match_on:
            raise ValueError("match_on=(): compare at least one part of the request")
        paths = tuple(each for each in self.ignore if not each.startswith((QUERY, FORM, PATTERN)))
        for path in paths:
            split_path(path)
        patterns = [each for each in self.ignore if each.startswith(PATTERN)]
        names = (part.lower().partition("header:")[2] for part in self.match_on)
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "patterns", tuple(map(_pattern, patterns)))
        object.__setattr__(self, "forms", any(each.startswith(FORM) for each in self.ignore))
        object.__setattr__(self, "headers", frozenset(filter(None, names)))

    def without_patterns(self, text: str) -> str:
        """Return the text with each match of a pattern replaced by one fixed character."""
        for pattern in self.patterns:
            text = pattern.sub("\0", text)
        return text

    @property
    def text(self) -> str:
        """The rules as they are stored beside a key; "" for the default ones."""
        if self == DEFAULT_RULES:
            return ""
        stored = {"match_on": self.match_on, "ignore": self.ignore}
        return json.dumps(stored | ({"null_is_absent": True} if self.null_is_absent else {}))

    @classmethod
    def from_text(cls, text: str) -> Rules:
        """Parse rules stored by `text`.

        Raises:
            ValueError: The text is invalid.
        """
        try:
            stored: dict[str, Any] = json.loads(text) if text else {}
            lists = {name: tuple(map(str, stored[name])) for name in stored if name in _LISTS}
            return cls(**lists, null_is_absent=stored.get("null_is_absent") is True)
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"rules {text[:60]!r}: {error}") from None


def _pattern(entry: str) -> re.Pattern[str]:
    try:
        return re.compile(entry.removeprefix(PATTERN))
    except re.error as error:
        raise ValueError(f"ignore={entry!r}: {error}") from None


DEFAULT_RULES = Rules()


@lru_cache(maxsize=128)
def split_path(path: str) -> tuple[str, ...]:
    """Split a path of `ignore` into its steps.

    Raises:
        ValueError: The path is invalid.
    """
    rest = path.removeprefix("$")
    steps: list[str] = []
    while step := _STEP.match(rest):
        steps.append(step[step.lastindex or 0])
        rest = rest[step.end() :]
    if rest or not steps:
        raise ValueError(
            f"ignore={path!r}: expected a path into the body, such as 'metadata.run_id', "
            "'messages[0].id', 'messages.*.id' or \"metadata['a.b']\"; or 'query.NAME', "
            "'form.NAME', 'form.NAME.filename', 're:PATTERN'"
        )
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Settings:
    r"""Replay settings: the arguments of the marker and of `ember_testing.cassette`.

    Attributes:
        match_on: Parts of the request that are compared: any of method, scheme, host, port, path,
            query, url, body and header:NAME; `["method", "path", "body"]`.
        ignore: Parts that vary from run to run and are not compared: JSON paths of the body,
            query.NAME, form.NAME, form.NAME.filename, and patterns in texts;
            `["metadata.run_id", "query.ts", re.compile(r"\d{4}-\d\d-\d\d")]`.
        null_is_absent: Treat a null at the top of a JSON body as a missing key: `True`.
        redact: Values to redact besides credentials: patterns, and functions that return the
            redacted text; `[r"\b[\w.]+@[\w.]+\b"]`.
        repeats: After the last recording of a request: `error`, or `last` to repeat it.
        record_errors: Keep recorded answers of status 400 and above: `True`.
        timing: Replay the pauses between the pieces of a stream too: `True`.
        allow_loopback: Let calls to this machine through, neither recorded nor replayed: `True`.
        allow_hosts: Hosts that may be reached in a replay, neither recorded nor replayed: names,
            patterns (`*.internal`), addresses, networks (`10.0.0.0/8`).
        ignore_hosts: Hosts whose calls are neither recorded nor replayed, such as a telemetry
            collector: in a replay they fail with a refused connection, and the test goes on.
        allow_subprocess: Leave the environment of child processes unchanged, with providers' keys
            and without the network guard.
        prices: The prices of replayed calls: `recorded`, those in force when the call was recorded,
            or `current`.
        faults: Faults of `ember_testing.faults` by the number of the call in a replay, from 1:
            `{3: rate_limit(retry_after=1)}`.

    Raises:
        ValueError: An argument has an invalid value.
    """

    match_on: Sequence[str] = DEFAULT_MATCH_ON
    ignore: Sequence[str | re.Pattern[str]] = ()
    null_is_absent: bool = False
    redact: Sequence[str | Rule] = ()
    repeats: str = "error"
    record_errors: bool = False
    timing: bool = False
    allow_loopback: bool = False
    allow_hosts: Sequence[str] = ()
    ignore_hosts: Sequence[str] = ()
    allow_subprocess: bool = False
    prices: str = "recorded"
    faults: Mapping[int, Fault] = field(default_factory=lambda: _NO_FAULTS)

    def __post_init__(self) -> None:
        if self.repeats not in ("error", "last"):
            raise ValueError(f"repeats={self.repeats!r}: expected 'error' or 'last'")
        if self.prices not in ("recorded", "current"):
            raise ValueError(f"prices={self.prices!r}: expected 'recorded' or 'current'")
        for name in ("match_on", "ignore", "redact", "allow_hosts", "ignore_hosts"):
            value: Sequence[Any] = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name}={value!r}: expected a list, such as [{value!r}]")
        for number, fault in self.faults.items():
            if number < 1 or not hasattr(fault, "error_type"):
                raise ValueError(
                    f"faults={{{number!r}: {fault!r}}}: expected the number of a call, from 1, and "
                    "a fault of ember_testing.faults, such as {3: rate_limit()}"
                )
        self.rules()
        if self.allow_hosts or self.ignore_hosts:
            _ = self.permissions
        self.redaction_rules()

    @property
    def permissions(self) -> Permissions:
        """What a replay may reach."""
        # Imported late because pytest loads this module at startup.
        from ember_testing.patches.hosts import Permissions, hosts_of

        return Permissions(
            hosts_of(tuple(self.allow_hosts)),
            hosts_of(tuple(self.ignore_hosts), "ignore_hosts"),
            self.allow_loopback,
            self.allow_subprocess,
        )

    def unmet_faults(self, calls: int) -> list[str]:
        """Return a problem for the first fault whose call was never made."""
        late = [number for number in self.faults if number > calls]
        return [
            f"faults={{{number}: ...}}: the test made {calls} calls only, so that nothing happened "
            "to that one; number the calls from 1"
            for number in late[:1]
        ]

    def rules(self) -> Rules:
        """Return the rules by which requests are compared."""
        ignore = [
            each if isinstance(each, str) else PATTERN + _inline(each) for each in self.ignore
        ]
        return _rules(match_on_of(self.match_on), tuple(ignore), self.null_is_absent)

    def redaction_rules(self) -> tuple[Rule, ...]:
        """Return the rules of `redact`."""
        if not self.redact:
            return ()
        from ember_testing.replay.redaction import rule_of  # late: pytest loads this at startup

        return tuple(map(rule_of, self.redact))


def match_on_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts to compare, with vcrpy's `uri` and `raw_body` renamed."""
    return tuple(dict.fromkeys(_VCR_NAMES.get(name, name) for name in names))


@lru_cache(maxsize=64)  # most sessions of a run share the same rules
def _rules(match_on: tuple[str, ...], ignore: tuple[str, ...], null_is_absent: bool) -> Rules:
    return Rules(match_on, ignore, null_is_absent)


def _inline(pattern: re.Pattern[str]) -> str:
    """Return a pattern's text with its flags inline."""
    named = {re.I: "i", re.M: "m", re.S: "s", re.X: "x", re.A: "a"}
    flags = "".join(letter for flag, letter in named.items() if pattern.flags & flag)
    return f"(?{flags}){pattern.pattern}" if flags else pattern.pattern
