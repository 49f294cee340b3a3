"""Fake models, inside the process and as a server."""
