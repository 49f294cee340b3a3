"""Prompts and tools in one form, whichever provider they go to."""
