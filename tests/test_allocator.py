"""What a process frees stays with it, unless its environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PAGES_AGAIN = """
import resource, torch
from raycls.allocator import keep_freed_memory

kept = keep_freed_memory()
for _ in range(30):
    torch.ones(12_000_000)  # 48 MB, more than glibc's threshold ever becomes
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(12_000_000)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def asked(**environment: str) -> tuple[int, int]:
    """Whether the library was asked, and how many pages were mapped for ten more of the same tensor."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    words = [sys.executable, "-c", PAGES_AGAIN]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True, timeout=120)
    kept, pages = done.stdout.split()
    return int(kept), int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parameters are glibc's")
def test_freed_memory_is_used_again() -> None:
    kept, pages = asked()
    assert kept
    assert pages < 12_000, "more than one of the ten was mapped"


@pytest.mark.parametrize(
    "environment", [{"MALLOC_MMAP_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}]
)
def test_the_environment_decides(environment: dict[str, str]) -> None:
    kept, pages = asked(**environment)
    assert not kept
    assert pages > 10 * 48_000_000 // 4096 * 0.9
