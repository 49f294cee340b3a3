"""The commands that check and tidy the folder of cassettes: check, prune, mv, import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ember_testing.cassettes.paths import leftovers_in
from ember_testing.cli import output
from ember_testing.cli.commands.group import (
    EXAMPLE,
    EXISTING,
    FILE,
    cassettes_of,
    json_option,
    main,
    open_cassette,
    paths_argument,
    usage_error,
)
from ember_testing.cli.progress import progress
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from ember_testing.cli.prune import PrunePlan


@main.command(epilog=EXAMPLE + "ember-cassettes check cassettes")
@paths_argument
@click.option(
    "--allow", multiple=True, metavar="VALUE", help="A value that looks like a key and is none."
)
@json_option
def check(paths: tuple[Path, ...], allow: tuple[str, ...], as_json: bool) -> None:
    """Check integrity, schema and secrets; exit code 1 if a problem is found.

    Secrets are the values of this environment's credentials, any value under a credential's name,
    and keys with a known format. Use it in CI, or as a pre-commit hook with the changed files as
    arguments.
    """
    from ember_testing.cli.check import Finding, check_file

    allowed = frozenset(allow)
    found: dict[str, list[Finding]] = {}
    files = cassettes_of(paths)
    for path in progress(files, "checking"):
        if findings := check_file(path, os.environ, allowed):
            found[str(path)] = findings
    for path in leftovers_in(paths):
        what = "left by a killed recording, or being written now; delete it if nothing records"
        found[str(path)] = [Finding("leftover", None, "file", what)]
    data = {path: [each._asdict() for each in findings] for path, findings in found.items()}
    output.emit(as_json, data, output.finding_lines(found, len(files)))
    sys.exit(1 if found else 0)


@main.command(
    epilog="\b\nExample:\n  pytest --ember-report report.json\n"
    "  ember-cassettes prune cassettes --report report.json --yes"
)
@paths_argument
@click.option(
    "--report",
    "reports",
    type=FILE,
    multiple=True,
    required=True,
    help="What a run of the whole suite used: pytest --ember-report FILE. May be given again.",
)
@click.option("--partial", is_flag=True, help="Believe the report of a run of a part of the suite.")
@click.option("--yes", is_flag=True, help="Delete. Without it, it is only said what would go.")
@json_option
def prune(
    paths: tuple[Path, ...], reports: tuple[Path, ...], partial: bool, yes: bool, as_json: bool
) -> None:
    """Delete recordings and cassettes that no test uses.

    A run of the whole suite reports what is used: `pytest --ember-report report.json`. A cassette
    is kept whole if its test, or any of the same module, failed or was skipped, deselected or not
    collected. The report of a run that did not collect every test, or lost a worker process, is
    refused. Nothing is deleted without --yes; exit code 1 says that something could be.
    """
    from ember_testing.cli.prune import SuiteUsage, read_report

    with usage_error(ValueError):
        loaded = [read_report(path) for path in reports]
    parts = [reason for report in loaded for reason in report["partial"]]
    if parts and not partial:
        raise click.UsageError(
            f"the report is of a part of the suite ({'; '.join(parts)}): what the rest uses is not "
            "known. Run all of it, or say --partial"
        )
    usage = SuiteUsage(loaded)
    plans: list[PrunePlan] = []
    for path in progress(cassettes_of(paths), "looking"):
        with open_cassette(path) as file:
            tests = {row["id"]: row["test"] or "" for row in file.requests()}
            plan = usage.plan(path, file.metadata().get("id", ""), tests)
        if plan is not None:
            plans.append(plan)
            if yes and not plan.kept:
                _delete(plan)
    output.emit(as_json, [each.as_dict(yes) for each in plans], output.plan_lines(plans, yes))
    sys.exit(1 if not yes and any(not each.kept for each in plans) else 0)


def _delete(plan: PrunePlan) -> None:
    from ember_testing.cassettes import schema

    if plan.whole:
        plan.path.unlink()
        return
    with open_cassette(plan.path, schema.new_metadata()) as file:
        file.remove(plan.recordings)


@main.command(
    epilog=EXAMPLE
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
@click.option("--replace", is_flag=True, help="Let a cassette go that has the new name.")
@json_option
def mv(old: str, new: str, folder: Path, replace: bool, as_json: bool) -> None:
    """Rename a cassette after its test was renamed, or a folder of cassettes.

    OLD and NEW are paths or node ids. Nothing is replaced without --replace.
    """
    from ember_testing.cli.move import move, path_of

    with usage_error(CassetteError):
        pairs = move(path_of(old, folder), path_of(new, folder), replace=replace)
    data = [{"from": str(each), "to": str(target)} for each, target in pairs]
    output.emit(as_json, data, (f"{each} -> {target}" for each, target in pairs))


@main.command("import", epilog=EXAMPLE + "ember-cassettes import tests/cassettes --into cassettes")
@click.argument("sources", nargs=-1, required=True, type=EXISTING)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cassettes"),
    show_default=True,
    help="Folder of the new cassettes.",
)
@click.option(
    "--match-on",
    metavar="NAMES",
    help="What is compared where a test names nothing, with commas between; 'vcr' for what vcrpy "
    "compares by itself. By default what the project's conftest.py says, else Ember's rule.",
)
@click.option("--force", is_flag=True, help="Replace cassettes that are there already.")
@json_option
def import_(
    sources: tuple[Path, ...], into: Path, match_on: str | None, force: bool, as_json: bool
) -> None:
    """Convert vcrpy's YAML cassettes, old or new; needs the extra `vcr`.

    pytest-recording's `tests/cassettes/test_towns/test_capital.yaml` becomes
    `tests/test_towns/test_capital.sqlite`, where the plugin looks for it; so does a flat
    `tests/cassettes/test_capital.yaml`, if exactly one module has the test. Credentials are
    redacted, and the project's `match_on` is kept. A file that cannot be read is reported with the
    reason, and the others are imported.
    """
    from ember_testing.cli.vcr import import_file, targets
    from ember_testing.cli.vcr_project import VCR_MATCH_ON, match_on_of
    from ember_testing.replay.settings import Settings

    given = VCR_MATCH_ON if match_on == "vcr" else tuple((match_on or "").split(","))
    with usage_error(ValueError):
        Settings(match_on=given if match_on else VCR_MATCH_ON)
    done: list[dict[str, Any]] = []
    for source, target in progress(targets(sources, into), "importing"):
        line: dict[str, Any] = {"from": str(source), "to": str(target), "calls": 0, "error": None}
        names = given if match_on else match_on_of(source)
        line["match_on"] = list(names)
        try:
            if target.exists() and not force:
                raise CassetteError(f"{target} is there already: --force replaces it")
            line["calls"] = import_file(source, target, names)
        except CassetteError as error:
            line["error"] = str(error)
        done.append(line)
    output.emit(as_json, done, output.import_lines(done))
    sys.exit(1 if any(line["error"] for line in done) else 0)
