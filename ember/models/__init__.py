"""The machine room; `ember.api` is the front door."""

from ember.models.registry import ModelRegistry, UsageSummary

__all__ = ["ModelRegistry", "UsageSummary"]
