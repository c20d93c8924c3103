"""Counts as people read them."""

from __future__ import annotations

__all__ = ["plural"]


def plural(count: float, noun: str) -> str:
    """The count and its noun, in the plural where it is one: `1 class`, `1,203 images`, `0.07 epochs`."""
    many = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("tch", "ss")) else f"{noun}s"
    return f"{count:{'g' if isinstance(count, float) else ','}} {noun if count == 1 else many}"
