"""The values that calls take and return."""

from ember.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats

__all__ = ["ChatResponse", "Chunk", "FinishReason", "ToolCall", "UsageStats"]
