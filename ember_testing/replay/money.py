"""US dollars as people read them."""

from __future__ import annotations


def dollars(amount: float) -> str:
    """An amount with as many digits as say something.

    Args:
        amount: US dollars.
    """
    if amount >= 1:
        return f"${amount:.2f}"
    return f"${amount:.4f}" if amount >= 0.0001 or amount == 0 else "<$0.0001"
