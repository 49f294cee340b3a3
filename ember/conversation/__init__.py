"""Prompts and tools in one form for all providers."""
