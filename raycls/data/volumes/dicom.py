"""DICOM files: what a header says that a series needs, and the values of the pixels.

Nothing that a message of raycls says comes from the values of a file, but for sizes and geometry: errors name the file
and the attribute.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.data.volumes.extra import INSTALL, module
from raycls.errors import DataError

__all__ = ["Header", "frames_of", "header_of", "values_of"]


@dataclass(frozen=True)
class Header:
    """What is read of a file before any pixel. `position`, `orientation` and `spacing` are None where it has none."""

    path: str
    series: str
    """SeriesInstanceUID; empty where there is none."""
    patient: str
    """PatientID; empty where there is none."""
    shape: tuple[int, int]
    """Rows and columns; zeros where the object has no pixels, such as a report."""
    frames: int
    samples: int
    """Numbers of a pixel: 1 of grey values, 3 of colours."""
    localizer: bool
    position: tuple[float, ...] | None
    """ImagePositionPatient: the middle of the first pixel in mm (left, posterior, superior)."""
    orientation: tuple[float, ...] | None
    """ImageOrientationPatient: the directions of a row and of a column."""
    spacing: tuple[float, ...] | None
    """PixelSpacing: the distances in mm of rows and of columns."""


_NEEDED = (
    *("SOPClassUID", "SeriesInstanceUID", "PatientID", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
)


def header_of(path: str) -> Header | None:
    """The header of a file; None for a DICOMDIR, a list of other files. DataError where it is no DICOM file."""
    pydicom: Any = module("pydicom")
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_NEEDED))
        kind = str(data.file_meta.get("MediaStorageSOPClassUID", ""))
    except Exception as error:
        raise _unreadable(path, error) from error
    if kind == "1.2.840.10008.1.3.10":
        return None
    read = _Attributes(path, data)
    types = read.texts("ImageType")
    return Header(
        path,
        series=read.text("SeriesInstanceUID"),
        patient=read.text("PatientID"),
        shape=(read.integer("Rows", 0), read.integer("Columns", 0)),
        frames=read.integer("NumberOfFrames", 1),
        samples=read.integer("SamplesPerPixel", 1),
        localizer="LOCALIZER" in types,
        position=read.numbers("ImagePositionPatient", 3),
        orientation=read.numbers("ImageOrientationPatient", 6),
        spacing=read.numbers("PixelSpacing", 2),
    )


@dataclass(frozen=True)
class _Attributes:
    """The attributes of a file. DataError names one whose value is not of its kind, and not the value."""

    path: str
    data: Any

    def get(self, name: str) -> Any:
        try:
            return self.data.get(name)
        except Exception as error:
            raise self._wrong(name) from error

    def text(self, name: str) -> str:
        value = self.get(name)
        return "" if value is None else str(value).strip()

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.get(name)
        return (value,) if isinstance(value, str) else tuple(map(str, value or ()))

    def integer(self, name: str, default: int) -> int:
        value = self.get(name)
        if value is None or value == "":
            return default
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise self._wrong(name) from error

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        value = self.get(name)
        if value is None or value == "" or (hasattr(value, "__len__") and not len(value)):
            return None
        try:
            found = tuple(float(each) for each in value)
        except (TypeError, ValueError) as error:
            raise self._wrong(name) from error
        if len(found) != count or not np.isfinite(found).all():
            raise self._wrong(name)
        return found

    def _wrong(self, name: str) -> DataError:
        return DataError("a DICOM file has an attribute that is not of its kind", where=self.path, found=name)


def frames_of(path: str) -> np.ndarray:
    """The stored values of a file as pydicom decodes them: `[H, W]`, `[H, W, 3]` of colours (converted to RGB), and
    with an axis of frames before it where there are several. DataError where it has no pixels, or none that can be
    decoded."""
    return _decoded(path)[1]


def values_of(path: str) -> np.ndarray:
    """The values of a grey image in the units of its modality, such as Hounsfield units: `[H, W]` or `[F, H, W]
    float32`.

    Those of MONOCHROME1, whose low values are bright, are reversed within the range of their bits before that.
    """
    pydicom: Any = module("pydicom")
    data, stored = _decoded(path)
    read = _Attributes(path, data)
    kind = read.text("PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        known = kind in ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
        raise DataError(
            "a DICOM image is not of grey values",
            where=path,
            found=f"PhotometricInterpretation {kind if known else 'of another kind'}",
            valid="MONOCHROME1 or MONOCHROME2",
        )
    if kind == "MONOCHROME1":
        bits = read.integer("BitsStored", 8 * stored.dtype.itemsize)
        ends = -1 if read.integer("PixelRepresentation", 0) else 2**bits - 1
        stored = ends - stored.astype(np.int64)
    try:
        values = pydicom.pixels.apply_modality_lut(stored, data)
    except Exception as error:
        raise DataError(
            "the modality LUT of a DICOM file cannot be applied", where=path, found=type(error).__name__
        ) from error
    return np.asarray(values, np.float32)


def _decoded(path: str) -> tuple[Any, np.ndarray]:
    pydicom: Any = module("pydicom")
    try:
        data = pydicom.dcmread(path)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("a DICOM file has no pixels", where=path, found="no PixelData", valid="an image")
    try:
        return data, np.asarray(data.pixel_array)
    except Exception as error:
        syntax = str(data.file_meta.get("TransferSyntaxUID", "none"))
        name = pydicom.uid.UID(syntax).name if syntax in pydicom.uid.UID_dictionary else "unknown"
        missing = "missing dependencies" in str(error)
        raise DataError(
            "the pixels of a DICOM file cannot be decoded",
            where=path,
            found=f"transfer syntax {name}, {type(error).__name__}" + ": no decoder is installed" * missing,
            fix=INSTALL if missing else "restore the file",
        ) from error


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(
        "cannot read a DICOM file",
        where=path,
        found=(isinstance(error, OSError) and error.strerror) or _reason(error),
        valid="a file in the format of DICOM part 10, with its preamble",
        fix="restore the file" if os.path.isfile(path) else None,
    )


def _reason(error: Exception) -> str:
    return "it is no DICOM file" if type(error).__name__ == "InvalidDicomError" else type(error).__name__
