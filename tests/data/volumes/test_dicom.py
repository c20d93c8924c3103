"""Every DICOM file in pydicom's wheel: the pixels that pydicom says, or an error with a reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from harness.errors import raised

from raycls.data.volumes.dicom import frames_of, header_of, values_of
from raycls.data.volumes.extra import module
from raycls.errors import ConfigError, DataError

_DATA = Path(pydicom.__file__).parent / "data"
_FILES = sorted(
    path for path in _DATA.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".json", ".txt", ".md")
)


def _pydicom(path: Path) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """The stored values that pydicom decodes, and those after the modality LUT; None where it has none; their kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = pydicom.dcmread(path)
            stored = data.pixel_array
        except Exception:
            return None, None, ""
        try:
            values = np.asarray(pydicom.pixels.apply_modality_lut(stored, data), np.float32)
        except Exception:
            values = None
        return stored, values, str(data.get("PhotometricInterpretation"))


@pytest.mark.slow
def test_the_files_of_pydicom_are_decoded_as_pydicom_does_or_refused() -> None:
    decoded, grey, refused = 0, 0, 0
    for path in _FILES:
        stored, values, kind = _pydicom(path)
        if stored is None:
            with pytest.raises(DataError) as caught:
                frames_of(str(path))
            assert caught.value.where == str(path) and caught.value.found
            refused += 1
            continue
        assert np.array_equal(frames_of(str(path)), stored), path
        decoded += 1
        if kind == "MONOCHROME2":
            assert values is not None and np.array_equal(values_of(str(path)), values), path
            grey += 1
        elif kind != "MONOCHROME1":
            with raised(DataError, where=str(path), what="a DICOM image is not of grey values"):
                values_of(str(path))
    assert (decoded, refused) == (len(_FILES) - refused, len(_FILES) - decoded)
    assert decoded >= 100 and grey >= 50 and refused >= 90  # of 198 files, of which 81 have no pixels


def test_every_header_is_read_or_refused() -> None:
    read = 0
    for path in _FILES:
        try:
            header_of(str(path))
        except DataError as error:
            assert error.where == str(path) and error.found
        else:
            read += 1
    assert read >= 170


def test_a_package_that_is_missing_is_told_with_the_line_that_installs_it() -> None:
    with raised(ConfigError, what="this data needs the package pydikom", fix="pip install 'raycls[medical]'"):
        module("pydikom")
