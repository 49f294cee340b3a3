"""The values that go in and come out of a call."""

from ember.models.schemas import ChatResponse, Chunk, FinishReason, ToolCall, UsageStats

__all__ = ["ChatResponse", "Chunk", "FinishReason", "ToolCall", "UsageStats"]
