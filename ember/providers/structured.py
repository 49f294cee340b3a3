"""An answer as the object that its response format asked for; pure."""

from __future__ import annotations

from dataclasses import replace

from ember.conversation.python_types import parsed
from ember.exceptions import ProviderAPIError
from ember.models.schemas import ChatResponse

__all__ = ["as_object_of"]


def as_object_of(kind: object, response: ChatResponse) -> ChatResponse:
    """The response with the object that its text is.

    A refusal, and an answer that asks for tools, has none.

    Args:
        kind: The type that `response_format=` named.
        response: The answer.

    Raises:
        ProviderAPIError: The text does not fit the type (`bad_response`); the context has it as
            `partial_text`, and the whole response.
    """
    if response.refusal or response.finish_reason in ("tool_calls", "content_filter"):
        return response
    try:
        return replace(response, parsed=parsed(kind, response.text))
    except Exception as error:  # whatever the type's own checks raise
        name = getattr(kind, "__name__", kind)
        cut = " (it was cut off at max_tokens=)" if response.finish_reason == "length" else ""
        shown = response.text if len(response.text) <= 200 else response.text[:197] + "..."
        context = {
            "error_type": "bad_response",
            "provider": response.provider,
            "model": response.model,
            "request_id": response.request_id,
            "body": response.raw,
            "phase": "read",
            "partial_text": response.text,
            "usage": response.usage.as_dict(),
            "response": response,  # it is paid for
        }
        what = f"the answer{cut} is no {name}: {shown!r} ({error})"
        raise ProviderAPIError(
            f"{response.provider} ({response.model}): {what}", context
        ) from error
