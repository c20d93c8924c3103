"""The working directory as Ray would zip it for a job."""

from __future__ import annotations

import heapq
import logging
from pathlib import Path

__all__ = ["measure"]

_QUIET = logging.getLogger("raycls.upload")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


def measure(path: str, most: int) -> tuple[int, list[tuple[str, int]]]:
    """Bytes of the files below `path` that .gitignore and .rayignore admit, before zipping, and its `most` biggest."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env import packaging

    base = Path(path)
    sizes: list[tuple[int, str]] = []

    def note(file: Path) -> None:
        if file.is_file():
            sizes.append((file.stat().st_size, str(file.relative_to(base))))

    excludes = [packaging._get_excludes(base, get_runtime_env_default_excludes())]
    packaging._dir_travel(base, excludes, note, include_gitignore=True, logger=_QUIET)
    return sum(size for size, _ in sizes), [(name, size) for size, name in heapq.nlargest(most, sizes)]
