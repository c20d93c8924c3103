"""Weights that one trial takes over from another (population based training), whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

from raycls.config import load as config
from raycls.config.sections.run import Run
from raycls.run import checkpoint, checkpoint_files
from raycls.run.checkpoint_files import BadCheckpointError
from raycls.run.folder import RunFolder
from raycls.run.storage.lock import HANDOVER_SECONDS, Lock
from raycls.run.storage.store import Store

__all__ = ["keep", "kept", "take_over"]

_FILE = "exploit.json"
_WEIGHTS = "model.safetensors"


def kept(trial: str, count: int) -> str:
    """Where exploit number `count` of `trial` finds its checkpoint, below the search folder."""
    return f"exploits/{trial}-{count}"


def keep(search: RunFolder, donor: str, step: int, trial: str, count: int) -> str:
    """Copy the checkpoint of `donor` after `step` steps: the donor deletes old ones while it goes on.

    Returns the sha256 of its weights; empty where it is not there any more, or not as it was written.
    """
    source, place = RunFolder(search.store.sub("trials").sub(donor)), kept(trial, count)
    name = source.checkpoint(step)
    try:
        files = checkpoint_files.verify(source.store, name, step)["files"]
    except BadCheckpointError:
        return ""
    search.store.delete_tree(place)  # what a search that was killed had copied
    for file in [*files, checkpoint_files.MANIFEST]:
        data = source.store.find_bytes(f"{name}/{file}")
        if data is None:  # deleted in this moment
            return ""
        search.store.write_bytes(f"{place}/{file}", data)
    return str(files[_WEIGHTS]["sha256"])


def take_over(folder: RunFolder, run: Run, donor: dict[str, Any]) -> None:
    """Make the kept checkpoint the only one of the trial in `folder`, whose config is `run` from now on.

    `donor` has the `checkpoint` (a folder or URI), its `step`, and the `count` of the exploit; one that was done before
    is left alone. A file says what is to be done and whether all of it is: a crash leaves nothing half taken over.
    Raises CheckpointError where the kept checkpoint is not what was written.
    """
    source, step = Store(donor["checkpoint"]), int(donor["step"])
    with Lock(folder, "take over", timeout=HANDOVER_SECONDS):  # an earlier process of the trial may still be writing
        before = folder.read_json(_FILE)
        if before is None or before["count"] < donor["count"] or not before["done"]:
            folder.write_json(_FILE, {**donor, "done": False})
            folder.store.delete_tree(RunFolder.CHECKPOINTS)  # with what a crash left of half-written ones
            for name in source.list():
                folder.store.write_bytes(f"{folder.checkpoint(step)}/{name}", source.read_bytes(name))
            checkpoint.load(folder, step)  # raises where the copy is not what was written
            folder.store.write_bytes(RunFolder.CONFIG, config.to_yaml(run).encode())
            folder.store.delete(RunFolder.RESULT)
            files = checkpoint_files.manifest(folder.store, folder.checkpoint(step), step)["files"]
            folder.write_json(_FILE, {**donor, "weights": files[_WEIGHTS]["sha256"], "done": True})
    source.delete_tree("")
