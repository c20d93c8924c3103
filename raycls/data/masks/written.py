"""Masks as files: PNG of an image, NIfTI of a volume. Equal masks give equal bytes."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from raycls.data.volumes.dicom import header_of
from raycls.data.volumes.extra import module
from raycls.data.volumes.geometry import RAS_TO_LPS, as_stored
from raycls.errors import ConfigError, DataError

__all__ = ["nifti_of", "png_of", "type_of"]

_TYPES = {"png": (np.uint8, np.uint16), "nifti": (np.uint8, np.int16, np.int32)}
_LEVEL = 6


def type_of(values: Sequence[int], kind: str) -> np.dtype:
    """The smallest type of numbers in which `kind` (`png` or `nifti`) has all these `values`. ConfigError where it has
    none."""
    for each in _TYPES[kind]:
        limits = np.iinfo(each)
        if limits.min <= min(values) and max(values) <= limits.max:
            return np.dtype(each)
    raise ConfigError(
        f"the values of the classes do not fit into a mask that is written as {kind}",
        where="task.args.values, task.args.ignore_index",
        found=f"{min(values)} to {max(values)}",
        valid="0 to 65535 in PNG, 32 bits with a sign in NIfTI",
        fix="train with values in this range",
    )


def png_of(mask: np.ndarray) -> bytes:
    """`mask` `[H, W]`, `uint8` or `uint16`, as a PNG of grey levels: the numbers, whoever reads it."""
    file = BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def nifti_of(mask: np.ndarray, volumes: Any, index: int) -> bytes:
    """`mask` `[D, H, W]` of the volume at `index` of the reader `volumes`, as `.nii.gz` on the grid of its file: the
    axes, the affine and the units of a NIfTI file, or the places and directions of the slices of a DICOM series."""
    nibabel: Any = module("nibabel")
    directions, path = volumes.directions[index], volumes.paths(index)[0]
    stored = as_stored(mask, directions)
    if volumes.kind == "nifti":
        made = _like(nibabel, stored, nibabel.load(path))
    else:
        header = header_of(path)
        if header is None or header.position is None:
            raise DataError("a slice has no ImagePositionPatient", where=path, fix="restore the file")
        affine = np.eye(4)
        affine[:3, :3] = directions[:, ::-1]  # NIfTI counts columns, rows, slices
        affine[:3, 3] = header.position
        affine[:3] *= RAS_TO_LPS[:, None]
        made = nibabel.Nifti1Image(np.ascontiguousarray(stored.transpose(2, 1, 0)), affine)
        made.set_qform(affine, 1)
        made.set_sform(affine, 1)
        made.header.set_xyzt_units("mm")
    return gzip.compress(made.to_bytes(), _LEVEL, mtime=0)


def _like(nibabel: Any, stored: np.ndarray, given: Any) -> Any:
    """A new file with the geometry of `given`, and nothing else of its header, which may name a patient."""
    kind = nibabel.Nifti2Image if isinstance(given, nibabel.Nifti2Image) else nibabel.Nifti1Image
    made = kind(stored, given.affine)
    (sform, of_sform), (qform, of_qform) = given.get_sform(coded=True), given.get_qform(coded=True)
    made.set_qform(given.affine if qform is None else qform, int(of_qform), strip_shears=True)
    made.set_sform(given.affine if sform is None else sform, int(of_sform))
    space, _ = given.header.get_xyzt_units()
    made.header.set_xyzt_units(space)
    return made
