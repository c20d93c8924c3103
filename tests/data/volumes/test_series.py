"""A series and a NIfTI file of the same volume are the same voxels; a series that is no volume is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from harness.errors import raised
from harness.phantom import Geometry, phantom, tilted, write_nifti, write_series

from raycls.data.sources.volumes.dicom import dicom
from raycls.data.sources.volumes.nifti import nifti
from raycls.data.volumes.dicom import header_of, values_of
from raycls.data.volumes.series import arranged
from raycls.errors import DataError

_AXIAL = Geometry()
_COS, _SIN = float(np.cos(0.3)), float(np.sin(0.3))
_GEOMETRIES = {
    "axial": _AXIAL,
    "head first": Geometry(row=(1, 0, 0), column=(0, -1, 0)),
    "prone": Geometry(row=(-1, 0, 0), column=(0, -1, 0)),
    "sagittal": Geometry(row=(0, 1, 0), column=(0, 0, -1)),
    "coronal": Geometry(row=(1, 0, 0), column=(0, 0, -1)),
    "oblique": Geometry(row=(_COS, _SIN, 0), column=(-_SIN, _COS, 0)),
    "tilted": tilted(),
}


def _both(tmp_path: Path, geometry: Geometry) -> tuple[Any, Any]:
    for label, name in enumerate(("one", "two")):
        volume = phantom(label, label, geometry)
        write_series(tmp_path / "ct" / name, volume, geometry, uid=f"1.2.3.{label + 1}", seed=label)
        write_nifti(tmp_path / "nii" / name / "v.nii.gz", volume, geometry)
    return dicom(tmp_path / "ct").reader, nifti(tmp_path / "nii").reader


@pytest.mark.parametrize("name", _GEOMETRIES)
def test_both_formats_give_the_same_voxels(name: str, tmp_path: Path) -> None:
    series, files = _both(tmp_path, _GEOMETRIES[name])
    for index in range(2):
        assert np.array_equal(series.read(index), files.read(index))
        assert series.read(index).dtype == np.float32
        assert np.allclose(series.spacing(index), files.spacing(index), atol=1e-5)


def test_the_orientation_is_lps(tmp_path: Path) -> None:
    """Worked out by hand: slices to superior, rows to posterior, columns to left."""
    axial, _ = _both(tmp_path / "a", _AXIAL)
    assert np.array_equal(axial.read(0), phantom(0, 0, _AXIAL))
    assert axial.spacing(0) == (2.5, 1.0, 0.75)
    # rows run to inferior, columns to posterior, and slices (the cross product) to right
    sagittal, _ = _both(tmp_path / "s", _GEOMETRIES["sagittal"])
    volume = phantom(0, 0, _AXIAL)
    assert np.array_equal(sagittal.read(0), volume.transpose(1, 2, 0)[::-1, :, ::-1])
    assert np.allclose(sagittal.spacing(0), (1.0, 0.75, 2.5))


def test_the_order_is_that_of_positions(tmp_path: Path) -> None:
    """File names and InstanceNumber are a permutation here, and say nothing."""
    paths = write_series(tmp_path, phantom(3, 1), uid="1.2.3", seed=5)
    assert paths != sorted(paths)
    numbers = [int(pydicom.dcmread(path).InstanceNumber) for path in paths]
    assert numbers != sorted(numbers)
    headers = [header for path in sorted(paths) if (header := header_of(str(path))) is not None]
    assert arranged(headers).paths == tuple(map(str, paths))


def test_a_reversed_direction_of_slices_is_turned(tmp_path: Path) -> None:
    """Slices are stacked along the normal of the plane; with a column that runs up, that is towards the feet."""
    series, _ = _both(tmp_path, _GEOMETRIES["head first"])
    assert np.array_equal(series.read(0), phantom(0, 0, _AXIAL)[::-1, ::-1])


def _change(path: Path, **attributes: Any) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)


_BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "orientation": ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different orientations"),
    "size": ({"Rows": 10, "PixelData": b"\0" * 480}, "different sizes"),
    "spacing": ({"PixelSpacing": [2, 2]}, "different PixelSpacing"),
    "frames": ({"NumberOfFrames": 2}, "several frames"),
    "colours": ({"SamplesPerPixel": 3}, "colours"),
    "no position": ({"ImagePositionPatient": None}, "where it is"),
    "same place": ({"ImagePositionPatient": [-9, -10.5, 45]}, "at one place"),
    "uneven": ({"ImagePositionPatient": [-9, -10.5, 48.5]}, "gap"),
}


@pytest.mark.parametrize("name", _BROKEN)
def test_a_series_that_is_no_volume_is_refused(name: str, tmp_path: Path) -> None:
    changes, what = _BROKEN[name]
    folder = tmp_path / "ct" / "one" / "s"
    paths = write_series(folder, phantom(0, 0), uid="1.2.3")
    write_series(tmp_path / "ct" / "two" / "s", phantom(0, 1), uid="1.2.4")
    _change(paths[3], **changes)
    with raised(DataError) as caught:
        dicom(tmp_path / "ct")
    told = caught.value
    assert what in told.what
    assert told.where is not None and Path(told.where).parent == folder
    assert str(paths[3]) in f"{told.where} {told.found}" or name == "uneven"
    assert told.fix is not None and "data.source.args.ignore" in told.fix


def test_a_gap_is_refused_and_the_slice_after_it_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct" / "one", phantom(0, 0), uid="1.2.3")
    write_series(tmp_path / "ct" / "two", phantom(0, 1), uid="1.2.4")
    paths[4].unlink()
    with raised(DataError, where=str(paths[5]), found=re.compile(r"^5\.000 mm .* 2\.500 mm")):
        dicom(tmp_path / "ct")


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct" / "one", phantom(0, 0), uid="1.2.3")
    for path in paths[1:]:
        path.unlink()
    (tmp_path / "ct" / "two").mkdir()
    with raised(DataError, where=str(paths[0]), found="1 image"):
        dicom(tmp_path / "ct")


def test_localizers_and_objects_without_pixels_are_left_out_and_told(tmp_path: Path) -> None:
    volume = phantom(0, 0)
    write_series(tmp_path / "ct" / "one", volume, uid="1.2.3")
    write_series(tmp_path / "ct" / "two", phantom(0, 1), uid="1.2.4")
    across = Geometry(size=(1, 20, 24), row=(0, 1, 0), column=(0, 0, -1))
    extra = write_series(
        tmp_path / "x", volume[:1], across, uid="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    extra[0].rename(tmp_path / "ct" / "one" / "scout")
    report = pydicom.dcmread(tmp_path / "ct" / "two" / "IM0000")
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "ct" / "two" / "report")
    found = dicom(tmp_path / "ct")
    assert np.array_equal(found.reader.read(0), volume)
    assert "data: 1 localizer left out" in found.notes
    assert "data: 1 DICOM file without an image left out" in found.notes


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "ct" / "one", phantom(0, 0), uid="1.2.3")
    (tmp_path / "ct" / "one" / "notes.txt").write_text("a text of more than 132 bytes\n" * 20)
    with raised(DataError, where=str(tmp_path / "ct" / "one" / "notes.txt"), found="it is no DICOM file"):
        dicom(tmp_path / "ct")


def test_a_series_in_two_classes_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "ct" / "one", phantom(0, 0), uid="1.2.3")
    write_series(tmp_path / "ct" / "two", phantom(0, 0), uid="1.2.3")
    with raised(DataError, where=re.compile("^two/"), found=re.compile("one/")):
        dicom(tmp_path / "ct")


def test_values_by_hand(tmp_path: Path) -> None:
    """Stored 5 with slope 2 and intercept -1024 is -1014; 12 bits of MONOCHROME1 are counted from their end."""
    geometry = replace(_AXIAL, size=(1, 2, 2))
    stored = np.array([[[0, 5], [7, 4095]]])
    (path,) = write_series(tmp_path / "a", stored * 2 - 1024, geometry, uid="1.2.3")
    assert values_of(str(path)).tolist() == [[-1024, -1014], [-1010, 7166]]
    (path,) = write_series(
        tmp_path / "b",
        stored * 2 - 1024,
        geometry,
        uid="1.2.4",
        PixelRepresentation=0,
        BitsStored=12,
        HighBit=11,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert values_of(str(path)).tolist() == [[7166, 7156], [7152, -1024]]


def test_signed_monochrome1_is_reversed_within_its_range(tmp_path: Path) -> None:
    geometry = replace(_AXIAL, size=(1, 1, 2))
    stored = np.array([[[-32768, 3]]])
    (path,) = write_series(tmp_path, stored * 2 - 1024, geometry, uid="1.2.3", PhotometricInterpretation="MONOCHROME1")
    assert values_of(str(path)).tolist() == [[32767 * 2 - 1024, -4 * 2 - 1024]]
