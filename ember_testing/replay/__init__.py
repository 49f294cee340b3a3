"""Recording and replaying the calls of a block or a test."""
