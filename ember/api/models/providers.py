"""The interface for custom providers."""

from ember.providers.base import BaseProvider, register_provider

__all__ = ["BaseProvider", "register_provider"]
