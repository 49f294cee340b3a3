"""What `ember-cassettes` prints: lines for people, JSON for scripts, progress on the way."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli.stats import by_model
from ember_testing.exceptions import CassetteError
from ember_testing.replay.budget import dollars

if TYPE_CHECKING:
    from pathlib import Path

    from ember_testing.cassettes.calls import Call
    from ember_testing.cli.check import Finding
    from ember_testing.cli.diff import Difference
    from ember_testing.cli.drift import Drifted
    from ember_testing.cli.prune import Plan

T = TypeVar("T")
_MANY = 20  # files from which on a bar says how far it is


def progress(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with a bar on the error stream while a terminal is there to show it.

    Args:
        items: What is worked on.
        label: What is done.
    """
    if len(items) < _MANY or not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, label=label, file=sys.stderr) as bar:
        yield from bar


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def call_as_dict(call: Call, *, dated: bool = True) -> dict[str, Any]:
    """A call in JSON's types; bytes that are no text as `{"base64": ...}`."""
    found = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in asdict(call).items()
    }
    if not dated:
        del found["seconds"], found["recorded_at"]
    return found


def line(path: Path) -> dict[str, Any]:
    """What `list` says of one cassette."""
    try:
        with closing(CassetteFile(path)) as file:
            figures = by_model(calls_of(file))
    except CassetteError as error:
        return {"path": str(path), "bytes": path.stat().st_size, "error": str(error)}
    total = figures.pop("all")
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "error": None,
        "models": list(figures),
        **total.as_dict(),
    }


def print_list(found: list[dict[str, Any]], left: list[str]) -> None:
    """A line a cassette."""
    for each in found:
        if each["error"]:
            click.echo(f"   !  {each['path']}: {each['error']}")
            continue
        cost = "?" if each["unpriced"] == each["calls"] else dollars(each["cost"])
        days = "" if each["age_days"] is None else f"{each['age_days']:.0f} d"
        click.echo(
            f"{each['calls']:>4}  {each['path']}  {each['bytes'] / 1024:,.0f} KB  {cost}  {days}  "
            f"{', '.join(each['models'])}"
        )
    calls = sum(each.get("calls", 0) for each in found)
    click.echo(f"{len(found)} cassettes, {calls} calls")
    for path in left:
        click.echo(f"left by a killed recording, or being written now: {path}")


def print_differences(found: list[Difference]) -> None:
    """A block a call that differs."""
    signs = {"removed": "-", "added": "+", "changed": "!"}
    for each in found:
        numbers = " -> ".join(str(n) for n in (each.old, each.new) if n is not None)
        click.echo(f"{signs[each.kind]} {each.call} (call {numbers}, {each.kind})")
        for text in each.lines:
            click.echo(f"    {text}")
    click.echo(f"{len(found)} calls differ" if found else "the same")


def print_findings(found: Mapping[str, Sequence[Finding]], count: int) -> None:
    """A line a finding."""
    for path, findings in found.items():
        for each in findings:
            call = "" if each.call is None else f" call {each.call}"
            click.echo(f"{path}:{call} {each.where}: {each.kind}: {each.what}")
    total = sum(map(len, found.values()))
    click.echo(f"{count} cassettes checked, {total} findings")


def plan_as_dict(plan: Plan, deleted: bool) -> dict[str, Any]:
    """What `prune` says of one cassette."""
    return {
        "path": str(plan.path),
        "recordings": plan.numbers,
        "whole": plan.whole,
        "kept": plan.kept or None,
        "deleted": deleted and not plan.kept,
    }


def print_plans(plans: Sequence[Plan], deleted: bool) -> None:
    """A line a cassette."""
    verb = "deleted" if deleted else "would be deleted (--yes)"
    for each in plans:
        if each.kept:
            click.echo(f"{each.path}: stays as it is: {each.kept}")
        elif each.whole:
            click.echo(f"{each.path}: {verb}: no test uses it")
        else:
            numbers = ", ".join(map(str, each.numbers))
            click.echo(f"{each.path}: {verb}: recordings {numbers}")
    if not any(not each.kept for each in plans):
        click.echo("nothing to delete")


def print_imports(done: Sequence[dict[str, Any]]) -> None:
    """A line a file."""
    for each in done:
        if each["error"]:
            click.echo(f"not imported: {each['from']}: {each['error']}")
        else:
            click.echo(f"{each['from']} -> {each['to']} ({each['calls']} calls)")
    click.echo(f"{sum(not each['error'] for each in done)} of {len(done)} files imported")


def print_drift(found: Mapping[str, Sequence[Drifted]], spent: float) -> None:
    """A block a call whose answer differs."""
    calls = [(path, call) for path, each in found.items() for call in each]
    for path, call in calls:
        if call.lines:
            click.echo(f"{path}: call {call.call} ({call.title})")
            for text in call.lines:
                click.echo(f"    {text}")
    sent = sum(call.sent for _, call in calls)
    drifted = sum(bool(call.lines) and call.sent for _, call in calls)
    click.echo(f"{sent} of {len(calls)} sent, {drifted} differ, {dollars(spent)} spent")
