"""Freed memory stays with the process that trains: the C library gives it back to the kernel after each step otherwise.

The activations of a step are freed and allocated anew, tens of megabytes each. glibc maps such a piece when it is asked
for and unmaps it when it is freed, so that the kernel has to clear every page of it in every step. Source of the
parameters: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees, up to its end; the process then stays at its largest size.

    False, and nothing is changed, where the environment chooses otherwise (`MALLOC_..._`, `GLIBC_TUNABLES`) or the C
    library has no such parameters. No number that is computed depends on it.
    """
    if any(name in os.environ for name in _OWN_CHOICE) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
