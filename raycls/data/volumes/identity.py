"""What stands for the identifiers of patients and series: the first digits of their sha256.

The hash has no key. It keeps names, numbers and dates out of files that are looked at and handed on; whoever has a list
of possible identifiers can still hash each of them and compare.
"""

from __future__ import annotations

import hashlib

__all__ = ["hashed"]

_DIGITS = 16
"""Hexadecimal digits: among a million identifiers two share these with a probability of 3e-8."""


def hashed(identifier: str) -> str:
    """16 hexadecimal digits of the sha256 of `identifier`, without spaces around it."""
    return hashlib.sha256(identifier.strip().encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
