"""Source `masks`: images or volumes, each with a mask that says the class of its pixels.

cells/images/a/1.png             two folders, in each split or alone; a mask is named as its image,
cells/masks/a/1.png              but for the suffix
cells.csv                        or a manifest with the columns path and mask, and perhaps split
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from raycls.data.names import split_of
from raycls.data.samples import Files, Keys, Reader, Samples
from raycls.data.sources.listing.manifest import SUFFIXES as MANIFESTS
from raycls.data.sources.listing.manifest import manifest
from raycls.data.sources.remote.address import is_remote
from raycls.data.sources.volumes.walk import Walk
from raycls.data.volumes.nifti import SUFFIXES as VOLUMES
from raycls.errors import DataError
from raycls.quantities import first_names

__all__ = ["masks"]

_IMAGES, _MASKS = "images", "masks"


def masks(
    path: str | Path,
    classes: Sequence[str],
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
) -> Samples:
    """Images with masks (or NIfTI volumes with NIfTI masks), for the task `segmentation` (`volume_segmentation`).

    `classes` are the names of what a mask holds, in the order of its values, the background first. In a folder there
    are `images` and `masks`, in each split or alone; files at any depth below both, whose names differ in the suffix
    alone. A manifest has the columns `path` and `mask`, both relative to its folder or to `root`; the other arguments
    are those of the source `manifest`. DataError where an image has no mask, or a mask no image.
    """
    if is_remote(path):
        raise DataError(
            "masks are read from files of this machine",
            where="data.source.path",
            found=str(path),
            valid="a folder or a manifest",
            fix="copy the data here",
        )
    names = tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise DataError(
            "the classes of masks are two or more unique names",
            where="data.source.args.classes",
            found=str(list(names)),
            fix="name each class, the background first",
        )
    if os.path.isfile(path) and str(path).lower().endswith(MANIFESTS):
        return _listed(str(path), names, root, columns, splits, ignore, ignore_file, about)
    given = {"root": root, "columns": columns, "splits": splits, "about": about}
    if wrong := [name for name, value in given.items() if value]:
        what = "arguments of a manifest were given, and the path is none"
        raise DataError(what, where="data.source.args", found=", ".join(wrong), fix="leave them out")
    return _found(Walk(str(path), ignore, ignore_file), names)


def _listed(
    path: str,
    classes: tuple[str, ...],
    root: str | None,
    columns: Mapping[str, str | None] | None,
    splits: Mapping[str, str] | str | None,
    ignore: str | Sequence[str],
    ignore_file: str | None,
    about: Sequence[str],
) -> Samples:
    given = dict(columns or {})
    column = given.pop("mask", None) or "mask"
    # whatever else a row says, its mask is what the manifest has it labelled by
    read = manifest(
        path,
        root,
        {**given, "label": column, "class_id": None},
        splits=splits,
        ignore=ignore,
        ignore_file=ignore_file,
        about=[*about, column],
    )
    folder = os.path.abspath(root) if root is not None else os.path.dirname(os.path.abspath(path))
    files = read.about[column]
    missing = [name for name in files if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise DataError(
            "masks of the manifest are missing",
            where=path,
            found=first_names(missing, len(missing)),
            valid=f"files relative to {folder}, in the column {column}",
            fix="restore them, or leave their rows out",
        )
    kept = {name: values for name, values in read.about.items() if name in about}
    return replace(_samples(read, Keys(files), folder, classes), about=kept)


def _found(walk: Walk, classes: tuple[str, ...]) -> Samples:
    top = sorted(os.listdir(walk.root)) if os.path.isdir(walk.root) else []
    folders = [name for name in top if os.path.isdir(os.path.join(walk.root, name)) and not name.startswith(".")]
    alone = {_IMAGES, _MASKS} <= set(folders)
    named = {name: split for name in folders if (split := split_of(name)) is not None}
    if not alone and (not named or len(named) < len(folders) or len(set(named.values())) < len(named)):
        raise DataError(
            "the data folder has no images and masks",
            where=walk.root,
            found=first_names(folders) if folders else "no folder",
            valid=f"the folders {_IMAGES} and {_MASKS}; or train, val and test with these two in each",
            fix="or name a manifest in data.source.path: a CSV file with the columns path and mask",
        )
    images: list[str] = []
    beside: list[str] = []
    rows: dict[str, list[int]] = {}
    for prefix, split in [("", None)] if alone else named.items():
        for image, mask in _pairs(walk, prefix):
            if split is not None:
                rows.setdefault(split, []).append(len(images))
            images.append(image)
            beside.append(mask)
    if not images:
        raise DataError("the data folder holds no image", where=walk.root)
    keys = Keys(images)
    read = Samples(classes, None, keys, Files(walk.root, keys), splits=rows or None)
    return _samples(read, Keys(beside), walk.root, classes)


def _pairs(walk: Walk, prefix: str) -> list[tuple[str, str]]:
    """The images and their masks below one split, sorted. DataError where one is alone."""
    there: list[dict[str, str]] = []
    for name in (_IMAGES, _MASKS):
        folder = f"{prefix}/{name}" if prefix else name
        files = walk.files(folder)
        stems = {_stem(file)[len(folder) + 1 :]: file for file in files}
        if len(stems) < len(files):
            twice = next(file for file in files if stems[_stem(file)[len(folder) + 1 :]] != file)
            raise DataError("two files differ in the suffix alone", where=walk.root, found=twice, fix="remove one")
        there.append(stems)
    images, found = there
    lonely = [images[stem] for stem in images if stem not in found] + [
        found[stem] for stem in found if stem not in images
    ]
    if lonely:
        raise DataError(
            "images without a mask, or masks without an image",
            where=walk.root,
            found=first_names(lonely, len(lonely)),
            valid=f"{_IMAGES}/NAME and {_MASKS}/NAME, with any suffixes",
            fix="complete the pairs, or leave these out with data.source.args.ignore",
        )
    return [(images[stem], found[stem]) for stem in sorted(images)]


def _stem(file: str) -> str:
    return file[: -len(".nii.gz")] if file.lower().endswith(".nii.gz") else os.path.splitext(file)[0]


def _samples(read: Samples, files: Keys, root: str, classes: tuple[str, ...]) -> Samples:
    """`read` without labels and with the masks `files`; as volumes where both are NIfTI."""
    kinds = {name.lower().endswith(VOLUMES) for each in (read.keys, files) for name in each}
    if len(kinds) > 1:
        raise DataError(
            "some of the images and masks are NIfTI files and others are not",
            where=root,
            valid="NIfTI volumes with NIfTI masks, or images with masks that are images",
            fix="make two data sets of them",
        )
    reader: Reader = read.reader
    part: Reader = Files(root, files)
    if kinds == {True}:
        from raycls.data.masks.nifti import volumes_of

        reader, part = volumes_of(root, list(read.keys), list(files))
    return replace(read, classes=classes, labels=None, reader=reader, parts={"mask": part}, ordered=True)
