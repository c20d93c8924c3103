"""Source `nifti`: volumes in `.nii` and `.nii.gz` files.

scans/benign/1.nii.gz            one folder per class, files at any depth below it
scans/malignant/...
volumes.csv                      or a manifest whose column path names the files
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from raycls.data.samples import Samples
from raycls.data.sources.volumes.listed import Sample, from_manifest, is_manifest, samples_of, with_volumes
from raycls.data.sources.volumes.walk import Walk
from raycls.data.volumes.nifti import SUFFIXES, directions_of
from raycls.errors import DataError
from raycls.progress import counted
from raycls.quantities import first_names

__all__ = ["nifti"]


def nifti(
    path: str | Path,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    about: Sequence[str] = (),
) -> Samples:
    """NIfTI files in one directory per class, or those that a manifest lists.

    A sample is a file with one volume. `splits`, `ignore` and `ignore_file` are those of the source `folder`, `root`,
    `columns` and `about` those of `manifest`. DataError names a file that is no volume, or says no orientation.
    """
    if is_manifest(str(path)):
        args = {"root": root, "columns": columns, "splits": splits, "ignore": ignore, "ignore_file": ignore_file}
        listed, folder, paths = from_manifest(str(path), args, about)
        found = [_sample(folder, None, "", each) for each in counted(paths, "reading headers", len(paths))]
        return with_volumes(listed, "nifti", folder, found, (), about)
    walk = Walk(str(path), ignore, ignore_file)
    groups, notes = walk.groups(splits)
    wrong = [file for group in groups for file in group.files if not file.lower().endswith(SUFFIXES)]
    if wrong:
        raise DataError(
            "there are files among the volumes that are not NIfTI",
            where=walk.root,
            found=first_names(wrong),
            valid=f"files named {' '.join(SUFFIXES)}",
            fix="leave them out with data.source.args.ignore",
        )
    files = [(group, file) for group in groups for file in group.files]
    found = [
        _sample(walk.root, group.split, group.label, file)
        for group, file in counted(files, "reading headers", len(files))
    ]
    return samples_of("nifti", walk.root, found, notes, about)


def _sample(root: str, split: str | None, label: str, file: str) -> Sample:
    return Sample(split, label, file, (file,), directions_of(os.path.join(root, file)))
