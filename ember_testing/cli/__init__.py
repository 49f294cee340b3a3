"""The command `ember-cassettes`: what a person does with recordings."""

from ember_testing.cli.commands import main

__all__ = ["main"]
