"""Records as a run writes them: into its history first, then its trackers hear of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raycls.run import strict_json
from raycls.run.folder import RunFolder
from raycls.run.trackers.trackers import Trackers


def log(path: Path, trackers: Trackers, *records: Mapping[str, Any]) -> None:
    """Write `records` into the history of the run folder `path`."""
    folder = RunFolder(path)
    folder.store.append_lines(folder.HISTORY, [strict_json.dumps(record) for record in records])
    for _ in records:
        trackers.wrote()
