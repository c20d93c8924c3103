"""What both sources of volumes make of their files: samples with labels, in the splits that the data brings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from raycls.data.samples import Samples
from raycls.data.sources.listing.manifest import SUFFIXES, listed
from raycls.data.sources.remote.places import Local, Place
from raycls.data.sources.volumes.walk import local
from raycls.data.volumes.readers import Volumes
from raycls.errors import DataError

__all__ = ["Sample", "from_manifest", "is_manifest", "samples_of", "with_volumes"]


@dataclass(frozen=True)
class Sample:
    """One volume."""

    split: str | None
    label: str
    key: str
    paths: tuple[str, ...]
    """Its files relative to the root, in the order of the slices."""
    directions: np.ndarray
    """As in `geometry.layout_of`."""
    patient: str = ""
    """What stands for the patient; empty where that is not known."""


def is_manifest(path: str) -> bool:
    """Whether the path of a source is that of a manifest."""
    return os.path.isfile(path) and path.lower().endswith(SUFFIXES)


def samples_of(
    kind: Literal["dicom", "nifti"], root: str, found: Sequence[Sample], notes: Sequence[str], about: Sequence[str]
) -> Samples:
    """What the source hands over, of volumes in class folders. DataError where there are none."""
    if not found:
        raise DataError("the data folder holds no volumes", where=root)
    classes = sorted({sample.label for sample in found})
    splits: dict[str, list[int]] = {}
    for row, sample in enumerate(found):
        if sample.split is not None:
            splits.setdefault(sample.split, []).append(row)
    return Samples(
        classes=classes,
        labels=np.array([classes.index(sample.label) for sample in found], np.int64),
        keys=_unique(found),
        reader=_reader(kind, root, found),
        splits=splits or None,
        notes=notes,
        about={name: _about(found, name) for name in _columns(found, about)},
    )


def from_manifest(path: str, args: Mapping[str, Any], about: Sequence[str]) -> tuple[Samples, str, list[str]]:
    """What a manifest says of its volumes: samples, without a reader of volumes; the folder that its paths are relative
    to, and these."""
    columns = [name for name in about if name != "patient"]
    samples = listed(path, _Anything.of, about=columns, **args)
    files: Any = samples.reader
    return samples, files.root, list(samples.keys)


def with_volumes(
    samples: Samples,
    kind: Literal["dicom", "nifti"],
    root: str,
    found: Sequence[Sample],
    notes: Sequence[str],
    about: Sequence[str],
) -> Samples:
    """`samples` of a manifest with the volumes that were found at their paths, in the same order."""
    return replace(
        samples,
        keys=_unique(found),
        reader=_reader(kind, root, found),
        notes=(*samples.notes, *notes),
        about={
            **samples.about,
            **{name: _about(found, name) for name in _columns(found, about) if name not in samples.about},
        },
    )


class _Anything(Local):
    """Files and folders."""

    @classmethod
    def of(cls, place: Place) -> _Anything:
        return cls(local(place.locate("")))

    def is_file(self, name: str) -> bool:
        return os.path.exists(self.locate(name))


def _reader(kind: Literal["dicom", "nifti"], root: str, found: Sequence[Sample]) -> Volumes:
    return Volumes.of(kind, root, [sample.paths for sample in found], np.stack([each.directions for each in found]))


def _unique(found: Sequence[Sample]) -> list[str]:
    first: dict[str, Sample] = {}
    for sample in found:
        other = first.setdefault(sample.key, sample)
        if other is not sample:
            raise DataError(
                "one series is in the data twice",
                where=sample.paths[0],
                found=f"as in {other.paths[0]}",
                valid="each SeriesInstanceUID in one folder of one class",
                fix="remove one of them, or leave it out with data.source.args.ignore",
            )
    return list(first)


def _columns(found: Sequence[Sample], about: Sequence[str]) -> list[str]:
    """The columns `about` and, where it is known, that of patients, who are kept in one split without being asked."""
    return list(dict.fromkeys([*about, *(["patient"] if any(sample.patient for sample in found) else [])]))


def _about(found: Sequence[Sample], name: str) -> list[str]:
    if name != "patient" or not any(sample.patient for sample in found):
        raise DataError(f"there is no column {name}", found="patient" if name != "patient" else "no PatientID")
    return [sample.patient for sample in found]
