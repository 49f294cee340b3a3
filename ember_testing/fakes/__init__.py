"""Answers without a provider."""
