"""Turns a model's name into a call and counts its usage; users import from `ember.api`."""

from ember.models.registry import ModelRegistry, UsageSummary

__all__ = ["ModelRegistry", "UsageSummary"]
