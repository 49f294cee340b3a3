"""The command `ember-cassettes`: inspect and maintain recordings."""

from ember_testing.cli.commands import main

__all__ = ["main"]
