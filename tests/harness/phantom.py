"""A synthetic CT: a body with a spine, and a lesion whose kind is the class, as DICOM series and as NIfTI files.

The values are Hounsfield units and the same in both formats. Nothing of it is a patient's; what is planted as a
patient's is made up here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("calcified", "cystic", "solid")
PLANTED = ("Doe^Jane", "PAT-77-4711", "19610203", "20250611", "ACC-998877", "St Planted Hospital", "DrPlanted")
"""What every file says of its patient, in the attributes where such things stand."""


@dataclass(frozen=True)
class Geometry:
    """Where slices lie, in mm (left, posterior, superior): `tilt` leans the gantry, so that slices are shifted."""

    size: tuple[int, int, int] = (10, 20, 24)
    """Slices, rows, columns."""
    spacing: tuple[float, float, float] = (2.5, 1.0, 0.75)
    origin: tuple[float, float, float] = (-9.0, -10.5, 40.0)
    row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    tilt: float = 0.0
    """mm along the columns that each slice is shifted by."""

    @property
    def directions(self) -> np.ndarray:
        """Columns: a step to the next slice, row and column."""
        row, column = np.array(self.row), np.array(self.column)
        slices = np.cross(row, column) * self.spacing[0] + column * self.tilt
        return np.stack([slices, column * self.spacing[1], row * self.spacing[2]], axis=1)


def phantom(seed: int, label: int, geometry: Geometry = Geometry()) -> np.ndarray:
    """`[slices, rows, columns] int16` in Hounsfield units: air, body, spine, and the lesion of a class."""
    rng = np.random.default_rng(seed)
    shape = np.array(geometry.size)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"), -1)

    def inside(centre: Any, radii: Any) -> np.ndarray:
        return (((grid - np.array(centre)) / np.array(radii)) ** 2).sum(-1) < 1

    volume = np.full(geometry.size, -1000.0)
    volume[inside((0, 0, 0), (2, 0.9, 0.9))] = 40
    volume[inside((0, 0.6, 0), (2, 0.18, 0.15))] = 700
    centre = rng.uniform((-0.3, -0.4, -0.4), (0.3, 0.1, 0.4))
    volume[inside(centre, rng.uniform(0.3, 0.42, 3))] = (400, 0, 120)[label]
    volume[volume > -1000] += rng.normal(0, 8, int((volume > -1000).sum()))
    return np.round(volume).astype(np.int16)


def write_series(
    folder: Path, volume: np.ndarray, geometry: Geometry = Geometry(), *, uid: str, seed: int = 0, **changes: Any
) -> list[Path]:
    """`volume` as a series of DICOM files in a random order, with names and numbers that say nothing of it.

    The files are in the order of the slices. `changes` are attributes of all of them; stored values are signed, with a
    slope of 2 and an intercept of -1024 where the values are even, else of 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(volume))
    slope = 2 if not (volume % 2).any() else 1
    stored = ((volume.astype(np.int32) + 1024) // slope).astype("<i2")
    paths: list[Path] = []
    for index, pixels in enumerate(stored):
        position = np.array(geometry.origin) + geometry.directions[:, 0] * index
        path = folder / f"IM{order[index]:04d}"
        dataset = slice_of(pixels, position, geometry, uid, int(order[index]))
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -1024
        for name, value in changes.items():
            setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def slice_of(pixels: np.ndarray, position: np.ndarray, geometry: Geometry, uid: str, number: int) -> Any:
    """One CT image as a pydicom dataset."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{uid}.{number + 1}"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid, f"{uid}.9"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PLANTED[0], PLANTED[1], PLANTED[2]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = PLANTED[3]
    dataset.AccessionNumber, dataset.InstitutionName, dataset.ReferringPhysicianName = PLANTED[4:]
    dataset.Modality, dataset.ImageType, dataset.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], number
    dataset.ImagePositionPatient = [f"{value:.6f}"[:16] for value in position]
    dataset.ImageOrientationPatient = [f"{value:.6f}" for value in (*geometry.row, *geometry.column)]
    dataset.PixelSpacing = [str(geometry.spacing[1]), str(geometry.spacing[2])]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = pixels.tobytes()
    return dataset


def write_nifti(path: Path, volume: np.ndarray, geometry: Geometry = Geometry()) -> Path:
    """`volume` as a NIfTI file, with its axes as (column, row, slice), which is how converters write them."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[:3, :3] = geometry.directions[:, ::-1]
    affine[:3, 3] = geometry.origin
    affine[:2] *= -1  # to right, anterior, superior
    nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine).to_filename(path)
    return path


def write_data(root: Path, count: int, kind: str, geometry: Geometry = Geometry()) -> Path:
    """`count` volumes of each class in class folders below `root`, as `dicom` or `nifti`; each has a patient of its
    own."""
    for label, name in enumerate(CLASSES):
        for number in range(count):
            seed = 1000 * label + number
            volume = phantom(seed, label, geometry)
            if kind == "nifti":
                write_nifti(root / name / f"{number}.nii.gz", volume, geometry)
            else:
                uid = f"1.2.826.0.1.3680043.8.498.{PLANTED[3]}.{seed + 1}"
                write_series(
                    root / name / f"s{number}", volume, geometry, uid=uid, seed=seed, PatientID=f"{PLANTED[1]}-{seed}"
                )
    return root


def tilted(geometry: Geometry = Geometry(), tilt: float = 0.4) -> Geometry:
    """The same with a leaning gantry."""
    return replace(geometry, tilt=tilt)
