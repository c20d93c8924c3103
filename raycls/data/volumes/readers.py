"""The reader of volumes: a series of DICOM files or a NIfTI file as `[D, H, W] float32`, read when it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raycls.data.samples import Files, Keys
from raycls.data.volumes import nifti
from raycls.data.volumes.dicom import values_of
from raycls.data.volumes.geometry import oriented, spacing_of
from raycls.errors import DataError

__all__ = ["Volumes"]


@dataclass(frozen=True)
class Volumes:
    """Volumes in files below a folder, each in one orientation (`geometry`)."""

    kind: Literal["dicom", "nifti"]
    files: Files
    """All files of all volumes, one volume after another, each in the order of its slices."""
    offsets: np.ndarray
    """Where the files of each volume begin, and where the last one ends, `[N + 1] int64`."""
    directions: np.ndarray
    """As in `geometry.layout_of`, of each volume, `[N, 3, 3]`."""

    decodes = True
    """What `read` returns is made anew at every call, and worth keeping in memory."""

    @classmethod
    def of(
        cls, kind: Literal["dicom", "nifti"], root: str, volumes: Sequence[Sequence[str]], directions: np.ndarray
    ) -> Volumes:
        """The reader of `volumes`, each the paths of its files relative to `root`."""
        names = Keys([path for paths in volumes for path in paths])
        offsets = np.cumsum([0, *map(len, volumes)], dtype=np.int64)
        return cls(kind, Files(root, names), offsets, np.asarray(directions, np.float64).reshape(-1, 3, 3))

    def read(self, index: int) -> np.ndarray:
        """`[D, H, W] float32` in the units of the modality. DataError names the file with which it cannot be made."""
        paths = self.paths(index)
        if self.kind == "nifti":
            return oriented(nifti.voxels_of(paths[0]), self.directions[index])
        first = _slice(paths[0])
        stack = np.empty((len(paths), *first.shape), np.float32)
        stack[0] = first
        for place, path in enumerate(paths[1:], 1):
            values = _slice(path)
            if values.shape != first.shape:
                raise DataError(
                    "a slice has another size than the first one of its series",
                    where=path,
                    found=f"{list(values.shape)}, and {list(first.shape)} in {paths[0]}",
                    valid="one size for all slices",
                )
            stack[place] = values
        return oriented(stack, self.directions[index])

    def spacing(self, index: int) -> tuple[float, ...]:
        """The distances in mm of slices, rows and columns of what `read` returns."""
        return spacing_of(self.directions[index])

    def paths(self, index: int) -> list[str]:
        """The files of one volume."""
        return [self.files.locate(place) for place in range(*self.offsets[index : index + 2].tolist())]

    def locate(self, index: int) -> str:
        """The file of one volume, or the folder of its files."""
        paths = self.paths(index)
        return paths[0] if len(paths) == 1 else os.path.commonpath(paths)

    def sizes(self) -> np.ndarray:
        """Bytes of the files of each volume, `[N] int64`; -1 where one is missing."""
        each = self.files.sizes()
        parts = [each[start:stop] for start, stop in zip(self.offsets, self.offsets[1:], strict=False)]
        return np.array([-1 if (part < 0).any() else part.sum() for part in parts], np.int64)

    def take(self, rows: np.ndarray) -> Volumes:
        """A reader of the volumes at `rows` alone."""
        spans = [np.arange(*self.offsets[row : row + 2].tolist()) for row in rows.tolist()]
        files = self.files.take(np.concatenate([np.zeros(0, np.int64), *spans]))
        offsets = np.cumsum([0, *map(len, spans)], dtype=np.int64)
        return Volumes(self.kind, files, offsets, self.directions[rows])


def _slice(path: str) -> np.ndarray:
    values = values_of(path)
    if values.ndim != 2:
        raise DataError("a file of a series has several frames", where=path, found=f"pixels {list(values.shape)}")
    return values
