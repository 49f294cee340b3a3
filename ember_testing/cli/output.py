"""The output of `ember-cassettes`: text for people, JSON for scripts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli.progress import progress_of_calls
from ember_testing.cli.stats import by_model
from ember_testing.exceptions import CassetteError
from ember_testing.replay.budget import dollars
from ember_testing.replay.tally import counted

if TYPE_CHECKING:
    from pathlib import Path

    from ember_testing.cassettes.calls import Call
    from ember_testing.cli.check import Finding
    from ember_testing.cli.diff import Difference
    from ember_testing.cli.drift import DriftResult
    from ember_testing.cli.prune import PrunePlan
    from ember_testing.cli.since import CassetteDifference
    from ember_testing.cli.stats import Totals


def emit(as_json: bool, data: Any, lines: Iterable[str]) -> None:
    """Print one JSON document for scripts, or lines for people."""
    if as_json:
        lines = [json.dumps(data, indent=2, ensure_ascii=False)]
    for line in lines:
        click.echo(line)


def call_as_dict(call: Call, *, dated: bool = True) -> dict[str, Any]:
    """Return a call in JSON types; bytes that are not text become `{"base64": ...}`."""
    found = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in asdict(call).items()
    }
    if not dated:
        del found["seconds"], found["recorded_at"]
    return found


def cassette_summary(path: Path) -> dict[str, Any]:
    """Return the entry of one cassette for `list`."""
    try:
        with CassetteFile(path) as file:
            totals = by_model(progress_of_calls(calls_of(file), "reading"))
    except CassetteError as error:
        size = path.stat().st_size if path.exists() else 0  # a dangling link
        return {"path": str(path), "bytes": size, "error": str(error)}
    total = totals.pop("all")
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "error": None,
        "models": list(totals),
        **total.as_dict(),
    }


def in_columns(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Format a table: the first `left` columns are left-aligned, the others right-aligned.

    Color codes do not count towards the width of a cell.
    """
    cells = [[click.style(head, bold=True) for head in heads], *rows]
    widths = [max(len(click.unstyle(row[i])) for row in cells) for i in range(len(heads))]
    return [
        "  ".join(
            cell + blank if i < left else blank + cell
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            for blank in [" " * (width - len(click.unstyle(cell)))]
        ).rstrip()
        for row in cells
    ]


def _amounts(totals: Mapping[str, Any]) -> list[str]:
    """Format tokens, cost, time and age as cells."""
    unknown = totals["unpriced"] == totals["calls"]
    days = totals["age_days"]
    return [
        f"{totals['prompt_tokens']:,}",
        f"{totals['completion_tokens']:,}",
        click.style("?", fg="yellow") if unknown else dollars(totals["cost"]),
        f"{totals['seconds']:,.1f} s",
        "" if days is None else f"{days:.0f} d",
    ]


def list_lines(found: list[dict[str, Any]], leftovers: list[str]) -> Iterator[str]:
    """Format a table of the cassettes, and the errors of those that cannot be read."""
    readable = [each for each in found if not each["error"]]
    rows = [
        [
            each["path"],
            ", ".join(each["models"]),
            str(each["calls"]),
            f"{each['bytes'] / 1024:,.0f} KB",
            *_amounts(each),
        ]
        for each in readable
    ]
    heads = ("cassette", "models", "calls", "size", "in", "out", "cost", "time", "age")
    if rows:
        yield from in_columns(heads, rows, left=2)
    for each in found:
        if each["error"]:
            yield f"{click.style('!', fg='red')} {each['path']}: {each['error']}"
    calls = sum(each["calls"] for each in readable)
    yield f"{counted(len(found), 'cassette')}, {counted(calls, 'call')}"
    for path in leftovers:
        yield f"left by a killed recording, or being written now: {path}"


def stats_lines(rows: Mapping[str, Totals]) -> Iterator[str]:
    """Format a table of the sums by model, with the total last."""
    heads = ("model", "calls", "in", "out", "cost", "time", "age", "errors")
    cells = [
        [
            name,
            f"{row.calls:,}",
            *_amounts(row.as_dict()),
            click.style(str(row.errors), fg="red") if row.errors else "0",
        ]
        for name, row in rows.items()
    ]
    yield from in_columns(heads, cells)
    if rows["all"].unpriced:
        yield f"{counted(rows['all'].unpriced, 'call')} of unknown cost"


def difference_lines(found: list[Difference]) -> Iterator[str]:
    """Format a block for each call that differs."""
    symbols = {
        "removed": click.style("-", fg="red"),
        "added": click.style("+", fg="green"),
        "changed": click.style("!", fg="yellow"),
    }
    for each in found:
        numbers = " -> ".join(str(n) for n in (each.old, each.new) if n is not None)
        yield f"{symbols[each.kind]} {each.call} (call {numbers}, {each.kind})"
        yield from (f"    {text}" for text in each.lines)
    yield f"different: {counted(len(found), 'call')}" if found else "the same"


def since_lines(found: Sequence[CassetteDifference]) -> Iterator[str]:
    """Format a block for each cassette that differs from an older version."""
    for each in found:
        yield click.style(f"{each.path}{each.error and f': {each.error}'}", bold=True)
        if not each.error:
            yield from difference_lines(each.found)
    if not found:
        yield "the same"


def finding_lines(found: Mapping[str, Sequence[Finding]], count: int) -> Iterator[str]:
    """Format a line for each finding."""
    for path, findings in found.items():
        for each in findings:
            call = "" if each.call is None else f" call {each.call}"
            kind = click.style(each.kind, fg="red")
            yield f"{path}:{call} {each.where}: {kind}: {each.what}"
    total = sum(map(len, found.values()))
    yield f"{counted(count, 'cassette')} checked, {counted(total, 'finding')}"


def plan_lines(plans: Sequence[PrunePlan], deleted: bool) -> Iterator[str]:
    """Format a line for each cassette."""
    verb = "deleted" if deleted else "would be deleted (--yes)"
    for each in plans:
        if each.kept:
            yield f"{each.path}: stays as it is: {each.kept}"
            continue
        numbers = ", ".join(map(str, each.recordings))
        what = "no test uses it" if each.whole else f"recordings {numbers}"
        yield f"{each.path}: {verb}: {what}"
        for test in each.tests or ["no test of pytest"]:
            yield f"    recorded by {test}, not used by run {', '.join(each.runs)}"
    if all(each.kept for each in plans):
        yield "nothing to delete"


def import_lines(done: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Format a line for each file."""
    for each in done:
        if each["error"]:
            yield f"not imported: {each['from']}: {each['error']}"
        else:
            rule = f", compared by {', '.join(each['match_on'])}" if each["match_on"] else ""
            yield f"{each['from']} -> {each['to']} ({counted(each['calls'], 'call')}{rule})"
    yield f"{sum(not each['error'] for each in done)} of {counted(len(done), 'file')} imported"


def drift_lines(found: Mapping[str, Sequence[DriftResult]], spent: float) -> Iterator[str]:
    """Format a block for each call that differs or was not sent, and the counts."""
    calls = [(path, call) for path, each in found.items() for call in each]
    for path, call in calls:
        if call.lines:
            yield f"{path}: call {call.call} ({call.title})"
            yield from (f"    {text}" for text in call.lines)
    sent = sum(call.sent for _, call in calls)
    drifted = sum(bool(call.lines) and call.sent for _, call in calls)
    not_sent = f", {len(calls) - sent} not sent" if sent < len(calls) else ""
    yield f"{sent} sent, {drifted} differ{not_sent}, {dollars(spent)} spent"
