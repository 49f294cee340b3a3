"""Cassette files: the only package that accesses SQLite."""
