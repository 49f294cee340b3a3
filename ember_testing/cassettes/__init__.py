"""Cassette files; the only code that uses their SQL."""
