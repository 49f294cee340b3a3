"""The command `ember-cassettes`: look at cassettes, check, compare, convert and tidy them.

Exit codes: 0 all is well, 1 something was found (a difference, a leak, a damaged file, what could
be pruned), 2 the command was given something it cannot use, 3 a call of `drift` was not sent.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("click") is None:  # Ember itself needs no click
    raise SystemExit(
        "ember-cassettes needs the extra `testing`: pip install 'ember-models[testing]'"
    )

# Each of these adds its commands to the group.
from ember_testing.cli.commands import ask, compare, look, tidy
from ember_testing.cli.commands.group import main

__all__ = ["ask", "compare", "look", "main", "tidy"]
