"""A request as it comes in: redacted, and with the key that its recordings go by; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_testing.replay import request as matching
from ember_testing.wires.body import decoded

if TYPE_CHECKING:
    from ember_testing.replay.redaction import Redaction
    from ember_testing.replay.settings import Rules
    from ember_testing.wires.body import Headers


def keyed(
    method: str,
    url: str,
    headers: Headers,
    body: bytes,
    rules: Rules,
    redaction: Redaction,
) -> tuple[matching.Request, str]:
    """The request as it is compared, and its key.

    Args:
        method: Of the request.
        url: Of the request, whole.
        headers: Of the request.
        body: All of it.
        rules: What is compared.
        redaction: Knows the credentials that this request carries.
    """
    content_type = ""
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type":
            content_type = value
        elif lower == "content-encoding":
            body = decoded(headers, body)
    # The other headers are looked at only where a rule compares them, or when they are written.
    shown = redaction.headers(headers) if rules.compares_headers else ()
    request = matching.Request(
        method,
        redaction.url(url),
        shown or (("content-type", content_type),),
        redaction.request_body(body, content_type),
    )
    return request, matching.key(request, rules)
