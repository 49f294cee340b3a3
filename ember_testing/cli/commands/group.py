"""The group of commands, and what its commands share: arguments, and reading cassettes."""

from __future__ import annotations

import os
import warnings
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import cassettes_in
from ember_testing.cli import output
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from ember_testing.cassettes.calls import Call

EXAMPLE = "\b\nExample:\n  "
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)


def paths_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Files or folders; `cassettes` where none is given."""
    return click.argument("paths", nargs=-1, type=EXISTING)(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def cassettes_of(paths: Sequence[Path]) -> list[Path]:
    """The cassettes of these files and folders; of `cassettes` where none is given."""
    folders = list(paths) or [Path("cassettes")]
    try:
        found = cassettes_in(folders)
    except FileNotFoundError as error:
        raise click.UsageError(f"{error}; name the files or folders to look at") from None
    return found


@contextmanager
def open_cassette(path: Path, about: dict[str, str] | None = None) -> Generator[CassetteFile]:
    """A cassette; one that cannot be read is an error of usage."""
    try:
        with closing(CassetteFile(path, about)) as file:
            yield file
    except CassetteError as error:
        raise click.UsageError(str(error)) from None


def calls_in(
    paths: Sequence[Path], label: str, unreadable: list[Path]
) -> Iterator[tuple[Path, Call]]:
    """All calls of many cassettes; one that cannot be read is told, and the others go on."""
    for path in output.progress(cassettes_of(paths), label):
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
    epilog=EXAMPLE + "ember-cassettes show cassettes/tests/test_towns/test_capital.sqlite",
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
