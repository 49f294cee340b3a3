"""The commands that show cassettes: list, show, textconv, stats, html, export."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import leftovers_in
from ember_testing.cli import output
from ember_testing.cli.commands.group import (
    EXAMPLE,
    FILE,
    calls_in,
    cassettes_of,
    json_option,
    main,
    open_cassette,
    paths_argument,
)
from ember_testing.cli.progress import progress
from ember_testing.exceptions import CassetteError
from ember_testing.replay.tally import counted


@main.command("list", epilog=EXAMPLE + "ember-cassettes list cassettes --json")
@paths_argument
@json_option
def list_(paths: tuple[Path, ...], as_json: bool) -> None:
    """List cassettes with calls, models, cost and age.

    Files that cannot be read and leftovers of killed recordings are listed as well; the exit code
    is then 1.
    """
    found = [output.cassette_summary(path) for path in progress(cassettes_of(paths), "reading")]
    leftovers = [str(path) for path in leftovers_in(paths)]
    data = {"cassettes": found, "leftovers": leftovers}
    output.emit(as_json, data, output.list_lines(found, leftovers))
    sys.exit(1 if leftovers or any(each["error"] for each in found) else 0)


@main.command(epilog=EXAMPLE + "ember-cassettes show test_capital.sqlite --call 2")
@click.argument("path", type=FILE)
@click.option("--call", "number", type=int, help="Only the call with this number.")
@json_option
def show(path: Path, number: int | None, as_json: bool) -> None:
    """Show a cassette as a transcript with costs."""
    from ember_testing.cli.transcript import transcripts

    with open_cassette(path) as file:
        calls = [call for call in calls_of(file) if number in (None, call.id)]
    if number is not None and not calls:
        raise click.UsageError(f"{path} has no call {number}")
    output.emit(as_json, [output.call_as_dict(call) for call in calls], transcripts(calls))


@main.command(epilog=EXAMPLE + "ember-cassettes textconv test_capital.sqlite")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def textconv(path: Path, as_json: bool) -> None:
    """Print a cassette for `git diff`: the transcript without times and dates.

    For a file that cannot be read a note is printed, with exit code 0: otherwise git would show
    nothing of the commit.
    """
    from ember_testing.cli.transcript import transcripts

    try:
        with CassetteFile(path) as file:
            calls = list(calls_of(file))
    except CassetteError as error:
        click.echo(json.dumps({"error": str(error)}) if as_json else str(error))
        return
    data = [output.call_as_dict(call, dated=False) for call in calls]
    output.emit(as_json, data, transcripts(calls, dated=False))


@main.command(epilog=EXAMPLE + "ember-cassettes stats cassettes")
@paths_argument
@json_option
def stats(paths: tuple[Path, ...], as_json: bool) -> None:
    """Add up calls, tokens, money, time and age by model."""
    from ember_testing.cli.stats import by_model

    unreadable: list[Path] = []
    rows = by_model(call for _, call in calls_in(paths, "adding up", unreadable))
    data = {name: row.as_dict() for name, row in rows.items()}
    output.emit(as_json, data, output.stats_lines(rows))
    sys.exit(1 if unreadable else 0)


@main.command("html", epilog=EXAMPLE + "ember-cassettes html cassettes -o report.html")
@paths_argument
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The page's file; one that is there is replaced.",
)
@json_option
def html(paths: tuple[Path, ...], target: Path, as_json: bool) -> None:
    """Write an HTML page that shows the calls; it needs no network and no server.

    It shows conversations, streamed answers on a time line, tokens, cost and time by model, and two
    calls side by side, with search. Exit code 1 if a cassette cannot be read; the page names it.
    """
    from ember_testing.cli.html import Report

    errors: list[str] = []
    files = cassettes_of(paths)
    with closing(Report()) as report:
        for path in progress(files, "reading"):
            if (error := report.add_cassette(path)) is not None:
                errors.append(error)
        report.write(target)
        calls = report.calls.length
    for error in errors:
        click.echo(error, err=True)
    summary = f"{target}: {counted(calls, 'call')} of {counted(len(files), 'cassette')}"
    data = {"page": str(target), "cassettes": len(files), "calls": calls, "errors": errors}
    output.emit(as_json, data, [summary])
    sys.exit(1 if errors else 0)


@main.command("export", epilog=EXAMPLE + "ember-cassettes export cassettes -o calls.jsonl")
@paths_argument
@click.option("-o", "--output", "target", type=click.File("w", encoding="utf-8"), default="-")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a line a call.")
def export(paths: tuple[Path, ...], target: Any, as_json: bool) -> None:
    """Write all calls as JSON, one per line."""
    separator = ""
    unreadable: list[Path] = []
    target.write("[" if as_json else "")
    for path, call in calls_in(paths, "exporting", unreadable):
        line = json.dumps({"cassette": str(path), **output.call_as_dict(call)})
        target.write(f"{separator}{line}" if as_json else f"{line}\n")
        separator = ",\n"
    target.write("]\n" if as_json else "")
    sys.exit(1 if unreadable else 0)
