"""The forms in which a secret may be in a file."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote


def escaped(secret: str) -> str:
    """Return the secret as JSON text in which each character is written by its number."""
    return "".join(f"\\u{ord(each):04x}" for each in secret)


def spellings(secret: str) -> set[bytes]:
    """Return a secret's spellings in a file: plain, escaped, percent-encoded, encoded."""
    plain = secret.encode()
    found = {plain, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode()}
    found.add(json.dumps(secret, ensure_ascii=False)[1:-1].encode())
    found.add(html.escape(secret).encode())
    found.add(json.dumps(json.dumps(secret))[3:-3].encode())
    for before in range(3):
        text = base64.b64encode(bytes(before) + plain)
        found.add(text[-(-8 * before // 6) : 8 * (before + len(plain)) // 6])
    found |= {plain.hex().encode(), plain.hex().upper().encode(), escaped(secret).encode()}
    found |= {secret.encode("utf-16-le"), secret.encode("utf-16-be")}
    return found | {plain[:16], plain[-16:]}
