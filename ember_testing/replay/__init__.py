"""Record and replay the calls of a block or a test."""
