"""The slices of a series in their order in space: by position along the normal, and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raycls.data.volumes.dicom import Header
from raycls.errors import DataError

__all__ = ["Series", "arranged"]

_SAME = 1e-3
"""Two cosines, or two distances in mm, that differ by less are equal: decimal strings are rounded."""
_EVEN = 0.05
"""By which part of their mean the distances of slices may differ: what scanners round is less, a missing slice is 1."""


@dataclass(frozen=True)
class Series:
    """The files of one volume from the first slice to the last, along the normal of the slices."""

    paths: tuple[str, ...]
    directions: np.ndarray
    """As in `geometry.layout_of`, of an array `[slices, rows, columns]`."""
    localizers: int
    """Files of the series that are left out, as they are images for planning."""


def arranged(headers: Sequence[Header]) -> Series:
    """The volume of the files of one series. DataError names the file with which they are none."""
    images = [header for header in headers if not header.localizer] or list(headers)
    images = sorted(images, key=lambda header: header.path)  # who is named does not depend on the order of the disk
    first = images[0]
    for header in images:
        _check(header, first)
    row, column = np.reshape(np.array(first.orientation), (2, 3))
    normal = np.cross(row, column)
    positions = np.array([header.position for header in images], np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    if len(images) < 2:
        raise _wrong("a series has one slice and is no volume", first, "1 image", "two or more")
    ordered = [images[index] for index in order]
    _check_distances(ordered, along[order])
    step = (positions[order[-1]] - positions[order[0]]) / (len(images) - 1)
    of_rows, of_columns = first.spacing or (1.0, 1.0)
    directions = np.stack([step, column * of_rows, row * of_columns], axis=1)
    return Series(tuple(header.path for header in ordered), directions, len(headers) - len(images))


def _check(header: Header, first: Header) -> None:
    """What one slice must have, and have in common with the first."""
    if header.frames != 1:
        raise _wrong("a file of a series has several frames", header, f"{header.frames} frames", "one image per file")
    if header.samples != 1:
        raise _wrong("a file of a series has colours", header, f"{header.samples} values per pixel", "grey values")
    for name, value in (
        ("ImagePositionPatient", header.position),
        ("ImageOrientationPatient", header.orientation),
        ("PixelSpacing", header.spacing),
    ):
        if value is None:
            raise _wrong("a slice does not say where it is", header, f"no {name}", "a slice with its geometry")
    if header.shape != first.shape:
        raise _mixed("slices of different sizes", header, header.shape, first.shape, first)
    if not _close(header.orientation, first.orientation):
        raise _mixed("slices of different orientations", header, header.orientation, first.orientation, first)
    if not _close(header.spacing, first.spacing):
        raise _mixed("slices of different PixelSpacing", header, header.spacing, first.spacing, first)
    row, column = np.reshape(np.array(header.orientation), (2, 3))
    if abs(row @ column) > _SAME or abs(row @ row - 1) > _SAME or abs(column @ column - 1) > _SAME:
        found = f"ImageOrientationPatient {_shown(header.orientation)}"
        raise _wrong("the orientation of a slice is none", header, found, "two directions at a right angle")
    if min(header.spacing or (0,)) <= 0:
        raise _wrong("the pixels of a slice have no size", header, f"PixelSpacing {_shown(header.spacing)}", "> 0")


def _check_distances(ordered: Sequence[Header], along: np.ndarray) -> None:
    steps = np.diff(along)
    for index in np.flatnonzero(steps < _SAME).tolist():
        here, other = ordered[index + 1], ordered[index]
        found = f"{along[index + 1]:.3f} mm along the normal, as of {other.path}"
        raise _wrong("two slices of a series are at one place", here, found, "one slice at each position", _SPLIT)
    usual = float(np.median(steps))
    for index in np.flatnonzero(np.abs(steps - usual) > max(_EVEN * usual, _SAME)).tolist():
        found = f"{steps[index]:.3f} mm from the slice before it, {usual:.3f} mm between most"
        what = "a series has a gap, or slices at uneven distances"
        raise _wrong(what, ordered[index + 1], found, "equal distances", "add the missing slices; " + _LEAVE)


_LEAVE = "or leave the series out with data.source.args.ignore"
_SPLIT = f"give each volume of a series a SeriesInstanceUID of its own, {_LEAVE}"


def _close(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    return bool(np.allclose(np.array(one, float), np.array(other, float), rtol=0, atol=_SAME))


def _shown(values: Sequence[float] | None) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values or ()) + "]"


def _mixed(
    what: str, header: Header, own: Sequence[float] | None, theirs: Sequence[float] | None, first: Header
) -> DataError:
    found = f"{_shown(own)}, and {_shown(theirs)} in {first.path}"
    return _wrong(f"a series has {what}", header, found, "one for all slices", _SPLIT)


def _wrong(what: str, header: Header, found: str, valid: str, fix: str = "") -> DataError:
    return DataError(what, where=header.path, found=found, valid=valid, fix=fix or _LEAVE.removeprefix("or "))
