"""The output of `ember-cassettes`: text for people, JSON for scripts."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
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
    from ember_testing.cli.drift import Drifted
    from ember_testing.cli.prune import Plan
    from ember_testing.cli.stats import Figures


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def call_as_dict(call: Call, *, dated: bool = True) -> dict[str, Any]:
    """Return a call in JSON types; bytes that are not text become `{"base64": ...}`."""
    found = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in asdict(call).items()
    }
    if not dated:
        del found["seconds"], found["recorded_at"]
    return found


def line(path: Path) -> dict[str, Any]:
    """Return the entry of one cassette for `list`."""
    try:
        with closing(CassetteFile(path)) as file:
            figures = by_model(progress_of_calls(calls_of(file), "reading"))
    except CassetteError as error:
        size = path.stat().st_size if path.exists() else 0  # a dangling link
        return {"path": str(path), "bytes": size, "error": str(error)}
    total = figures.pop("all")
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "error": None,
        "models": list(figures),
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


def _amounts(figures: Mapping[str, Any]) -> list[str]:
    """Format tokens, cost, time and age as cells."""
    unknown = figures["unpriced"] == figures["calls"]
    days = figures["age_days"]
    return [
        f"{figures['prompt_tokens']:,}",
        f"{figures['completion_tokens']:,}",
        click.style("?", fg="yellow") if unknown else dollars(figures["cost"]),
        f"{figures['seconds']:,.1f} s",
        "" if days is None else f"{days:.0f} d",
    ]


def print_list(found: list[dict[str, Any]], left: list[str]) -> None:
    """Print a table of the cassettes, and the errors of those that cannot be read."""
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
    for text in in_columns(heads, rows, left=2) if rows else ():
        click.echo(text)
    for each in found:
        if each["error"]:
            click.echo(f"{click.style('!', fg='red')} {each['path']}: {each['error']}")
    calls = sum(each["calls"] for each in readable)
    click.echo(f"{counted(len(found), 'cassette')}, {counted(calls, 'call')}")
    for path in left:
        click.echo(f"left by a killed recording, or being written now: {path}")


def print_stats(rows: Mapping[str, Figures]) -> None:
    """Print a table of the sums by model, with the total last."""
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
    for text in in_columns(heads, cells):
        click.echo(text)
    if rows["all"].unpriced:
        click.echo(f"{counted(rows['all'].unpriced, 'call')} of unknown cost")


def print_differences(found: list[Difference]) -> None:
    """Print a block for each call that differs."""
    signs = {
        "removed": click.style("-", fg="red"),
        "added": click.style("+", fg="green"),
        "changed": click.style("!", fg="yellow"),
    }
    for each in found:
        numbers = " -> ".join(str(n) for n in (each.old, each.new) if n is not None)
        click.echo(f"{signs[each.kind]} {each.call} (call {numbers}, {each.kind})")
        for text in each.lines:
            click.echo(f"    {text}")
    click.echo(f"different: {counted(len(found), 'call')}" if found else "the same")


def print_findings(found: Mapping[str, Sequence[Finding]], count: int) -> None:
    """Print a line for each finding."""
    for path, findings in found.items():
        for each in findings:
            call = "" if each.call is None else f" call {each.call}"
            kind = click.style(each.kind, fg="red")
            click.echo(f"{path}:{call} {each.where}: {kind}: {each.what}")
    total = sum(map(len, found.values()))
    click.echo(f"{counted(count, 'cassette')} checked, {counted(total, 'finding')}")


def plan_as_dict(plan: Plan, deleted: bool) -> dict[str, Any]:
    """Return the entry of one cassette for `prune`."""
    return {
        "path": str(plan.path),
        "recordings": plan.numbers,
        "whole": plan.whole,
        "kept": plan.kept or None,
        "tests": plan.tests,
        "runs": plan.runs,
        "deleted": deleted and not plan.kept,
    }


def print_plans(plans: Sequence[Plan], deleted: bool) -> None:
    """Print a line for each cassette."""
    verb = "deleted" if deleted else "would be deleted (--yes)"
    for each in plans:
        if each.kept:
            click.echo(f"{each.path}: stays as it is: {each.kept}")
            continue
        numbers = ", ".join(map(str, each.numbers))
        what = "no test uses it" if each.whole else f"recordings {numbers}"
        click.echo(f"{each.path}: {verb}: {what}")
        for test in each.tests or ["no test of pytest"]:
            click.echo(f"    recorded by {test}, not used by run {', '.join(each.runs)}")
    if not any(not each.kept for each in plans):
        click.echo("nothing to delete")


def print_imports(done: Sequence[dict[str, Any]]) -> None:
    """Print a line for each file."""
    for each in done:
        if each["error"]:
            click.echo(f"not imported: {each['from']}: {each['error']}")
        else:
            rule = f", compared by {', '.join(each['match_on'])}" if each["match_on"] else ""
            click.echo(f"{each['from']} -> {each['to']} ({counted(each['calls'], 'call')}{rule})")
    click.echo(
        f"{sum(not each['error'] for each in done)} of {counted(len(done), 'file')} imported"
    )


def print_drift(found: Mapping[str, Sequence[Drifted]], spent: float) -> None:
    """Print a block for each call that differs or was not sent, and the counts."""
    calls = [(path, call) for path, each in found.items() for call in each]
    for path, call in calls:
        if call.lines:
            click.echo(f"{path}: call {call.call} ({call.title})")
            for text in call.lines:
                click.echo(f"    {text}")
    sent = sum(call.sent for _, call in calls)
    drifted = sum(bool(call.lines) and call.sent for _, call in calls)
    not_sent = f", {len(calls) - sent} not sent" if sent < len(calls) else ""
    click.echo(f"{sent} sent, {drifted} differ{not_sent}, {dollars(spent)} spent")


def print_served(environment: Mapping[str, str], as_json: bool) -> None:
    """Print the variables that point clients at a server, flushed: a script may wait for them."""
    if as_json:
        print_json(environment)
    else:
        for name, url in environment.items():
            click.echo(f"{name}={url}")
    sys.stdout.flush()
