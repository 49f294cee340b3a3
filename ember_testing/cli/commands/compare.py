"""The commands for git: git-setup, merge, diff."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cli import output
from ember_testing.cli.commands.group import (
    EXAMPLE,
    FILE,
    json_option,
    main,
    open_cassette,
    usage_error,
)
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command("git-setup", epilog=EXAMPLE + "ember-cassettes git-setup")
@json_option
def git_setup(as_json: bool) -> None:
    """Print the settings for git to show transcripts and merge cassettes; change nothing."""
    from ember_testing.cli.git import ATTRIBUTES, setup_commands

    commands = setup_commands()
    attributes = f"# in .gitattributes, for everybody:\n{ATTRIBUTES}\n"
    data = {".gitattributes": ATTRIBUTES, "commands": commands}
    output.emit(as_json, data, [attributes, "# once in each clone:", *commands])


@main.command(epilog=EXAMPLE + "ember-cassettes merge ancestor.sqlite ours.sqlite theirs.sqlite")
@click.argument("ancestor", type=FILE)
@click.argument("ours", type=FILE)
@click.argument("theirs", type=FILE)
@click.option("--name", metavar="PATH", help="What the cassette is called in messages.")
@json_option
def merge(ancestor: Path, ours: Path, theirs: Path, name: str | None, as_json: bool) -> None:
    """Join two versions of a cassette into OURS, as git's merge driver: see git-setup.

    Calls that either side added are kept, and calls that either side deleted are dropped. If both
    recorded the same call with different answers, OURS is left unchanged and the exit code is 1.
    """
    from ember_testing.cassettes.merge import merge as join

    with usage_error(CassetteError):
        conflicts = join(ancestor, ours, theirs)
    output.emit(as_json, {"conflicts": conflicts}, [])
    for each in conflicts:
        click.echo(f"{name or ours}: {each}", err=True)
    if conflicts:
        path = name or str(ours)
        click.echo(f"keep one side: git checkout --ours {path}, or --theirs {path}", err=True)
    sys.exit(1 if conflicts else 0)


@main.command(
    epilog=EXAMPLE + "ember-cassettes diff old.sqlite new.sqlite\n"
    "  ember-cassettes diff --since origin/main --markdown"
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--since",
    metavar="REV",
    help="Compare the working tree with where it left this revision of git.",
)
@click.option("--markdown", is_flag=True, help="For a comment on a pull request; needs --since.")
@json_option
def diff(paths: tuple[Path, ...], since: str | None, markdown: bool, as_json: bool) -> None:
    """Compare two cassettes, or all with a revision; exit code 1 if they differ.

    PATHS are an old and a new file, or with --since the files and folders to compare.
    """
    from ember_testing.cli.diff import compare

    if since is not None:
        _diff_since(since, paths, markdown, as_json)
    if markdown:
        raise click.UsageError("--markdown is for --since REV: what to compare with")
    if len(paths) != 2 or not all(path.is_file() for path in paths):
        raise click.UsageError("name two files, an old and a new cassette, or --since REV")
    with open_cassette(paths[0]) as left, open_cassette(paths[1]) as right:
        found = compare(calls_of(left), calls_of(right))
    data = [each._asdict() for each in found]
    output.emit(as_json, data, output.difference_lines(found))
    sys.exit(1 if found else 0)


def _diff_since(since: str, paths: Sequence[Path], markdown: bool, as_json: bool) -> NoReturn:
    from ember_testing.cli.git import GitError
    from ember_testing.cli.since import as_markdown, differences_since

    with usage_error(GitError):
        found = differences_since(since, paths)
    lines = [as_markdown(found, since)] if markdown else output.since_lines(found)
    output.emit(as_json, [each.as_dict() for each in found], lines)
    sys.exit(1 if found else 0)
