"""The command group, and code that its commands share: arguments and reading cassettes."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cassettes.paths import cassettes_in
from ember_testing.cli.progress import progress, progress_of_calls
from ember_testing.exceptions import CassetteError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from ember_testing.cassettes.calls import Call

EXAMPLE = "\b\nExample:\n  "
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)


def _or_cassettes(_: click.Context, __: click.Parameter, paths: tuple[Path, ...]) -> Sequence[Path]:
    return paths or (Path("cassettes"),)


paths_argument = click.argument("paths", nargs=-1, type=EXISTING, callback=_or_cassettes)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@contextmanager
def usage_error(kind: type[Exception], remedy: str = "") -> Generator[None]:
    """Report an error of this kind as a wrong use of the command, with exit code 2."""
    try:
        yield
    except kind as error:
        raise click.UsageError(f"{error}{remedy}") from None


def cassettes_of(paths: Sequence[Path]) -> list[Path]:
    """Return the cassettes in these files and folders."""
    with usage_error(FileNotFoundError, "; name the files or folders to look at"):
        return cassettes_in(paths)


@contextmanager
def open_cassette(path: Path, metadata: dict[str, str] | None = None) -> Generator[CassetteFile]:
    """Open a cassette; a file that cannot be read is a usage error."""
    with usage_error(CassetteError), CassetteFile(path, metadata) as file:
        yield file


def calls_in(
    paths: Sequence[Path], label: str, unreadable: list[Path]
) -> Iterator[tuple[Path, Call]]:
    """Iterate over the calls of many cassettes; report where one cannot be read, and continue."""
    for path in progress(cassettes_of(paths), label):
        try:
            with CassetteFile(path) as file:
                for call in progress_of_calls(calls_of(file), label):
                    yield path, call
        except CassetteError as error:
            click.echo(str(error), err=True)
            unreadable.append(path)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLE + "ember-cassettes show cassettes/tests/test_towns/test_capital.sqlite",
)
@click.version_option(package_name="ember-models")
def main() -> None:
    """Look at recorded calls to language models: one SQLite file a test."""
    # The commands themselves show an unknown price, by leaving out the amount.
    from ember.exceptions import UnknownPriceWarning

    warnings.simplefilter("ignore", UnknownPriceWarning)
    # Colours if the output is a terminal, unless the environment says otherwise
    # (https://no-color.org, https://force-color.org).
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
    elif os.environ.get("FORCE_COLOR"):
        click.get_current_context().color = True
