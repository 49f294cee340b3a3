"""Patches of other libraries: all of them are in this package."""
