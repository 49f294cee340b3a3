"""The command `ember-cassettes`: look at cassettes, check, compare, convert and tidy them.

Exit codes: 0 all is well, 1 something was found (a difference, a leak, a damaged file, what could
be pruned), 2 the command was given something it cannot use, 3 the budget ended a `drift` early.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import click
except ImportError as missing:  # Ember itself needs no click
    raise SystemExit(
        "ember-cassettes needs the extra `testing`: pip install 'ember-models[testing]'"
    ) from missing

from ember_testing.cassettes.calls import calls_of, rows_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import cassettes_in, leftovers_in
from ember_testing.cli import output
from ember_testing.exceptions import CassetteError, ReplayFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from ember_testing.cassettes.calls import Call

_EXAMPLE = "\b\nExample:\n  "
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_some = click.Path(exists=True, path_type=Path)


def _paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """Files or folders; `cassettes` where none is given."""
    return click.argument("paths", nargs=-1, type=_some)(command)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def _cassettes(paths: Sequence[Path]) -> list[Path]:
    folders = list(paths) or [Path("cassettes")]
    try:
        found = cassettes_in(folders)
    except FileNotFoundError as error:
        raise click.UsageError(f"{error}; name the files or folders to look at") from None
    return found


@contextmanager
def _open(path: Path, about: dict[str, str] | None = None) -> Generator[CassetteFile]:
    try:
        with closing(CassetteFile(path, about)) as file:
            yield file
    except CassetteError as error:
        raise click.UsageError(str(error)) from None


def _calls(
    paths: Sequence[Path], label: str, unreadable: list[Path]
) -> Iterator[tuple[Path, Call]]:
    """All calls of many cassettes; one that cannot be read is told, and the others go on."""
    for path in output.progress(_cassettes(paths), label):
        try:
            with closing(CassetteFile(path)) as file:
                found = list(calls_of(file))
        except CassetteError as error:
            click.echo(str(error), err=True)
            unreadable.append(path)
        else:
            yield from ((path, call) for call in found)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXAMPLE + "ember-cassettes show cassettes/tests/test_towns/test_capital.sqlite",
)
@click.version_option(package_name="ember-models")
def main() -> None:
    """Look at recorded calls to language models: one SQLite file a test."""
    # Whether a price is known is told in the command's own words, by the missing amount.
    from ember.exceptions import UnknownPriceWarning

    warnings.simplefilter("ignore", UnknownPriceWarning)
    # Colours where the output is a terminal, unless the environment says otherwise
    # (https://no-color.org, https://force-color.org).
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
    elif os.environ.get("FORCE_COLOR"):
        click.get_current_context().color = True


@main.command("list", epilog=_EXAMPLE + "ember-cassettes list cassettes --json")
@_paths
@_as_json
def list_(paths: tuple[Path, ...], as_json: bool) -> None:
    """List cassettes with calls, models, cost and age.

    Files that cannot be read, and what killed recordings have left, are listed as well; the exit
    code is 1 then.
    """
    found = [output.line(path) for path in output.progress(_cassettes(paths), "reading")]
    left = [str(path) for path in leftovers_in(paths or [Path("cassettes")])]
    if as_json:
        output.print_json({"cassettes": found, "leftovers": left})
    else:
        output.print_list(found, left)
    sys.exit(1 if left or any(each["error"] for each in found) else 0)


@main.command(epilog=_EXAMPLE + "ember-cassettes show test_capital.sqlite --call 2")
@click.argument("path", type=_file)
@click.option("--call", "number", type=int, help="Only the call with this number.")
@_as_json
def show(path: Path, number: int | None, as_json: bool) -> None:
    """Show a cassette as a transcript: who said what, at what price."""
    from ember_testing.cli.transcript import transcripts

    with _open(path) as file:
        calls = [call for call in calls_of(file) if number in (None, call.id)]
    if number is not None and not calls:
        raise click.UsageError(f"{path} has no call {number}")
    if as_json:
        output.print_json([output.call_as_dict(call) for call in calls])
    else:
        click.echo(transcripts(calls), nl=False)


@main.command(epilog=_EXAMPLE + "ember-cassettes textconv test_capital.sqlite")
@click.argument("path", type=click.Path(path_type=Path))
@_as_json
def textconv(path: Path, as_json: bool) -> None:
    """Print a cassette for `git diff`: the transcript without times and dates.

    A file that cannot be read is said to be so, with exit code 0: git would otherwise show nothing
    at all of the commit.
    """
    from ember_testing.cli.transcript import transcripts

    try:
        with closing(CassetteFile(path)) as file:
            calls = list(calls_of(file))
    except CassetteError as error:
        click.echo(json.dumps({"error": str(error)}) if as_json else str(error))
        return
    if as_json:
        output.print_json([output.call_as_dict(call, dated=False) for call in calls])
    else:
        click.echo(transcripts(calls, dated=False), nl=False)


@main.command("git-setup", epilog=_EXAMPLE + "ember-cassettes git-setup")
@_as_json
def git_setup(as_json: bool) -> None:
    """Print what makes git show transcripts and merge cassettes; nothing is changed."""
    from ember_testing.cli.git import ATTRIBUTES, setup_commands

    commands = setup_commands()
    if as_json:
        output.print_json({".gitattributes": ATTRIBUTES, "commands": commands})
        return
    click.echo(f"# in .gitattributes, for everybody:\n{ATTRIBUTES}\n")
    click.echo("# once in each clone:")
    for command in commands:
        click.echo(command)


@main.command(epilog=_EXAMPLE + "ember-cassettes merge ancestor.sqlite ours.sqlite theirs.sqlite")
@click.argument("ancestor", type=_file)
@click.argument("ours", type=_file)
@click.argument("theirs", type=_file)
@click.option("--name", metavar="PATH", help="What the cassette is called in messages.")
@_as_json
def merge(ancestor: Path, ours: Path, theirs: Path, name: str | None, as_json: bool) -> None:
    """Join two versions of a cassette into OURS, as git's merge driver: see git-setup.

    The calls that either side has added are kept, and those that one has deleted go. Where both
    have recorded the same call with different answers, OURS stays as it is, and the exit code is 1.
    """
    from ember_testing.cassettes.merge import merge as join

    try:
        conflicts = join(ancestor, ours, theirs)
    except CassetteError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json({"conflicts": conflicts})
    for each in conflicts:
        click.echo(f"{name or ours}: {each}", err=True)
    if conflicts:
        path = name or str(ours)
        click.echo(f"keep one side: git checkout --ours {path}, or --theirs {path}", err=True)
    sys.exit(1 if conflicts else 0)


@main.command(
    epilog=_EXAMPLE + "ember-cassettes diff old.sqlite new.sqlite\n"
    "  ember-cassettes diff --since origin/main --markdown"
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--since",
    metavar="REV",
    help="Compare the working tree with where it left this revision of git.",
)
@click.option("--markdown", is_flag=True, help="For a comment on a pull request; needs --since.")
@_as_json
def diff(paths: tuple[Path, ...], since: str | None, markdown: bool, as_json: bool) -> None:
    """Compare two cassettes, or all with a revision; exit code 1 where they differ.

    PATHS are an old and a new file, or with --since the files and folders to look at.
    """
    from ember_testing.cli.diff import compare

    if since is not None:
        _diff_since(since, paths, markdown, as_json)
    if markdown:
        raise click.UsageError("--markdown is for --since REV: what to compare with")
    if len(paths) != 2 or not all(path.is_file() for path in paths):
        raise click.UsageError("name two files, an old and a new cassette, or --since REV")
    with _open(paths[0]) as left, _open(paths[1]) as right:
        found = compare(calls_of(left), calls_of(right))
    if as_json:
        output.print_json([each._asdict() for each in found])
    else:
        output.print_differences(found)
    sys.exit(1 if found else 0)


def _diff_since(since: str, paths: Sequence[Path], markdown: bool, as_json: bool) -> NoReturn:
    from ember_testing.cli.git import GitError
    from ember_testing.cli.since import as_markdown, differences_since

    try:
        found = differences_since(since, paths)
    except GitError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json([each.as_dict() for each in found])
    elif markdown:
        click.echo(as_markdown(found, since), nl=False)
    else:
        for each in found:
            click.secho(f"{each.path}{each.error and f': {each.error}'}", bold=True)
            if not each.error:
                output.print_differences(each.found)
        if not found:
            click.echo("the same")
    sys.exit(1 if found else 0)


@main.command(epilog=_EXAMPLE + "ember-cassettes stats cassettes")
@_paths
@_as_json
def stats(paths: tuple[Path, ...], as_json: bool) -> None:
    """Add up calls, tokens, money, time and age by model."""
    from ember_testing.cli.stats import by_model

    unreadable: list[Path] = []
    rows = by_model(call for _, call in _calls(paths, "adding up", unreadable))
    if as_json:
        output.print_json({name: row.as_dict() for name, row in rows.items()})
    else:
        output.print_stats(rows)
    sys.exit(1 if unreadable else 0)


@main.command(epilog=_EXAMPLE + "ember-cassettes check cassettes")
@_paths
@click.option(
    "--allow", multiple=True, metavar="VALUE", help="A value that looks like a key and is none."
)
@_as_json
def check(paths: tuple[Path, ...], allow: tuple[str, ...], as_json: bool) -> None:
    """Check integrity, schema and secrets; exit code 1 where something is wrong.

    Looked for are the values of this environment's credentials, whatever stands under a
    credential's name, and keys by their shape. For CI, and as a pre-commit hook with the changed
    files as arguments.
    """
    from ember_testing.cli.check import Finding, check_file

    allowed = frozenset(allow)
    found: dict[str, list[Finding]] = {}
    files = _cassettes(paths)
    for path in output.progress(files, "checking"):
        if findings := check_file(path, os.environ, allowed):
            found[str(path)] = findings
    for path in leftovers_in(paths or [Path("cassettes")]):
        what = "left by a killed recording, or being written now; delete it if nothing records"
        found[str(path)] = [Finding("leftover", None, "file", what)]
    if as_json:
        output.print_json(
            {path: [each._asdict() for each in each_] for path, each_ in found.items()}
        )
    else:
        output.print_findings(found, len(files))
    sys.exit(1 if found else 0)


@main.command("html", epilog=_EXAMPLE + "ember-cassettes html cassettes -o report.html")
@_paths
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The page's file; one that is there is replaced.",
)
@_as_json
def html(paths: tuple[Path, ...], target: Path, as_json: bool) -> None:
    """Write a page on which a browser shows the calls; it needs no network and no server.

    Conversations, streamed answers on a time line, tokens, cost and time by model, search, and two
    calls side by side. Exit code 1 where a cassette could not be read; the page says which.
    """
    from ember_testing.cli.html import Report, page

    report = Report()
    errors: list[str] = []
    files = _cassettes(paths)
    for path in output.progress(files, "reading"):
        if (error := report.add_cassette(path)) is not None:
            errors.append(error)
    data = report.data()
    target.write_text(page(data), encoding="utf-8")
    if as_json:
        summary = {"page": str(target), "cassettes": len(files), "calls": len(data["calls"])}
        output.print_json({**summary, "errors": errors})
    else:
        for error in errors:
            click.echo(error, err=True)
        click.echo(f"{target}: {len(data['calls'])} calls of {len(files)} cassettes")
    sys.exit(1 if errors else 0)


@main.command(
    epilog="\b\nExample:\n  pytest --ember-report report.json\n"
    "  ember-cassettes prune cassettes --report report.json --yes"
)
@_paths
@click.option(
    "--report",
    "reports",
    type=_file,
    multiple=True,
    required=True,
    help="What a run of the whole suite used: pytest --ember-report FILE. May be given again.",
)
@click.option("--partial", is_flag=True, help="Believe the report of a run of a part of the suite.")
@click.option("--yes", is_flag=True, help="Delete. Without it, it is only said what would go.")
@_as_json
def prune(
    paths: tuple[Path, ...], reports: tuple[Path, ...], partial: bool, yes: bool, as_json: bool
) -> None:
    """Delete recordings and cassettes that no test uses.

    What is used, a run of the whole suite says: `pytest --ember-report report.json`. A cassette
    stays whole if its test, or any of the same module, failed or was skipped, deselected or not
    collected, and the report of a run that did not collect every test, or lost a worker process,
    is refused. Nothing is deleted without --yes; exit code 1 says that something could be.
    """
    from ember_testing.cli.prune import Plan, Proof, Recorded, read_report

    try:
        loaded = [read_report(path) for path in reports]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    parts = [reason for report in loaded for reason in report["partial"]]
    if parts and not partial:
        raise click.UsageError(
            f"the report is of a part of the suite ({'; '.join(parts)}): what the rest uses is not "
            "known. Run all of it, or say --partial"
        )
    proof = Proof(loaded)
    plans: list[Plan] = []
    for path in output.progress(_cassettes(paths), "looking"):
        with _open(path) as file:
            tests = {row["id"]: row["test"] or "" for row in file.rows(file.numbers())}
            each = proof.plan(Recorded(path, file.about().get("id", ""), tests))
        if each is not None:
            plans.append(each)
            if yes and not each.kept:
                _prune(path, each.numbers, each.whole)
    if as_json:
        output.print_json([output.plan_as_dict(each, yes) for each in plans])
    else:
        output.print_plans(plans, yes)
    sys.exit(1 if not yes and any(not each.kept for each in plans) else 0)


@main.command(
    epilog=_EXAMPLE
    + "ember-cassettes mv tests/test_towns.py::test_old tests/test_towns.py::test_new"
)
@click.argument("old")
@click.argument("new")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("cassettes"),
    show_default=True,
    help="Where the cassettes of node ids lie.",
)
@_as_json
def mv(old: str, new: str, folder: Path, as_json: bool) -> None:
    """Rename a cassette after its test was renamed: paths, or node ids; or a folder of them.

    Nothing is replaced.
    """
    from ember_testing.cli.move import move, path_of

    try:
        pairs = move(path_of(old, folder), path_of(new, folder))
    except CassetteError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json([{"from": str(each), "to": str(target)} for each, target in pairs])
    else:
        for each, target in pairs:
            click.echo(f"{each} -> {target}")


def _prune(path: Path, numbers: list[int], whole: bool) -> None:
    from ember_testing.cassettes import schema

    if whole:
        path.unlink()
        return
    with _open(path, schema.about()) as file:
        file.remove(numbers)


@main.command("export", epilog=_EXAMPLE + "ember-cassettes export cassettes -o calls.jsonl")
@_paths
@click.option("-o", "--output", "target", type=click.File("w", encoding="utf-8"), default="-")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a line a call.")
def export(paths: tuple[Path, ...], target: Any, as_json: bool) -> None:
    """Write all calls as JSON, a line each."""
    separator = ""
    unreadable: list[Path] = []
    target.write("[" if as_json else "")
    for path, call in _calls(paths, "exporting", unreadable):
        line = json.dumps({"cassette": str(path), **output.call_as_dict(call)})
        target.write(f"{separator}{line}" if as_json else f"{line}\n")
        separator = ",\n"
    target.write("]\n" if as_json else "")
    sys.exit(1 if unreadable else 0)


@main.command("import", epilog=_EXAMPLE + "ember-cassettes import tests/cassettes --into cassettes")
@click.argument("sources", nargs=-1, required=True, type=_some)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cassettes"),
    show_default=True,
    help="Folder of the new cassettes.",
)
@click.option("--force", is_flag=True, help="Replace cassettes that are there already.")
@_as_json
def import_(sources: tuple[Path, ...], into: Path, force: bool, as_json: bool) -> None:
    """Make cassettes of vcrpy's YAML, old or new; needs the extra `vcr`.

    pytest-recording's `tests/cassettes/test_towns/test_capital.yaml` becomes
    `tests/test_towns/test_capital.sqlite`, where the plugin looks for it. Credentials are redacted
    on the way. A file that cannot be read is told with the reason, the others are imported.
    """
    from ember_testing.cli.vcr import import_file, targets

    done: list[dict[str, Any]] = []
    for source, target in output.progress(targets(sources, into), "importing"):
        line: dict[str, Any] = {"from": str(source), "to": str(target), "calls": 0, "error": None}
        try:
            if target.exists() and not force:
                raise CassetteError(f"{target} is there already: --force replaces it")
            line["calls"] = import_file(source, target)
        except CassetteError as error:
            line["error"] = str(error)
        done.append(line)
    if as_json:
        output.print_json(done)
    else:
        output.print_imports(done)
    sys.exit(1 if any(line["error"] for line in done) else 0)


@main.command(epilog=_EXAMPLE + "ember-cassettes serve calls.sqlite --record new")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--record", type=click.Choice(["new", "all"]), help="Ask the providers, and record.")
@click.option("--port", default=0, help="Where to listen on 127.0.0.1; any free port by default.")
@_as_json
def serve(path: Path, record: Any, port: int, as_json: bool) -> None:
    """Answer clients from a cassette, at a base URL for each provider.

    The variables that are printed point the vendors' packages at it, in any language. Ctrl-C ends
    it; a request that was not recorded makes the exit code 1.
    """
    from ember_testing.replay.server import cassette_server

    try:
        with cassette_server(path, record, port=port) as server, suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            output.print_served(server.environment, as_json)
            threading.Event().wait()
    except (CassetteError, ReplayFailure) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"{len(server.played)} replayed, {len(server.recorded)} recorded", err=True)


@main.command(epilog=_EXAMPLE + "ember-cassettes drift cassettes --budget 0.50")
@_paths
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    required=True,
    metavar="USD",
    help="What it may cost. A call is sent only if the most that it may cost is left.",
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds.")
@_as_json
def drift(paths: tuple[Path, ...], budget: float, timeout: float, as_json: bool) -> None:
    """Send the recorded requests again and compare status, shape, model and usage.

    Keys come from the environment, under the providers' own names. Exit code 1 where an answer
    differs, 3 where the budget did not last.
    """
    from ember_testing.cli.drift import drift as send_again
    from ember_testing.replay.budget import Budget

    found: dict[str, Any] = {}
    with closing(Budget(budget)) as purse:
        for path in output.progress(_cassettes(paths), "asking again"):
            with _open(path) as file:
                found[str(path)] = list(send_again(rows_of(file), purse, timeout))
        spent = purse.spent
    calls = [call for each in found.values() for call in each]
    if as_json:
        lists = {path: [call._asdict() for call in each] for path, each in found.items()}
        output.print_json({"spent": spent, "cassettes": lists})
    else:
        output.print_drift(found, spent)
    if any(call.lines for call in calls if call.sent):
        sys.exit(1)
    sys.exit(3 if any(not call.sent for call in calls) else 0)
