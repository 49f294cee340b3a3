"""Git integration: the setup for showing and merging cassettes, and older versions of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ATTRIBUTES = "**/cassettes/**/*.sqlite diff=ember-cassettes merge=ember-cassettes"
"""The line of `.gitattributes`; it matches a `cassettes` folder anywhere in the repository."""


def setup_commands() -> list[str]:
    """Return the commands that set up a clone, for any POSIX shell.

    They name this interpreter, because git knows nothing of a virtual environment. If it no longer
    exists, the command on the PATH is tried; if that is missing too, `git diff` prints a note,
    because a failing textconv would abort it.
    """
    # Git's shell on Windows understands forward slashes as well.
    python = shlex.quote(Path(sys.executable).as_posix())
    show = (
        f'f() {{ {python} -m ember_testing.cli textconv "$1" 2>/dev/null '
        '|| ember-cassettes textconv "$1" 2>/dev/null '
        '|| { echo "not shown: ember-cassettes is not installed here"; cksum < "$1"; }; }; f'
    )
    merge = f"{python} -m ember_testing.cli merge %O %A %B --name %P"
    return [
        f"git config diff.ember-cassettes.textconv {shlex.quote(show)}",
        'git config merge.ember-cassettes.name "calls of both sides"',
        f"git config merge.ember-cassettes.driver {shlex.quote(merge)}",
    ]


class ChangedCassette(NamedTuple):
    """A cassette that changed since a revision."""

    path: Path  # relative to the working directory, whether or not it exists now
    before: bytes | None  # the file at the revision; None if it did not exist


class GitError(Exception):
    """Git could not be run, or returned an error."""


def changed_since(revision: str, paths: Sequence[Path]) -> list[ChangedCassette]:
    """Return the cassettes that changed since the working tree branched off from a revision.

    Raises:
        GitError: The revision or the repository does not exist.
    """
    start = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    with suppress(GitError):  # no common history, as in a shallow clone
        start = _git("merge-base", start.decode().strip(), "HEAD")
    commit = start.decode().strip()
    where = [str(path) for path in paths]
    listed = _git("diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--", *where)
    listed += _git("ls-files", "--others", "--exclude-standard", "-z", "--", *where)
    names = sorted({name for name in listed.decode(errors="surrogateescape").split("\0") if name})
    found: list[ChangedCassette] = []
    for path in map(Path, names):
        if path.suffix == ".sqlite":
            try:
                before = _git("show", f"{commit}:./{path.as_posix()}")
            except GitError:
                before = None
            found.append(ChangedCassette(path, before))
    return found


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except OSError as error:
        raise GitError(f"git cannot be run: {error}") from error
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
