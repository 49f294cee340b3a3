"""Whether a known credential stands in a cassette."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_testing.wires.body import as_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_testing.cassettes.file import CassetteFile
    from ember_testing.replay.redaction import Redaction


def first_leak(file: CassetteFile, numbers: Sequence[int], redaction: Redaction) -> str | None:
    """What is wrong with the first of these calls that holds a known value; None if none does."""
    for number in numbers:
        row = file.rows([number])[0]
        text = as_bytes(row.pop("text") or "")
        contents = [as_bytes(value) for value in row.values() if isinstance(value, (str, bytes))]
        contents.append(b"".join(data for _, data in file.chunks(number)))
        call = f"call {number} ({row['method']} {row['url']})"
        if any(redaction.holds_secret(content) for content in contents):
            return (
                f"{call} would hold a credential that became known after it; set it in the "
                "environment before the test's first call"
            )
        if any(redaction.holds_encoded(content) for content in contents):
            return (
                f"{call} would hold a credential inside of base64, where it is not replaced; keep "
                "it out of what is sent"
            )
        if redaction.holds_secret(text):  # in no piece of it, but in what they say together
            return (
                f"{call} would hold a credential that the answer spells out over several events; "
                "keep it out of the prompt"
            )
    return None
