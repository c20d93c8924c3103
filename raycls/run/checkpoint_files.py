"""One checkpoint as a folder of files: written whole, described by a manifest, read back only if it agrees.

`<tree>.safetensors` and `<tree>.json` for each tree of a snapshot; `manifest.json`, written last, with the
sha256 and size of each, and a sha256 of its own. Nothing here unpickles.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import raycls
from raycls.errors import CheckpointError
from raycls.run import strict_json
from raycls.run.snapshot import Snapshot, join, split
from raycls.run.storage.store import Store

__all__ = ["MANIFEST", "BadCheckpointError", "is_good", "manifest", "read", "verify", "write"]

MANIFEST = "manifest.json"
_FORMAT = 1
_TREE = re.compile(r"[a-z][a-z0-9_]*")


class BadCheckpointError(Exception):
    """The files are not what was written; the message says how."""


def write(store: Store, name: str, state: Snapshot, best: Mapping[str, Any] | None) -> dict[str, Any]:
    """Write `state` into the folder `name` ("" is the base of the store), which nobody reads yet.

    `best` is what `best.json` says once this checkpoint stands. Returns the manifest.
    """
    prefix = f"{name}/" if name else ""
    files: dict[str, dict[str, Any]] = {}
    for tree, value in state.trees.items():
        if not _TREE.fullmatch(tree) or tree == "manifest":
            raise ValueError(f"{tree!r} is no name of a tree")
        tensors, structure = split(value)
        text = json.dumps(structure, allow_nan=False).encode()
        for file, data in ((f"{tree}.safetensors", save_tensors(tensors)), (f"{tree}.json", text)):
            files[file] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            store.write_bytes(prefix + file, data, atomic=False)
    described = {
        "format": _FORMAT,
        "step": state.step,
        "files": files,
        "best": strict_json.plain(best),
        "versions": {"raycls": raycls.__version__, "torch": str(torch.__version__)},
        "time": time.time(),
    }
    described["sha256"] = _seal(described)
    store.write_bytes(prefix + MANIFEST, _text(described), atomic=False)
    return described


def read(store: Store, name: str, step: int) -> Snapshot:
    """The snapshot of `step` in the folder `name`. Raises BadCheckpointError if anything is not as written."""
    described = manifest(store, name, step)
    trees: dict[str, Any] = {}
    for file in described["files"]:
        tree, _, suffix = file.rpartition(".")
        if suffix != "json":
            continue
        structure = _content(store, name, file, described)
        tensors = _content(store, name, f"{tree}.safetensors", described)
        try:
            trees[tree] = join(load_tensors(tensors), json.loads(structure))
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BadCheckpointError(f"{tree} cannot be put together: {error}") from error
    return Snapshot(step, trees)


def verify(store: Store, name: str, step: int) -> dict[str, Any]:
    """The manifest, after every file was read and compared with it. Raises BadCheckpointError."""
    described = manifest(store, name, step)
    for file in described["files"]:
        _content(store, name, file, described)
    return described


def is_good(store: Store, name: str, step: int) -> bool:
    """Whether `verify` has nothing to say."""
    try:
        verify(store, name, step)
    except BadCheckpointError:
        return False
    return True


def manifest(store: Store, name: str, step: int) -> dict[str, Any]:
    """The manifest of the folder `name`. Raises BadCheckpointError if it is damaged or not that of `step`.

    Raises CheckpointError if it is sound but of a format that this version does not read.
    """
    data = _bytes(store, name, MANIFEST)
    try:
        described = json.loads(data)
    except ValueError as error:
        raise BadCheckpointError(f"{MANIFEST} is damaged: {error}") from error
    if not isinstance(described, dict) or described.get("sha256") != _seal(described) or data != _text(described):
        raise BadCheckpointError(f"{MANIFEST} is damaged (its sha256 differs)")
    if described["step"] != step:
        raise BadCheckpointError(f"{MANIFEST} is that of step {described['step']}")
    if described["format"] != _FORMAT:
        raise CheckpointError(
            "this checkpoint was written by another version of raycls",
            where=store.describe(name),
            found=f"format {described['format']}, raycls {described.get('versions', {}).get('raycls')}",
            valid=f"format {_FORMAT}",
            fix="use that version of raycls, or start anew with --new",
        )
    return described


def _seal(described: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in described.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _text(described: Mapping[str, Any]) -> bytes:
    return strict_json.dumps(described, indent=2).encode()


def _content(store: Store, name: str, file: str, described: Mapping[str, Any]) -> bytes:
    data = _bytes(store, name, file)
    expected = described["files"][file]
    if len(data) != expected["size"]:
        raise BadCheckpointError(f"{file} has {len(data)} bytes, {expected['size']} were written")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise BadCheckpointError(f"{file} has changed since it was written (its sha256 differs)")
    return data


def _bytes(store: Store, name: str, file: str) -> bytes:
    # A fault of the network or a missing permission says nothing about the checkpoint: that error goes on.
    try:
        return store.read_bytes(f"{name}/{file}")
    except CheckpointError as error:
        cause = error.__cause__
        if isinstance(cause, FileNotFoundError):
            raise BadCheckpointError(f"{file} is missing") from error
        if isinstance(cause, IsADirectoryError | NotADirectoryError):
            raise BadCheckpointError(f"{file} is no file") from error
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            raise BadCheckpointError(f"{file} cannot be read from the disk") from error
        raise
