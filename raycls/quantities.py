"""Counts as people read them."""

from __future__ import annotations

__all__ = ["epochs_text", "plural"]


def epochs_text(epochs: float) -> str:
    """`1 epoch`, `0.07 epochs`."""
    return f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'}"


def plural(count: int, noun: str) -> str:
    """The count and its noun, in the plural where it is one."""
    many = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("ch", "ss")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"
