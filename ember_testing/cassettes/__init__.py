"""The only code that knows a cassette's SQLite."""
