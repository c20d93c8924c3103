"""Source `dicom`: series of slices, grouped by SeriesInstanceUID.

scans/benign/anything/IM0001     one folder per class, series at any depth below it, files of any name
scans/malignant/...
series.csv                       or a manifest whose column path names folders, each with the files of one series
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from raycls.data.samples import Samples
from raycls.data.sources.volumes.listed import Sample, from_manifest, is_manifest, samples_of, with_volumes
from raycls.data.sources.volumes.walk import Walk
from raycls.data.volumes.dicom import Header, header_of
from raycls.data.volumes.identity import hashed
from raycls.data.volumes.series import arranged
from raycls.errors import DataError
from raycls.progress import counted
from raycls.quantities import plural

__all__ = ["dicom", "series_of"]


def dicom(
    path: str | Path,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    keep_ids: bool = False,
    about: Sequence[str] = (),
) -> Samples:
    """Series of DICOM files in one directory per class, or in the folders that a manifest lists.

    A sample is a series: its slices by position along their normal, whatever the files are called. `splits`, `ignore`
    and `ignore_file` are those of the source `folder`, `root` and `columns` those of `manifest`. Patients and series
    are called by hashes of their ids (`identity`), unless `keep_ids`; `patient` is a column of `about`. Images for
    planning (localizers) and objects without pixels are left out and counted. DataError names the file with which a
    series is no volume.
    """
    named = str if keep_ids else hashed
    if is_manifest(str(path)):
        args = {"root": root, "columns": columns, "splits": splits, "ignore": ignore, "ignore_file": ignore_file}
        listed, folder, paths = from_manifest(str(path), args, about)
        walk = Walk(folder, ignore, ignore_file)
        series = _Series(walk.root)
        found = [series.only(None, "", each, walk.files(each), named) for each in paths]
        return with_volumes(listed, "dicom", walk.root, found, series.notes(found), about)
    walk = Walk(str(path), ignore, ignore_file)
    groups, notes = walk.groups(splits)
    series = _Series(walk.root)
    for group in groups:
        series.expect(len(group.files))
    found = [sample for group in groups for sample in series.of(group.split, group.label, group.files, named)]
    found = [sample for sample in found if not walk.ignored(sample.key)]
    return samples_of("dicom", walk.root, found, (*notes, *series.notes(found)), about)


def series_of(root: str, files: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """The series of files below `root`, called by hashes of their ids, and what is to be told of them. DataError as of
    `dicom`."""
    series = _Series(root)
    found = series.of(None, "", files, hashed)
    return found, series.notes(found)


class _Series:
    """Reads headers and makes series of them; counts what is no slice."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.localizers = 0
        self.without_pixels = 0
        self._expected = 0

    def expect(self, files: int) -> None:
        self._expected += files

    def of(self, split: str | None, label: str, files: Sequence[str], named) -> list[Sample]:
        """The series of the files of one class, in the order of what they are called."""
        by_series: dict[str, list[Header]] = {}
        for file in counted(files, f"reading the DICOM headers of {label}" if label else "reading headers", len(files)):
            header = header_of(os.path.join(self.root, file))
            if header is None or min(header.shape) == 0:
                self.without_pixels += 1
                continue
            if not header.series:
                raise DataError("a DICOM image belongs to no series", where=header.path, found="no SeriesInstanceUID")
            by_series.setdefault(header.series, []).append(header)
        made = [self._sample(split, label, uid, headers, named) for uid, headers in by_series.items()]
        return sorted((sample for sample in made if sample is not None), key=lambda sample: sample.key)

    def only(self, split: str | None, label: str, path: str, files: Sequence[str], named) -> Sample:
        """The one series of a folder that a manifest lists."""
        found = self.of(split, label, files, named)
        if len(found) == 1:
            return found[0]
        raise DataError(
            "a folder of the manifest does not hold one series",
            where=os.path.join(self.root, path),
            found=f"{len(found)} series"
            + (f", such as those of {found[0].paths[0]} and {found[1].paths[0]}" if found else ""),
            valid="the files of one SeriesInstanceUID",
            fix="give each series a folder and a row of its own",
        )

    def notes(self, found: Sequence[Sample]) -> list[str]:
        patients = {sample.patient for sample in found if sample.patient}
        told = [f"data: {len(found):,} series of {plural(len(patients), 'patient')}"] if patients else []
        if self.localizers:
            told.append(f"data: {plural(self.localizers, 'localizer')} left out")
        if self.without_pixels:
            told.append(f"data: {plural(self.without_pixels, 'DICOM file')} without an image left out")
        return told

    def _sample(self, split: str | None, label: str, uid: str, headers: list[Header], named) -> Sample | None:
        if all(header.localizer for header in headers):
            self.localizers += len(headers)
            return None
        series = arranged(headers)
        self.localizers += series.localizers
        patient = headers[0].patient
        other = next((header for header in headers if header.patient != patient), None)
        if other is not None:
            raise DataError(
                "the files of a series are of two patients",
                where=other.path,
                found=f"not the PatientID of {headers[0].path}",
            )
        paths = tuple(os.path.relpath(each, self.root) for each in series.paths)
        return Sample(split, label, named(uid), paths, series.directions, named(patient) if patient else "")
