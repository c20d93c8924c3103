"""NIfTI files: `.nii` and `.nii.gz`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from raycls.data.making.bad import BadImageError
from raycls.data.volumes.extra import module
from raycls.data.volumes.geometry import RAS_TO_LPS
from raycls.errors import DataError

__all__ = ["SUFFIXES", "directions_of", "place_of", "voxels_of"]

SUFFIXES = (".nii", ".nii.gz")


def directions_of(path: str) -> np.ndarray:
    """As in `geometry.layout_of`, of a file whose header alone is read. DataError where that says no orientation."""
    image = _opened(path)
    header: Any = image.header
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        raise DataError(
            "a NIfTI file does not say how its volume is oriented",
            where=path,
            found="sform_code 0 and qform_code 0",
            valid="a file whose sform or qform is set",
            fix="set its affine, with nibabel: image.set_sform(affine, 1)",
        )
    directions = np.asarray(image.affine, np.float64)[:3, :3] * RAS_TO_LPS[:, None]
    if not np.isfinite(directions).all() or abs(np.linalg.det(directions)) < 1e-12:
        raise DataError("the orientation of a NIfTI file is none", where=path, found=str(directions.tolist()))
    return directions


def place_of(path: str) -> tuple[tuple[int, ...], np.ndarray]:
    """The sizes of the volume of a file, `(i, j, k)`, and where its first voxel lies in mm, `[3]`."""
    image = _opened(path)
    return tuple(image.shape[:3]), np.asarray(image.affine, np.float64)[:3, 3]


def voxels_of(path: str) -> np.ndarray:
    """The values of a file, `[i, j, k] float32`, scaled as its header says. BadImageError where its bytes are damaged,
    DataError where they could not be read."""
    image = _opened(path)
    proxy: Any = image.dataobj
    try:
        values = np.asarray(proxy.get_unscaled())
    except Exception as error:
        found = _unreadable(path, error)
        if (
            isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        ):  # that says nothing of the bytes
            raise found from error
        lines = found.to_dict()
        del lines["what"]
        raise BadImageError(found.what, **lines, size=os.path.getsize(path)) from error
    slope, intercept = float(proxy.slope), float(proxy.inter)
    values = values.reshape(values.shape[:3])
    if (slope, intercept) == (1.0, 0.0):
        values = values.astype(np.float32)
    else:
        values = (values.astype(np.float64) * slope + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            "a volume has values that are no numbers",
            where=path,
            found=f"{int((~np.isfinite(values)).sum()):,} of {values.size:,} voxels are NaN or infinite",
            valid="finite values",
            fix="write a number in their place",
        )
    return values


def _opened(path: str) -> Any:
    nibabel: Any = module("nibabel")
    try:
        image = nibabel.load(path)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(image, nibabel.Nifti1Image):  # its subclass Nifti2Image, too
        raise DataError("this is no NIfTI file", where=path, found=type(image).__name__, valid=", ".join(SUFFIXES))
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or 0 in shape:
        raise DataError(
            "a NIfTI file does not hold one volume",
            where=path,
            found=f"an array of shape {list(shape)}",
            valid="three axes; further ones of size 1",
            fix="write each of its volumes to a file of its own" if len(shape) > 3 else None,
        )
    if dtype.kind not in "iuf":
        raise DataError("a volume has voxels that are no single numbers", where=path, found=str(dtype))
    return image


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(
        "cannot read a NIfTI file",
        where=path,
        found=getattr(error, "strerror", None) or type(error).__name__,
        valid="a whole file in the format NIfTI",
        fix="restore the file",
    )
