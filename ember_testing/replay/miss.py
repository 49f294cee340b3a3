"""What a miss says: the nearest recording, what differs, what to type."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ember_testing.replay import request as matching
from ember_testing.replay.lookup import stored_requests

if TYPE_CHECKING:
    from pathlib import Path

    from ember_testing.cassettes.cassette_rows import CassetteRows


def record_command(test: str, path: Path, *, anew: bool = False) -> str:
    """What to type to record what is missing, or all of it anew.

    Args:
        test: Node id of the test; "" without pytest.
        path: The cassette.
        anew: Whether all of it.
    """
    if test:
        return f"pytest --ember-record{'=all' if anew else ''} {shlex.quote(test)}"
    mode = "all" if anew else "new"
    return f'with ember_testing.cassette({str(path)!r}, record="{mode}")'


def explain(
    request: matching.Request,
    path: Path,
    file: CassetteRows | None,
    *,
    n: int,
    recorded: int,
    compare: bool,
    command: str,
    rules: matching.Rules,
) -> str:
    """Why nothing answers a request.

    Args:
        request: The request, redacted.
        path: The cassette.
        file: The same, open; None where there is none.
        n: The how-manieth of its kind it is.
        recorded: How many recordings of it there are.
        compare: Whether to look for the nearest recording, which reads all of them.
        command: What to type.
        rules: What is compared.
    """
    lines = [f"no recording for {request.method} {request.url}"]
    if file is None:
        lines.append(f"there is no cassette {path}")
    elif recorded:
        lines[0] = (
            f"no further recording for {request.method} {request.url}: "
            f"recorded {recorded}, this is call {n}"
        )
        lines.append(f'(cassette {path}; repeats="last" allows the last one again)')
    else:
        lines.append(f"cassette: {path} ({file.size()} recordings)")
        found = matching.nearest(request, stored_requests(file), rules) if compare else None
        if found:
            lines.append(f"nearest: recording {found[0]}, which differs in")
            told = matching.differences(found[1], request, rules=rules)
            lines += [f"  {line}" for line in told]
    lines.append(f"to record it: {command}")
    return "\n".join(lines)
