"""Stores of three kinds, small snapshots, and child processes that may be killed."""

from __future__ import annotations

import io
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import fs as arrow

from raycls.run.folder import RunFolder
from raycls.run.snapshot import Snapshot, snapshot
from raycls.run.storage.remote import RemoteFiles
from raycls.run.storage.retry import Retry
from raycls.run.storage.store import Store


class KilledError(BaseException):
    """What a dead process does from now on: nothing."""


class ObjectStore(arrow.FileSystemHandler):
    """Objects in memory as S3 keeps them: no folders, no rename, an object appears when its upload ends.

    With `fuse = n`, the n-th call and every one after it raises KilledError.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fuse: int | None = None

    def _tick(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise KilledError

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return path

    def _info(self, path: str) -> arrow.FileInfo:
        if path in self.objects:
            return arrow.FileInfo(path, arrow.FileType.File, size=len(self.objects[path]))
        if any(name.startswith(path + "/") for name in self.objects):
            return arrow.FileInfo(path, arrow.FileType.Directory)
        return arrow.FileInfo(path, arrow.FileType.NotFound)

    def get_file_info(self, paths: list[str]) -> list[arrow.FileInfo]:
        self._tick()
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: arrow.FileSelector) -> list[arrow.FileInfo]:
        self._tick()
        base = selector.base_dir + "/"
        below = [name[len(base) :] for name in self.objects if name.startswith(base)]
        names = set(below) if selector.recursive else {name.partition("/")[0] for name in below}
        return [self._info(base + name) for name in sorted(names)]

    def create_dir(self, path: str, recursive: bool) -> None:
        raise NotImplementedError("an object store has no folders")

    def delete_dir(self, path: str) -> None:
        for name in [name for name in self.objects if name.startswith(path + "/")]:
            self.delete_file(name)

    def delete_file(self, path: str) -> None:
        self._tick()
        del self.objects[path]

    def copy_file(self, src: str, dest: str) -> None:
        self._tick()
        self.objects[dest] = self.objects[src]

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        self._tick()
        if path not in self.objects:
            raise FileNotFoundError(path)
        return pyarrow.PythonFile(io.BytesIO(self.objects[path]), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        self._tick()
        store = self

        class Upload(io.BytesIO):
            def close(self) -> None:
                if not self.closed and (store.fuse is None or store.fuse >= 0):
                    store.objects[path] = self.getvalue()
                super().close()

        return pyarrow.PythonFile(Upload(), mode="w")

    open_input_file = open_input_stream

    def _unused(self, *args: Any) -> Any:
        raise NotImplementedError

    move = delete_dir_contents = delete_root_dir_contents = open_append_stream = _unused


def on_filesystem(filesystem: arrow.FileSystem, base: str) -> Store:
    """A store under the path `base` of any file system of pyarrow. Its `uri` is for messages only."""
    uri = f"{filesystem.type_name}:{base}"
    return Store._on(RemoteFiles(filesystem, base, Retry(uri)), uri)


def make_store(kind: str, base: Path) -> Store:
    """A store of the `kind` local, tree (a file system with folders behind pyarrow) or objects."""
    if kind == "local":
        return Store(base / "bucket" / "run")
    if kind == "tree":
        return on_filesystem(arrow.SubTreeFileSystem(str(base), arrow.LocalFileSystem()), "bucket/run")
    return on_filesystem(arrow.PyFileSystem(ObjectStore()), "bucket/run")


@pytest.fixture(params=["local", "tree", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return make_store(request.param, tmp_path)


@pytest.fixture
def objects() -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def remote(objects: ObjectStore) -> Callable[[], RunFolder]:
    """`remote()` opens the run folder in `objects` as a new process would."""
    return lambda: RunFolder(on_filesystem(arrow.PyFileSystem(objects), "bucket/run"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def state() -> Callable[..., Snapshot]:
    """`state(step)` is a snapshot whose content tells its step."""

    def make(step: int, value: float | None = None) -> Snapshot:
        filled = float(step) if value is None else value
        return snapshot(
            step, {"model": {"weight": torch.full((3, 2), filled)}, "train": {"step": step, "note": filled}}
        )

    return make


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], int]:
    """`in_child(function)` runs it in a forked process: 0 if it returned, 1 if it raised, -9 if it was killed."""

    def run(function: Callable[[], object]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # forking a process with threads: this child uses none of theirs
            child = os.fork()
        if child == 0:
            try:
                function()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run
