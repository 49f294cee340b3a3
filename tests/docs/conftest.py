"""Fixtures for the tests of the documentation."""

# A project of its own, which `test_tutorial.py` runs as its users would.
collect_ignore = ["triage"]
