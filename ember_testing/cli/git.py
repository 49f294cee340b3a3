"""What git is told of cassettes: how to show, and how to merge them; and versions out of it."""

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
"""Wherever in the repository a project has its folder of cassettes."""


def setup_commands() -> list[str]:
    """The commands for a clone, for any POSIX shell.

    They name this interpreter, for git knows nothing of a virtual environment; should it be gone
    one day, the command on the PATH is tried, and `git diff` says so where there is none either:
    it would die of a textconv that fails.
    """
    # Forward slashes are understood by git's own shell on Windows as well.
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


class Changed(NamedTuple):
    """A cassette that differs from what it was.

    Args:
        path: Its name now, or before where it is gone, relative to the working directory.
        before: Its bytes then; None where there was none.
        is_there: Whether there is one now.
    """

    path: Path
    before: bytes | None
    is_there: bool


class GitError(Exception):
    """git could not be asked, or refused."""


def changed_since(revision: str, paths: Sequence[Path]) -> list[Changed]:
    """The cassettes that differ from where the working tree left a revision.

    Args:
        revision: Such as `origin/main`.
        paths: Files or folders to look at.

    Raises:
        GitError: There is no such revision, or no repository.
    """
    start = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    with suppress(GitError):  # no history in common, as in a shallow clone
        start = _git("merge-base", start.decode().strip(), "HEAD")
    commit = start.decode().strip()
    where = [str(path) for path in paths]
    listed = _git("diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--", *where)
    listed += _git("ls-files", "--others", "--exclude-standard", "-z", "--", *where)
    names = sorted({name for name in listed.decode(errors="surrogateescape").split("\0") if name})
    found: list[Changed] = []
    for path in map(Path, names):
        if path.suffix == ".sqlite":
            try:
                before = _git("show", f"{commit}:./{path.as_posix()}")
            except GitError:
                before = None
            found.append(Changed(path, before, path.exists()))
    return found


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except OSError as error:
        raise GitError(f"git cannot be run: {error}") from error
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
