"""The commands that answer clients or ask providers: serve, drift."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from ember_testing.cassettes.calls import rows_of
from ember_testing.cli import output
from ember_testing.cli.commands.group import (
    EXAMPLE,
    cassettes_of,
    json_option,
    main,
    open_cassette,
    paths_argument,
)
from ember_testing.cli.progress import progress
from ember_testing.exceptions import CassetteError, ReplayFailure


@main.command(epilog=EXAMPLE + "ember-cassettes serve calls.sqlite --record new")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--record", type=click.Choice(["new", "all"]), help="Ask the providers, and record.")
@click.option("--port", default=0, help="Where to listen on 127.0.0.1; any free port by default.")
@json_option
def serve(path: Path, record: Any, port: int, as_json: bool) -> None:
    """Answer clients from a cassette, at a base URL for each provider.

    It prints variables that point the vendors' packages at it, in any language. Ctrl-C ends it; the
    exit code is 1 if a request was not recorded.
    """
    from ember_testing.replay.server import cassette_server

    try:
        with cassette_server(path, record, port=port) as server, suppress(KeyboardInterrupt):
            for number in (signal.SIGINT, signal.SIGTERM):  # a script's `serve &` ignores SIGINT
                signal.signal(number, signal.default_int_handler)
            variables = [f"{name}={url}" for name, url in server.environment.items()]
            output.emit(as_json, server.environment, variables)
            sys.stdout.flush()  # a script may wait for them
            threading.Event().wait()
    except (CassetteError, ReplayFailure) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"{len(server.played)} replayed, {len(server.recorded)} recorded", err=True)


@main.command(epilog=EXAMPLE + "ember-cassettes drift cassettes --budget 0.50")
@paths_argument
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    required=True,
    metavar="USD",
    help="What it may cost. A call is sent only if the most that it may cost is left.",
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds.")
@json_option
def drift(paths: tuple[Path, ...], budget: float, timeout: float, as_json: bool) -> None:
    """Send the recorded requests again and compare status, shape, model and usage.

    Keys come from the environment, under the providers' own names; calls of local/ models go to
    the embedded model. Exit code 1 if an answer differs, 3 if a call was not sent because the
    budget was spent, its key is not set or its host cannot be reached.
    """
    from ember_testing.cli.drift import drift as send_again
    from ember_testing.replay.budget import Budget

    found: dict[str, Any] = {}
    with closing(Budget(budget)) as limit:
        for path in progress(cassettes_of(paths), "asking again"):
            with open_cassette(path) as file:
                found[str(path)] = list(send_again(rows_of(file, file.numbers()), limit, timeout))
        spent = limit.spent
    calls = [call for each in found.values() for call in each]
    lists = {path: [call._asdict() for call in each] for path, each in found.items()}
    data = {"spent": spent, "cassettes": lists}
    output.emit(as_json, data, output.drift_lines(found, spent))
    if any(call.lines for call in calls if call.sent):
        sys.exit(1)
    sys.exit(3 if any(not call.sent for call in calls) else 0)
